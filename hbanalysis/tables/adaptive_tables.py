"""Rows of `absa` as tables: what each way to choose the batch ends with, differences within seeds, each enlargement."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hbanalysis.adaptive_batch import AdaptiveBatch
from hbanalysis.lineup import ABS, ABSA, ARMS, LARGE, SMALL
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families
from hbanalysis.trends import t_interval

_VARIES = ("learning_rate",)  # between the arms of one family, beside the batch size
PAIRS = ((LARGE, SMALL), (ABS, SMALL), (ABSA, SMALL), (ABSA, LARGE), (ABSA, ABS))
# Each quantity at the end: its name, how it is read from a row, and whether it is compared as a ratio.
QUANTITIES: Mapping[str, tuple[Callable[[Row], float], bool]] = {
    "SGD steps": (lambda row: float(row.values["steps"]), True),
    "test accuracy (%)": (lambda row: 100 * row.values["at_target"]["accuracy_test"], False),
    "FGSM accuracy (%)": (lambda row: 100 * row.values["at_target"]["fgsm"][0]["accuracy_test"], False),
    "PGD accuracy (%)": (lambda row: 100 * row.values["at_target"]["pgd_test"], False),
    "lambda1": (lambda row: row.values["at_target"]["lambda1_train"], True),
}


def groups(rows: Iterable[Row]) -> dict[Family, list[Row]]:
    """Return rows by what they share besides the arm and the seed."""
    found: dict[Family, list[Row]] = {}
    for one, group in families(rows).items():
        setting = tuple(pair for pair in one.setting if pair[0] not in _VARIES)
        found.setdefault(replace(one, setting=setting), []).extend(group)
    return found


def arms(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return rows by arm, in the order of `hbanalysis.lineup.ARMS`, each sorted by seed."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.config["arm"], []).append(row)
    return {name: sorted(found[name], key=seed) for name in ARMS if name in found}


def seed(row: Row) -> int:
    """Return the seed of a row's training."""
    return int(row.config["training"]["seed"])


def outcomes(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a family and arm: what its trainings ended with, means over seeds (of lambda1 geometric).

    Accuracies are in percent. Trainings that diverged are counted and enter no mean.
    """
    lines = []
    by_family = groups(rows)
    titles = distinct_titles(by_family)
    for one, group in by_family.items():
        for name, chosen in arms(group).items():
            ended = [row for row in chosen if row.values["at_target"]]
            line: dict[str, Any] = {"scale": one.scale, "trained": titles[one], "arm": name}
            line |= {"seeds": len(ended), "diverged": len(chosen) - len(ended)}
            if ended:
                at = [row.values["at_target"] for row in ended]
                line |= {
                    "epochs": float(np.mean([row.values["epochs"] for row in ended])),
                    "SGD steps": float(np.mean([row.values["steps"] for row in ended])),
                    "train loss": _geometric([a["loss_train"] for a in at]),
                    "train accuracy (%)": 100 * float(np.mean([a["accuracy_train"] for a in at])),
                }
                for quantity, (read, ratio) in QUANTITIES.items():
                    values = [read(row) for row in ended]
                    line.setdefault(quantity, _geometric(values) if ratio else float(np.mean(values)))
            lines.append(line)
    return pd.DataFrame(lines)


def compared(rows: Sequence[Row], confidence: float = 0.95) -> pd.DataFrame:
    r"""Return one line a family, quantity and pair of arms: their difference within seeds, with its t-interval.

    Accuracies are compared by differences in points; steps and lambda1 by ratios, whose mean is geometric and whose
    interval is that of the logarithms. There is no criterion for any of these: this compares and decides nothing.
    """
    lines = []
    by_family = groups(rows)
    titles = distinct_titles(by_family)
    for one, group in by_family.items():
        cells = {(row.config["arm"], seed(row)): row for row in group if row.values["at_target"]}
        for quantity, (read, ratio) in QUANTITIES.items():
            for first, second in PAIRS:
                seeds = sorted(s for arm, s in cells if arm == first and (second, s) in cells)
                if not seeds:
                    continue
                pairs = [(read(cells[first, s]), read(cells[second, s])) for s in seeds]
                found = t_interval([math.log(a / b) if ratio else a - b for a, b in pairs], confidence)
                low, mean, high = (_shown(value, ratio) for value in (found.low, found.mean, found.high))
                lines.append(
                    {
                        "scale": one.scale,
                        "trained": titles[one],
                        "quantity": quantity,
                        "arms": f"{first} over {second}" if ratio else f"{first} minus {second}",
                        "seeds": found.n,
                        "mean": mean,
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(lines)


def enlargements(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line for every time a batch grew: before which epoch, why, from what curvature, and to what size.

    ``lambda1`` is what was measured at the end of the epoch before, ``reference`` what it was compared with.
    """
    lines = []
    by_family = groups(rows)
    titles = distinct_titles(by_family)
    for one, group in by_family.items():
        for name, chosen in arms(group).items():
            for row in chosen:
                history = row.values["history"]
                curvatures = [math.nan if e.get("lambda1") is None else e["lambda1"] for e in history]
                stages = AdaptiveBatch(**row.config["rule"]).stages(curvatures)
                # The last stage is that of an epoch that was not trained any more.
                for number in range(1, len(history)):
                    if stages[number].ratio > stages[number - 1].ratio:
                        lines.append(
                            {
                                "scale": one.scale,
                                "trained": titles[one],
                                "arm": name,
                                "seed": seed(row),
                                "epoch": number + 1,
                                "why": stages[number].cause,
                                "reference": stages[number - 1].reference,
                                "lambda1": curvatures[number - 1],
                                "batch_size": history[number]["batch_size"],
                                "learning rate": history[number]["learning_rate"],
                                "attacked share": history[number]["share"],
                            }
                        )
    return pd.DataFrame(lines)


def _shown(value: float | None, ratio: bool) -> float:
    """A difference or ratio; what is left of equal numbers after rounding is 0, without a sign."""
    if value is None:
        return math.nan
    return math.exp(value) if ratio else round(value, 9) + 0.0


def _geometric(values: Sequence[float]) -> float:
    positive = [value for value in values if value > 0]
    return math.exp(float(np.mean(np.log(positive)))) if len(positive) == len(values) else math.nan
