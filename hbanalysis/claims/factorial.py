"""Learning rate by batch size: effects of the batch at a fixed rate and at a fixed ratio, with the verdict on each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from hbanalysis import paper
from hbanalysis.claims.outcomes import NO_VERDICT, UNDECIDED
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families_over, reached
from hbanalysis.trends import t_interval

BATCH, RATIO = "batch size itself", "lr / B"
# What a verdict says where the effect at a fixed ratio excludes 0 on the side that the claim does not name.
OTHER_WAY = f"{BATCH}, against the claim"
CLAIMED: Mapping[str, float] = {"K1": 1.0, "K2": -1.0, "K4": -1.0}  # signs of the claims' effects of larger batches
# What is regressed, by claim: its name and how it is read from what was measured at the target loss.
OUTCOMES: Mapping[str, tuple[str, Callable[[Mapping], float]]] = {
    "K1": ("log lambda1 on the training loss", lambda at: float(np.log(at["lambda1_train"]))),
    "K2": ("test accuracy, points", lambda at: 100 * at["accuracy_test"]),
    "K4": ("test accuracy under FGSM, points", lambda at: 100 * at["fgsm"][0]["accuracy_test"]),
}


@dataclass(frozen=True)
class Effects:
    """Slopes of an outcome on the logarithm of the batch size, one a seed.

    Attributes:
        fixed_rate: At a fixed learning rate, as in the paper.
        fixed_ratio: At a fixed ratio of learning rate and batch size.
        cells: Trainings that entered.
    """

    fixed_rate: tuple[float, ...]
    fixed_ratio: tuple[float, ...]
    cells: int


def designs(rows: Iterable[Row]) -> dict[Family, list[Row]]:
    """Return the rows of the factorial by what they share besides learning rate, batch size and seed."""
    return families_over(rows, "learning_rate")


def effects(rows: Sequence[Row], outcome: Callable[[Mapping], float]) -> Effects:
    r"""Return the effects of the batch size on an outcome by least squares within each seed.

    .. math:: y = a + b_\eta \log \eta + b_B \log B = a + b_\eta \log (\eta / B) + (b_\eta + b_B) \log B

    so that :math:`b_B` is the effect at a fixed learning rate and :math:`b_\eta + b_B` that at a fixed ratio. Seeds
    in which fewer than two learning rates or two batch sizes reached the target, or in which one follows from the
    other, do not enter.

    Args:
        rows: One design of `designs`.
        outcome: Reads y from what was measured at the target loss.
    """
    by_seed: dict[int, list[Row]] = {}
    for row in reached(rows):
        by_seed.setdefault(row.config["training"]["seed"], []).append(row)
    rate, ratio, cells = [], [], 0
    for seed in sorted(by_seed):
        group = by_seed[seed]
        trainings = [row.config["training"] for row in group]
        X = np.array([[1.0, np.log(t["learning_rate"]), np.log(t["batch_size"])] for t in trainings])
        if np.linalg.matrix_rank(X) < X.shape[1]:
            continue
        y = np.array([outcome(row.values["at_target"]) for row in group])
        _, of_rate, of_batch = np.linalg.lstsq(X, y, rcond=None)[0]
        rate.append(float(of_batch))
        ratio.append(float(of_rate + of_batch))
        cells += len(group)
    return Effects(tuple(rate), tuple(ratio), cells)


def complete(rows: Sequence[Row], network: str) -> list[Row]:
    """Return the rows of the seeds that hold every cell of the criteria's design for a network, however they ended."""
    design = paper.criteria().factorial["designs"].get(network)
    if design is None:
        return list(rows)
    without = {(float(rate), int(size)) for rate, size in design["without"]}
    demanded = set(product(map(float, design["learning_rates"]), design["batch_sizes"])) - without
    held: dict[int, set[tuple[float, int]]] = {}
    for row in rows:
        held.setdefault(row.config["training"]["seed"], set()).add(_pair(row))
    return [row for row in rows if demanded <= held[row.config["training"]["seed"]]]


def second_verdict(found: Effects) -> str:
    """Return what remains of the batch effect at a fixed ratio, by the criterion that was fixed beforehand.

    Example:
        >>> second_verdict(Effects((1.0, 1.1, 0.9), (0.01, -0.02, 0.0), 27))
        'lr / B'
        >>> second_verdict(Effects((1.0, 1.1, 0.9), (0.9, 1.1, 1.0), 27))
        'batch size itself'
        >>> second_verdict(Effects((1.0,), (0.0,), 9))
        'undecided'
    """
    rules = paper.criteria()
    if len(found.fixed_ratio) < 2:
        return UNDECIDED
    left = t_interval(found.fixed_ratio, rules.rules["confidence"])
    share = rules.factorial["around_zero_share_of_fixed_lr_effect"]
    around = share * abs(t_interval(found.fixed_rate).mean)
    if not left.contains(0.0):
        return BATCH
    return RATIO if left.above(-around) and left.below(around) else UNDECIDED


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a claim and design: both effects with intervals, the second verdict, what the rows say here."""
    criteria = paper.criteria()
    groups = designs(rows)
    titles = distinct_titles(groups)
    lines = []
    for claim, (measure, outcome) in OUTCOMES.items():
        for one, group in groups.items():
            deciding = one.scale in criteria.rules["deciding_scales"]
            needed = criteria.factorial["designs"].get(one.network, {}).get("seeds", 1)
            whole = complete(group, one.network) if deciding else group
            enough = len({row.config["training"]["seed"] for row in whole}) >= needed
            found = effects(whole if enough else group, outcome)
            if not found.fixed_rate:
                continue
            seeds = len(found.fixed_rate)
            here = second_verdict(found)
            if here == BATCH and t_interval(found.fixed_ratio).mean * CLAIMED[claim] < 0:
                here = OTHER_WAY
            lines.append(
                {
                    "claim": claim,
                    "trained": titles[one],
                    "scale": one.scale,
                    "effect of log B on": measure,
                    "at fixed lr": t_interval(found.fixed_rate).text(),
                    "at fixed lr / B": t_interval(found.fixed_ratio).text(),
                    "trainings": found.cells,
                    "seeds": seeds,
                    "verdict": NO_VERDICT if not deciding else here if enough and seeds >= needed else UNDECIDED,
                    "here": here,
                }
            )
    return pd.DataFrame(lines)


def measured(rows: Sequence[Row]) -> pd.DataFrame:
    """Return means over seeds by learning rate and batch size, with the ratio of the two; accuracies in percent."""
    lines = []
    groups = designs(rows)
    titles = distinct_titles(groups)
    for one, group in groups.items():
        ended = reached(group)
        pairs = sorted({(r.config["training"]["learning_rate"], r.config["training"]["batch_size"]) for r in group})
        for rate, size in pairs:
            here = [r for r in ended if _pair(r) == (rate, size)]
            line = {
                "scale": one.scale,
                "trained": titles[one],
                "lr": rate,
                "batch_size": size,
                "lr_over_batch": rate / size,
            }
            line |= {"seeds": len(here), "not_reached": sum(_pair(r) == (rate, size) for r in group) - len(here)}
            if here:
                at = [r.values["at_target"] for r in here]
                line |= {
                    "epochs": float(np.mean([r.values["epochs"] for r in here])),
                    "lambda1_train": float(np.exp(np.mean([np.log(a["lambda1_train"]) for a in at]))),
                    "lambda1_test": float(np.exp(np.mean([np.log(a["lambda1_test"]) for a in at]))),
                    "accuracy_test": 100 * float(np.mean([a["accuracy_test"] for a in at])),
                    "fgsm_test": 100 * float(np.mean([a["fgsm"][0]["accuracy_test"] for a in at])),
                }
            lines.append(line)
    return pd.DataFrame(lines)


def _pair(row: Row) -> tuple[float, int]:
    return row.config["training"]["learning_rate"], row.config["training"]["batch_size"]
