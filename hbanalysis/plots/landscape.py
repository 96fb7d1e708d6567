"""Fig. 2: the loss along the leading eigenvector, beside what slope and curvature predict."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hbanalysis.plots.series import PLACE, cell, not_drawn, of_family, place, stopped_key, with_means
from hbanalysis.plots.style import Look, batch_looks, grid, legend, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, families

_LOSSES = {"train": "training loss", "test": "test loss"}
_PREDICTED = "predicted"


def landscape(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    r"""Training and test loss along the first eigenvector of the training Hessian (Fig. 2 of the paper).

    Over the training loss stands the prediction of its slope and curvature at the end of training,

    .. math:: L(\theta + t v_1) \approx L(\theta) + t\, g^\top v_1 + \tfrac12 \lambda_1 t^2.

    Thin lines are seeds, thick and dotted ones geometric means over seeds; a prediction that is not positive is left
    out. The distance t is that in the space of all weights, v1 having norm 1.

    Args:
        rows: rows of `spectrum_vs_batch`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `curve` ("train", "test" or
        "predicted"), `batch_size`, `t`, `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: no row has a landscape.
    """
    points = [
        point
        for one, group in families(rows).items()
        for row in group
        if row.values.get("landscape") and row.values.get("at_target")
        for point in _points(one, row)
        if (point["value"] or 0.0) > 0
    ]
    by = [*PLACE, "curve", "batch_size", "t"]
    data = with_means(pd.DataFrame(points, columns=[*by, "seed", "status", "value"]), by, logarithmic=True)
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
        part = of_family(data, one)
        for batch_size, look in looks.items():
            paths = dict(list(part[part["batch_size"] == batch_size].groupby("curve")))
            for name, title in _LOSSES.items():
                if name in paths:
                    _draw(axes[one, title], paths[name], look)
            if _PREDICTED in paths:
                mean = _mean(paths[_PREDICTED])
                axes[one, "training loss"].plot(mean["t"], mean["value"], ":", color=look.color, linewidth=1.6)
    keys = [line_key("slope and curvature predict", linestyle=":"), line_key("one seed", linewidth=0.7)]
    legend(figure, looks, "batch size", [*keys, *stopped_key(rows)])
    return figure, data


def _draw(axes: Axes, path: pd.DataFrame, look: Look) -> None:
    for _, seed in path[path["kind"] == "seed"].groupby("seed"):
        hollow = seed["status"].iloc[0] != "reached"
        mark: dict[str, Any] = {"marker": look.marker, "markerfacecolor": "white", "markersize": 4.5} if hollow else {}
        axes.plot(seed["t"], seed["value"], color=look.color, linewidth=0.7, markevery=_every(seed), **mark)
    mean = _mean(path)
    axes.plot(
        mean["t"],
        mean["value"],
        color=look.color,
        marker=look.marker,
        markevery=_every(mean),
        markersize=5,
        linewidth=1.6,
    )


def _mean(path: pd.DataFrame) -> pd.DataFrame:
    return path[path["kind"] == "mean"].sort_values("t")


def _every(path: pd.DataFrame) -> int:
    return max(len(path) // 8, 1)


def _points(one: Family, row: Row) -> Iterator[dict[str, Any]]:
    path, start = row.values["landscape"], row.values["at_target"]["loss_train"]
    for t, train, test in zip(path["t"], path["loss_train"], path["loss_test"], strict=True):
        predicted = start + path["slope_train"] * t + path["curvature_train"] * t**2 / 2
        for curve, value in (("train", train), ("test", test), (_PREDICTED, predicted)):
            yield place(one) | cell(row) | {"curve": curve, "t": t, "value": value}
