"""Fig. 2: the loss along the leading eigenvector, beside what slope and curvature predict."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hbanalysis.plots.series import PLACE, cell, not_drawn, of_family, place, stopped_key
from hbanalysis.plots.style import Look, batch_looks, grid, legend, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, families

_LOSSES = {"loss_train": "training loss", "loss_test": "test loss"}


def landscape(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    r"""Training and test loss along the first eigenvector of the training Hessian (Fig. 2 of the paper).

    Over the training loss stands the prediction of its slope and curvature at the end of training,

    .. math:: L(\theta + t v_1) \approx L(\theta) + t\, g^\top v_1 + \tfrac12 \lambda_1 t^2.

    One line a seed. The distance t is that in the space of all weights, v1 having norm 1.

    Args:
        rows: rows of `spectrum_vs_batch`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`,
        `seed`, `status`, `t`, `loss_train`, `loss_test`, `quadratic`.

    Raises:
        InputError: no row has a landscape.
    """
    lines = [
        line
        for one, group in families(rows).items()
        for row in group
        if row.values.get("landscape") and row.values.get("at_target")
        for line in _lines(one, row)
    ]
    columns = [*PLACE, "batch_size", "seed", "status", "t", "loss_train", "loss_test", "quadratic"]
    data = pd.DataFrame(lines, columns=columns)
    chosen = [one for one in families(rows) if of_family(data, one).size]
    figure, axes = grid(chosen, list(_LOSSES.values()))
    looks = batch_looks(data["batch_size"])
    for (one, _), panel in axes.items():
        panel.set_yscale("log")
        panel.set_xlabel(r"distance $t$ along $v_1$")
        if panel is axes[one, "training loss"]:
            panel.set_ylabel("loss")
            remark(panel, not_drawn(families(rows)[one]))
    for one in chosen:
        for _, path in of_family(data, one).groupby(["batch_size", "seed"]):
            look = looks[path["batch_size"].iloc[0]]
            hollow = path["status"].iloc[0] != "reached"
            for column, loss in _LOSSES.items():
                _draw(axes[one, loss], path["t"], path[column], look, hollow=hollow)
            positive = path[path["quadratic"] > 0]
            axes[one, "training loss"].plot(
                positive["t"], positive["quadratic"], ":", color="0.15", linewidth=1.0, zorder=4
            )
    keys = [line_key("slope and curvature predict", linestyle=":", color="0.15"), *stopped_key(rows)]
    legend(figure, looks, "batch size", keys)
    return figure, data


def _draw(axes: Axes, t: pd.Series, loss: pd.Series, look: Look, *, hollow: bool) -> None:
    axes.plot(
        t,
        loss,
        color=look.color,
        marker=look.marker,
        markerfacecolor="white" if hollow else look.color,
        markevery=max(len(t) // 8, 1),
        markersize=4.5,
        linewidth=1.2,
        alpha=0.8,
    )


def _lines(one: Family, row: Row) -> list[dict[str, Any]]:
    path, start = row.values["landscape"], row.values["at_target"]["loss_train"]
    slope, curvature = path["slope_train"], path["curvature_train"]
    return [
        place(one)
        | cell(row)
        | {
            "t": t,
            "loss_train": loss_train,
            "loss_test": loss_test,
            "quadratic": start + slope * t + curvature * t**2 / 2,
        }
        for t, loss_train, loss_test in zip(path["t"], path["loss_train"], path["loss_test"], strict=True)
    ]
