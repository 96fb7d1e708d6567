"""Two panels that several figures have: the largest eigenvalue, and the accuracy under FGSM, at the target loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from hbanalysis.plots.series import PLACE, cell, place, with_means
from hbanalysis.plots.style import plain_numbers
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family

CURVATURE, ROBUSTNESS = PANELS = ("largest eigenvalue", "accuracy under FGSM")


def outcomes(
    groups: Mapping[Family, Sequence[Row]], coordinates: Mapping[str, Callable[[Mapping[str, Any]], Any]]
) -> pd.DataFrame:
    """Return what the two panels show: values of seeds, and their means, which are geometric for the eigenvalue.

    Args:
        groups: Rows by what they share; those without a measurement are passed over.
        coordinates: What tells the points of a group apart, read from the configuration of a training.

    Returns:
        Columns `scale`, `network`, `dataset`, `setting`, `panel`, the coordinates, `seed`, `status`, `value`, `kind`,
        `low`, `high`, `n`.
    """
    points: list[dict[str, Any]] = []
    for one, group in groups.items():
        for row in group:
            at = row.values.get("at_target")
            if at:
                own = {name: read(row.config["training"]) for name, read in coordinates.items()}
                found = (at["lambda1_train"], 100 * at["fgsm"][0]["accuracy_test"])
                for name, value in zip(PANELS, found, strict=True):
                    points.append(place(one) | cell(row) | own | {"panel": name, "value": value})
    by = [*PLACE, "panel", *coordinates]
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    parts = [with_means(frame[frame["panel"] == name], by, logarithmic=name == CURVATURE) for name in PANELS]
    return pd.concat(parts, ignore_index=True)


def dress(panel: Axes, name: str) -> None:
    """Give one of the two panels, drawn, its vertical axis."""
    if name == CURVATURE:
        panel.set_yscale("log")
        plain_numbers(panel)
    panel.set_ylabel(r"$\lambda_1$, training loss" if name == CURVATURE else "test accuracy (%)")
