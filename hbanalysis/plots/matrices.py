"""Accuracy matrices as annotated heat maps: ours, the paper's, and the difference."""

from collections.abc import Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hbanalysis.errors import InputError
from hbanalysis.plots.style import STACKED, STACKED_WIDTH, house_style, is_stacked
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families
from hbanalysis.tables.robustness import matrix, paper_matrix

_DARK = 60  # percent: text on darker cells is white
_LINE = 0.33  # inches
_LARGEST = 30  # points: the ends of the colours of a difference


def accuracy_matrices(rows: Sequence[Row], kind: str = "static") -> tuple[Figure, pd.DataFrame]:
    """Draw every family's accuracy matrix, with the paper's where it has one and, at its scale, the difference.

    Args:
        rows: Rows of `adversarial_training`.
        kind: See `robustness.matrix`.

    Returns:
        The figure, and the plotted data: columns `scale`, `trained`, `matrix`, `model`, `set`, `value` (percent, or
        points for the difference).

    Raises:
        InputError: There is no row.
    """
    groups = families(rows)
    if not groups:
        raise InputError("There is no row to draw. Compute the study first: `hbanalysis run adversarial_training`.")
    panels: list[tuple[Family, str, pd.DataFrame]] = []
    for one, group in groups.items():
        ours, theirs = matrix(group, kind), paper_matrix(one)
        panels.append((one, "ours", ours))
        if theirs is not None and kind == "static":
            panels.append((one, "the paper's", theirs))
            if one.scale == "paper":
                panels.append((one, "ours minus the paper's", (ours.loc[theirs.index] - theirs)))
    house_style()
    sizes = [len(values) + 2.4 for *_, values in panels]
    width, label = (STACKED_WIDTH, STACKED) if is_stacked() else (6.6, "")
    figure = plt.figure(figsize=(width, _LINE * sum(sizes)), layout="constrained", label=label)
    axes = figure.subplots(len(panels), 1, height_ratios=sizes, squeeze=False)[:, 0]
    titles, lines = distinct_titles(groups), []
    for (one, name, values), panel in zip(panels, axes, strict=True):
        _heat(panel, values, difference="minus" in name)
        panel.set_title(_head(one, titles[one], name), fontsize=10.5 if label else 12, fontweight="bold", loc="left")
        for model, line in values.iterrows():
            for column, value in line.items():
                entry = {"scale": one.scale, "trained": titles[one], "matrix": name, "model": model, "set": column}
                lines.append(entry | {"value": float(value)})
    return figure, pd.DataFrame(lines)


def _head(one: Family, title: str, name: str) -> str:
    """Head a panel; the paper's is not of our samples and scale."""
    if name == "the paper's":
        return f"{one.whole}\n{name}"
    between = "\n" if is_stacked() else " "
    return f"{title},{between}{one.scale_label}\n{name}"


def _heat(panel: Axes, values: pd.DataFrame, difference: bool) -> None:
    numbers = values.to_numpy(dtype=float)
    low, high = (-_LARGEST, _LARGEST) if difference else (0, 100)
    # Pale where accuracy is low, so that high ones stand out on white, and on black when a page is inverted.
    steps = matplotlib.colormaps["PuOr"].resampled(9) if difference else matplotlib.colormaps["YlGnBu"].resampled(10)
    panel.imshow(numbers, cmap=steps, vmin=low, vmax=high, aspect="auto")
    heads = [str(c).replace("mean of attacked", "mean") for c in values]
    panel.set_xticks(range(values.shape[1]), heads, fontsize=7.5 if is_stacked() else 10)
    panel.set_yticks(range(values.shape[0]), list(values.index), fontsize=9 if is_stacked() else 10.5)
    panel.xaxis.tick_top()
    panel.grid(False)
    panel.tick_params(length=0)
    size = 9 if is_stacked() else 10.5
    for (i, j), value in np.ndenumerate(numbers):
        white = abs(value) > 0.6 * _LARGEST if difference else value >= _DARK
        text = f"{value:+.1f}" if difference else f"{value:.1f}"
        panel.text(j, i, text, ha="center", va="center", fontsize=size, color="white" if white else "black")
