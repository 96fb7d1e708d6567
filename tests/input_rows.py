"""Rows in the schema of `input_curvature` whose measured values follow simple laws."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hbanalysis.store import Row, row_key
from hbanalysis.store.pictures import encoded
from tests.synthetic_rows import make_row

STUDY = "input_curvature"
CLASSES = 4


def summary(lambda1: float, distance: float, samples: int = 50) -> dict[str, Any]:
    """Means ten times the medians; the spectrum falls tenfold from value to value."""
    spectrum = [lambda1 * 0.1**k for k in range(CLASSES - 1)]
    return {
        "samples": samples,
        "accuracy": 0.97,
        "loss": {"mean": 9e-4, "median": 1e-6},
        "doubt": {"mean": 1e-3, "median": 1e-6},
        "lambda1": {"mean": lambda1, "median": lambda1 / 10},
        "gradient_norm": {"mean": 2 * lambda1, "median": lambda1 / 5},
        "spectrum": {"mean": spectrum, "median": [value / 10 for value in spectrum]},
        "effective_rank": {"mean": 2.5, "median": 3.0},
        "distance": {"median": distance, "share_above": [0.5, 0.1]},
    }


def input_row(
    batch_size: int,
    seed: int,
    *,
    lambda1: float = 1.0,
    distance: float = 0.1,
    fgsm: float = 0.6,
    exceptions: int = 0,
    samples: int = 300,
    status: str = "reached",
    **where: Any,
) -> Row:
    """One row whose measured values are the arguments."""
    base = make_row(batch_size, seed, status=status, **where)
    config = {"training": base.config["training"], "measure": {"epsilons": [0.1, 0.2]}}
    values: dict[str, Any] = {"status": status, "epochs": 10.0}
    doubts = [
        {"doubt_at_most": d, "samples": 10, "effective_rank": 2.0, "lambda1": d, "gradient_norm": d}
        for d in (1e-6, 1e-2, 1.0)
    ]
    test = summary(lambda1, distance) | {
        "by_doubt": doubts,
        "correct": summary(lambda1 / 10, distance),
        "wrong": summary(10 * lambda1, -distance, 3) if batch_size < 1000 else None,
        "attacked": summary(5 * lambda1, distance / 4),
    }
    image = torch.arange(4.0).reshape(1, 2, 2) / 3
    names = ("image", "gradient", "v1", "v2", "Newton")
    measured = {
        "train": summary(lambda1 / 4, distance) | {"by_doubt": doubts},
        "test": test,
        "robustness": [
            {"epsilon": 0.1, "fgsm_train": fgsm + 0.1, "fgsm_test": fgsm, "pgd_test": fgsm - 0.1},
            {"epsilon": 0.2, "fgsm_train": fgsm / 2, "fgsm_test": fgsm / 2, "pgd_test": 0.0},
        ],
        "distances": {
            "samples": 100,
            "compared": 90,
            "median": 1.2 * distance,
            "linearised_median": distance,
            "rank_correlation": 0.9,
        },
        "pictures": [
            {
                "sample": 5,
                "label": 3,
                "predicted": 8,
                "doubt": 0.7,
                "eigenvalues": [1.0, 0.1, 0.0],
                "cosines": {"gradient": 1.0, "v1": 0.99, "v2": 0.1, "Newton": 0.5},
                "images": {name: encoded(image) for name in sorted(names)},
            }
        ],
        "theorem": {
            "method": "dense",
            "samples": samples,
            "inputs": 784,
            "limit": CLASSES - 1,
            "negative_ratio": 3e-15,
            "ranks": [0, 0, 10, samples - 10],
            "asymmetry": 1e-15,
            "lambda_max_smallest": 1e-9,
            "exceptions": exceptions,
        },
        "course": [{**summary(lambda1, distance), "loss_train": loss, "robustness": fgsm} for loss in (0.09, 9e-4)],
    }
    if status != "diverged":
        values |= measured
    return Row(STUDY, base.scale, 1, row_key(STUDY, 1, config), config, values, {})


def input_rows(
    batch_sizes: Sequence[int], seeds: Sequence[int], law: Callable[[int, int], dict[str, Any]], **where: Any
) -> list[Row]:
    """One row a batch size and seed, with ``law(batch_size, seed)`` as arguments of `input_row`."""
    return [input_row(b, s, **law(b, s), **where) for b in batch_sizes for s in seeds]


def near_boundary(batch_size: int, seed: int) -> dict[str, Any]:
    """Distance and accuracy fall with the batch size; lambda1 has its largest value in the middle."""
    return {
        "lambda1": {16: 0.5, 64: 2.0, 256: 1.0}.get(batch_size, 1.0) + 0.01 * seed,
        "distance": 0.2 - 0.0004 * batch_size + 0.001 * seed,
        "fgsm": 0.8 - 0.001 * batch_size + 0.002 * seed,
    }
