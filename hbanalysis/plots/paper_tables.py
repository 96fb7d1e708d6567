"""The paper's own numbers against the batch size, as it prints them."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hbanalysis.errors import require
from hbanalysis.plots.style import Look, batch_axis, grid, legend, level_looks, line_key
from hbanalysis.tables.frames import Family, of_the_paper_for

_CURVATURE, _ACCURACY = "largest eigenvalue", "test accuracy (%)"
_LOSSES = {"lambda1_train": "training loss", "lambda1_test": "test loss"}
_FGSM = "fgsm_"


def paper_tables(trained: Sequence[tuple[str, str]]) -> tuple[Figure, pd.DataFrame]:
    """Largest eigenvalues and test accuracies of the paper's tables, a line of panels for each network and data set.

    Args:
        trained: Names of network and data set, such as ``("CR", "cifar100")``.

    Returns:
        The figure, and the plotted data: columns `network`, `dataset`, `batch_size`, `quantity`, `value`; accuracies in
        percent.

    Raises:
        InputError: The paper has no table of one of them.
    """
    groups = [Family("paper", network, dataset, ()) for network, dataset in trained]
    tables = {one: of_the_paper_for(one) for one in groups}
    for one, table in tables.items():
        require(not table.empty, f"The paper has no table of {one.whole}.")
    figure, axes = grid(groups, [_CURVATURE, _ACCURACY], share_y=False)
    first, second = level_looks([0.0, 1.0]).values()
    losses = dict(zip(_LOSSES, ((first, "-"), (second, "--")), strict=True))
    attacked = sorted({c for table in tables.values() for c in map(str, table.columns) if _is_attack(c)}, key=_epsilon)
    strengths = dict(zip(["accuracy_test", *attacked], level_looks(range(len(attacked) + 1)).values(), strict=True))
    lines = []
    for one, table in tables.items():
        for column, (look, style) in losses.items():
            lines += _drawn(axes[one, _CURVATURE], one, table, column, look, style)
        for column in filter(table.__contains__, strengths):
            percent = table.assign(**{column: 100 * table[column]})
            lines += _drawn(axes[one, _ACCURACY], one, percent, column, strengths[column], "-")
        axes[one, _CURVATURE].set_yscale("log")
        axes[one, _ACCURACY].set_ylim(-3, 103)
        for name in (_CURVATURE, _ACCURACY):
            batch_axis(axes[one, name], table["batch_size"])
    keys = [
        line_key(_LOSSES[column], color=look.color, marker=look.marker, linestyle=style)
        for column, (look, style) in losses.items()
    ]
    keys += [
        line_key(_said(column), color=look.color, marker=look.marker, markerfacecolor="white")
        for column, look in strengths.items()
    ]
    legend(figure, {}, "eigenvalues (filled), accuracies (open)", keys)
    return figure, pd.DataFrame(lines)


def _drawn(
    axes: Axes, one: Family, table: pd.DataFrame, column: str, look: Look, style: str
) -> list[dict[str, object]]:
    face = look.color if column in _LOSSES else "white"
    axes.plot(table["batch_size"], table[column], style, color=look.color, marker=look.marker, markerfacecolor=face)
    place = {"network": one.network, "dataset": one.dataset}
    return [
        place | {"batch_size": int(size), "quantity": column, "value": float(value)}
        for size, value in zip(table["batch_size"], table[column], strict=True)
    ]


def _is_attack(column: str) -> bool:
    return column.startswith(_FGSM) and column.endswith("_test")


def _epsilon(column: str) -> float:
    return float(column.removeprefix(_FGSM).removesuffix("_test"))


def _said(column: str) -> str:
    return rf"FGSM, $\epsilon$ = {_epsilon(column):g}" if _is_attack(column) else "clean"
