"""Rows of `training_dynamics` as tables: the course of each training, and trainings set side by side."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, families

_FROM, _TO = 1e-2, 1e-3


def plain(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of trainings on clean images."""
    return [row for row in rows if not row.config["train_epsilon"]]


def groups(rows: Iterable[Row]) -> dict[Family, list[Row]]:
    """Return rows by family; robust trainings, which have no target loss, stand with the plain ones."""
    chosen = list(rows)
    homes = {one: replace(one, setting=_without_target(one)) for one in families(chosen)}
    found: dict[Family, list[Row]] = {}
    for one, group in families(chosen).items():
        found.setdefault(homes[one], []).extend(group)
    return found


def stability_lines(row: Row) -> tuple[float, float]:
    r"""Return the two curvatures at which steps of a row's training lose stability.

    .. math:: \frac{2 (1 - \beta)}{\eta}, \qquad \frac{2 (1 + \beta)}{\eta}

    The second is the limit of full-batch gradient descent with heavy-ball momentum on a quadratic; the first is the
    limit of gradient descent at the effective learning rate :math:`\eta / (1 - \beta)`, near which the batch sharpness
    of small batches has been seen to settle (Andreyev and others, 2026).
    """
    training = row.config["training"]
    rate, momentum = training["learning_rate"], training["momentum"]
    return 2 * (1 - momentum) / rate, 2 * (1 + momentum) / rate


def at_crossing(row: Row, threshold: float) -> Mapping[str, Any] | None:
    """Return what was measured at the first crossing of a loss; None where the training did not reach it."""
    steps = [int(c["step"]) for c in row.values["crossings"] if math.isclose(c["threshold"], threshold)]
    return next((point for point in row.values["course"] if steps and point["step"] == steps[0]), None)


def thresholds(rows: Iterable[Row]) -> list[float]:
    """Return the losses that every one of the rows crossed, largest first."""
    sets = [{float(c["threshold"]) for c in row.values["crossings"]} for row in rows]
    return sorted(set.intersection(*sets), reverse=True) if sets else []


def peaks(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a family and batch size: the largest lambda1 seen, where, and what is left of it at the end.

    Means over seeds; those of lambda1 are geometric. ``lower`` and ``upper`` are the stability lines.
    """
    lines = []
    for one, group in groups(rows).items():
        for (size, robust), chosen in _by_size(group).items():
            lower, upper = stability_lines(chosen[0])
            ends = [row.values["at_target"]["lambda1_train"] for row in chosen if row.values["at_target"]]
            lines.append(
                {
                    "scale": one.scale,
                    "trained": one.title + (f", FGSM {robust:g}" if robust else ""),
                    "batch_size": size,
                    "seeds": len(chosen),
                    "epochs": float(np.mean([row.values["epochs"] for row in chosen])),
                    "peak lambda1": _geometric([row.values["peak"]["lambda1"] for row in chosen]),
                    "at epoch": float(np.mean([row.values["peak"]["epoch"] for row in chosen])),
                    "at loss": _geometric([row.values["peak"]["loss_train"] for row in chosen]),
                    "lambda1 at the end": _geometric(ends),
                    "lower": lower,
                    "upper": upper,
                }
            )
    return pd.DataFrame(lines)


def at_losses(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a family, loss and batch size: what was measured where the loss was first crossed.

    Geometric means over seeds, accuracy under FGSM in percent (arithmetic). ``saddle`` is ``|lambda_min| / lambda1``.
    """
    lines = []
    for one, group in groups(plain(rows)).items():
        for threshold in thresholds(group):
            for (size, _), chosen in _by_size(group).items():
                points = [p for p in (at_crossing(row, threshold) for row in chosen) if p is not None]
                smallest = [abs(p["lambda_min_train"]) / p["lambda1_train"] for p in points if "lambda_min_train" in p]
                lines.append(
                    {
                        "scale": one.scale,
                        "trained": one.title,
                        "loss": threshold,
                        "batch_size": size,
                        "seeds": len(points),
                        "measured loss": _geometric([p["loss_train"] for p in points]),
                        "lambda1": _geometric([p["lambda1_train"] for p in points]),
                        "lambda1 / loss": _geometric([p["lambda1_train"] / p["loss_train"] for p in points]),
                        "saddle": _geometric(smallest),
                        "gradient norm": _geometric([p["gradient_norm_train"] for p in points]),
                        "batch sharpness": float(np.mean([p["sharpness"] for p in points])),
                        "FGSM accuracy (%)": 100 * float(np.mean([p["fgsm_test"] for p in points])),
                    }
                )
    return pd.DataFrame(lines)


def compared(rows: Sequence[Row]) -> pd.DataFrame:
    """Return lambda1 of each larger batch over that of the smallest: at equal loss, at equal epochs, at equal steps.

    One line a family, batch size and place; geometric means over the seeds that have both, see `held_equal`.
    """
    lines = []
    for one, group in groups(plain(rows)).items():
        for (size, smallest), places in held_equal(group).items():
            place = {"scale": one.scale, "trained": one.title, "batch sizes": f"{size} over {smallest}"}
            lines += [place | _line(name, ratios) for name, ratios in places.items()]
    return pd.DataFrame(lines)


def held_equal(group: Sequence[Row]) -> dict[tuple[int, int], dict[str, list[float]]]:
    """Return lambda1 of each larger batch over that of the smallest, one a seed, by what is equal, such as a loss.

    Epochs and steps are the last that both trainings have, and log lambda1 is interpolated between measured states.

    Args:
        group: Rows of plain trainings of one family.

    Returns:
        For each pair of batch sizes, larger first, the ratios by place: ``"loss 0.001"``, ``"the last common epoch"``,
        ``"the last common step"``.
    """
    found: dict[tuple[int, int], dict[str, list[float]]] = {}
    cells = {(r.config["training"]["batch_size"], r.config["training"]["seed"]): r for r in group}
    sizes = sorted({size for size, _ in cells})
    for size in sizes[1:]:
        pairs = [(cells[sizes[0], s], r) for (b, s), r in cells.items() if b == size and (sizes[0], s) in cells]
        if not pairs:
            continue
        places = found[size, sizes[0]] = {}
        for threshold in thresholds([row for pair in pairs for row in pair]):
            places[f"loss {threshold:g}"] = [
                _at_loss(large, threshold) / _at_loss(small, threshold) for small, large in pairs
            ]
        for unit in ("epoch", "step"):
            ends = [min(pair[0].values["course"][-1][unit], pair[1].values["course"][-1][unit]) for pair in pairs]
            places[f"the last common {unit}"] = [
                _interpolated(large, unit, end) / _interpolated(small, unit, end)
                for (small, large), end in zip(pairs, ends, strict=True)
            ]
    return found


def along_each(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a plain training: how lambda1 falls between losses 1e-2 and 1e-3, and what FGSM accuracy does."""
    lines = []
    for one, group in groups(plain(rows)).items():
        for row in group:
            found = fall_and_move(row, _FROM, _TO)
            if found is not None:
                training = row.config["training"]
                place = {"scale": one.scale, "trained": one.title}
                place |= {name: training[name] for name in ("batch_size", "seed")}
                lines.append(place | {"lambda1 falls by": found[0], "FGSM accuracy moves by (points)": found[1]})
    return pd.DataFrame(lines)


def fall_and_move(row: Row, loss_from: float, loss_to: float) -> tuple[float, float] | None:
    """Return the factor by which lambda1 falls from one loss to a lower one, and the points FGSM accuracy gains."""
    before, after = at_crossing(row, loss_from), at_crossing(row, loss_to)
    if before is None or after is None:
        return None
    return before["lambda1_train"] / after["lambda1_train"], 100 * (after["fgsm_test"] - before["fgsm_test"])


def _by_size(rows: Iterable[Row]) -> dict[tuple[int, float], list[Row]]:
    """Rows that have been measured by batch size and FGSM of the training, in order."""
    found: dict[tuple[int, float], list[Row]] = {}
    for row in rows:
        found.setdefault((row.config["training"]["batch_size"], row.config["train_epsilon"]), []).append(row)
    return dict(sorted(found.items(), key=lambda item: (item[0][1], item[0][0])))


def _at_loss(row: Row, threshold: float) -> float:
    point = at_crossing(row, threshold)
    assert point is not None
    return float(point["lambda1_train"])


def _interpolated(row: Row, unit: str, end: float) -> float:
    places = [point[unit] for point in row.values["course"]]
    values = [math.log(point["lambda1_train"]) for point in row.values["course"]]
    return math.exp(float(np.interp(end, places, values)))


def _line(place: str, ratios: Sequence[float]) -> dict[str, Any]:
    return {"at equal": place, "seeds": len(ratios), "ratio of lambda1": _geometric(ratios)}


def _geometric(values: Sequence[float]) -> float:
    positive = [value for value in values if value > 0]
    return float(np.exp(np.mean(np.log(positive)))) if positive else math.nan


def _without_target(one: Family) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in one.setting if name != "target_loss")
