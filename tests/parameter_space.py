"""What parameters of studies may be at scale digits, and what they may not be: written down beside the studies' own
checks, from the help texts, so that one can be held against the other."""

import math
from typing import Any

from hypothesis import strategies as st

from hbanalysis import studies

TRAIN = 1433  # training samples of the digits


def ints(low: int, high: int) -> st.SearchStrategy:
    return st.integers(low, high)


def numbers(low: float, high: float) -> st.SearchStrategy:
    """Floats, and whole numbers, which pass for them."""
    whole = (math.ceil(low), math.floor(high))
    return st.one_of(st.floats(low, high), st.integers(*whole)) if whole[0] <= whole[1] else st.floats(low, high)


def some(item: st.SearchStrategy) -> st.SearchStrategy:
    return st.lists(item, min_size=1, max_size=3)


COUNT, SHARE, SIZE = ints(1, 5000), numbers(1e-3, 0.999), numbers(1e-3, 1.0)
SCHEDULES = ["constant", "step(5, 0.5)", "step( 1,1.0)", "milestones(0.2, 30)", "milestones(.5, 3, 60, 90)"]
VALID: dict[str, st.SearchStrategy] = {
    "activation": st.sampled_from(["relu", "softplus(20)", "softplus(0.5)", "elu(1)"]),
    "activations": some(st.sampled_from(["relu", "softplus(20)", "softplus(0.5)", "elu(1)"])),
    "arms": some(st.sampled_from(["small", "large", "ABS", "ABSA"])),
    "batch_size": ints(1, 30),
    "batch_sizes": some(ints(1, 256)),
    "dataset": st.sampled_from(["digits", "mnist", "cifar10"]),
    "directions": ints(2, 50),
    "eps_2": numbers(1e-3, 30.0),
    "eps_inf": SIZE,
    "epsilon": SIZE,
    "epsilons": some(SIZE),
    "fall": numbers(1.01, 10.0),
    "growth": ints(2, 8),
    "half_width": numbers(1e-3, 10.0),
    "iterations": some(ints(1, 30)),
    "learning_rate": numbers(1e-6, 10.0),
    "learning_rates": some(numbers(1e-6, 10.0)),
    "limit": ints(1, 8),
    "min_tolerance": SHARE,
    "models": some(st.sampled_from(["ORI", "CLEAN+", "FGSM", "L2HESS"])),
    "momentum": numbers(0.0, 0.999),
    "network": st.sampled_from(["M1"]),
    "points": ints(1, 40).map(lambda half: 2 * half + 1),
    "random_half_width": numbers(1e-3, 10.0),
    "random_points": ints(1, 40).map(lambda half: 2 * half + 1),
    "reading": st.sampled_from(["H1", "H2"]),
    "schedule": st.sampled_from(SCHEDULES),
    "seeds": some(ints(0, 2**32 - 1)),
    "share": numbers(0.0, 1.0),
    "target_loss": numbers(1e-9, 10.0),
    "tolerance": SHARE,
    "train_epsilon": numbers(0.0, 1.0),
    "train_samples": ints(256, TRAIN),
    "warm_up": ints(0, 100),
}
# A name means another thing in these studies.
VALID_IN: dict[tuple[str, str], st.SearchStrategy] = {
    ("training_dynamics", "growth"): numbers(1.01, 5.0),
    ("training_dynamics", "train_epsilon"): st.sampled_from([0.0, 0]),
    ("robustness_vs_batch", "epsilons"): some(numbers(1e-3, 0.5)),
    ("training_dynamics", "batch_sizes"): some(ints(1, 150)),
    ("batch_statistics", "batch_sizes"): some(ints(2, 128)),
    ("batch_statistics", "common_batch"): ints(2, 128),
    ("batch_statistics", "network"): st.sampled_from(["C1", "C2", "CR"]),
    ("batch_statistics", "samples"): ints(128, 5000),
}

NUMBER_OUT = [math.inf, -math.inf, math.nan, -1, -1e-9, 10**400]
COUNT_OUT = [0, -1, -(10**30)]
TEXT_OUT = ["", "x", "relu ", "M1\n", "\0", "None", "9" * 400, "step(0, 1)", "step(5, nan)", "softplus(0)", "../digits"]
INVALID: dict[str, list[Any]] = {
    "activations": [["gelu"], ["relu", ""], ["softplus(0)"]],
    "eps_inf": [*NUMBER_OUT, 1.001],
    "epsilon": [*NUMBER_OUT, 0, 1.001],
    "epsilons": [[2.0], [0.1, -0.1], [math.nan]],
    "fall": [*NUMBER_OUT, 1.0, 0.5],
    "growth": [0, -3, 1],
    "half_width": [*NUMBER_OUT, 0],
    "learning_rate": [*NUMBER_OUT, 0],
    "learning_rates": [[0.0], [math.inf], [0.1, -0.1]],
    "min_tolerance": [*NUMBER_OUT, 0, 1, 2.0],
    "momentum": [*NUMBER_OUT, 1, 1.5],
    "points": [*COUNT_OUT, 1, 2],
    "random_half_width": [*NUMBER_OUT, 0],
    "random_points": [*COUNT_OUT, 1, 2, 4],
    "share": [*NUMBER_OUT, 1.01],
    "target_loss": [*NUMBER_OUT, 0],
    "tolerance": [*NUMBER_OUT, 0, 1, 2.0],
    "train_epsilon": [*NUMBER_OUT, 1.01],
    "eps_2": [*NUMBER_OUT],
    "batch_size": [*COUNT_OUT, TRAIN + 1],
    "batch_sizes": [[0], [16, -1], [TRAIN + 1]],
    "common_batch": [*COUNT_OUT, 1, TRAIN + 1],
    "seeds": [[-1], [2**32], [0, 10**30]],
    "train_samples": [*COUNT_OUT, TRAIN + 1],
    "directions": [*COUNT_OUT, 1],
    "warm_up": [-1],
    "limit": [*COUNT_OUT, TRAIN],
    "iterations": [[0], [1, -1]],
    "arms": [["none"], ["small", ""]],
    "models": [["none"], ["ORI", "fgsm"]],
}


def valid(study: str, name: str) -> st.SearchStrategy:
    """Strategy for values that a parameter of a study may have at scale digits."""
    return VALID_IN.get((study, name), VALID.get(name, COUNT))


def invalid(study: str, name: str) -> list[Any]:
    """Values that it may not have: of wrong types, and out of its range."""
    kind = studies.get(study).parameters[name].type_name
    wrong: list[Any] = [b"x", object(), {"a": 1}, {1}, 1j, True, [], [[1]], [None]]
    if kind == "int":
        return [*wrong, 1.0, "3", *INVALID.get(name, COUNT_OUT)]
    if kind == "float":
        return [*wrong, "0.5", *INVALID[name]]
    if kind == "str":
        return [*wrong, 3, *TEXT_OUT]
    return [*wrong, "abc", 3, [1, "x"], [True], *INVALID[name]]


def parameters() -> list[tuple[str, str]]:
    """Every study with each of its parameters."""
    return [(name, parameter) for name in studies.names() for parameter in studies.get(name).parameters]
