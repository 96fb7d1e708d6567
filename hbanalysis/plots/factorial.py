"""Curvature and robustness against the ratio of learning rate and batch size."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.claims.factorial import designs
from hbanalysis.plots.series import PLACE, cell, draw, not_drawn, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import batch_looks, grid, legend, remark
from hbanalysis.store import Row

_PANELS = {"largest eigenvalue": True, "accuracy under FGSM": False}  # whether the axis is logarithmic


def rate_over_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """The largest eigenvalue and FGSM accuracy against learning rate over batch size, one curve a batch size.

    Curves of different batch sizes that lie on one another say that the ratio decides; curves apart, the batch size.

    Args:
        rows: rows of `learning_rate_factorial`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `panel`, `batch_size`,
        `ratio`, `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: no row has been measured.
    """
    points: list[dict[str, Any]] = []
    groups = designs(rows)
    for one, group in groups.items():
        for row in group:
            at, training = row.values.get("at_target"), row.config["training"]
            if at:
                found = (at["lambda1_train"], 100 * at["fgsm"][0]["accuracy_test"])
                ratio = {"ratio": training["learning_rate"] / training["batch_size"]}
                for name, value in zip(_PANELS, found, strict=True):
                    points.append(place(one) | cell(row) | ratio | {"panel": name, "value": value})
    by = [*PLACE, "panel", "batch_size", "ratio"]
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    parts = [
        with_means(frame[frame["panel"] == name], by, logarithmic=logarithmic) for name, logarithmic in _PANELS.items()
    ]
    data = pd.concat(parts, ignore_index=True)
    chosen = [one for one in groups if of_family(data, one).size]
    figure, axes = grid(chosen, list(_PANELS), share_y=False)
    looks = batch_looks(data["batch_size"])
    for one in chosen:
        for name, logarithmic in _PANELS.items():
            panel, part = axes[one, name], of_family(data, one)
            for size, look in looks.items():
                draw(
                    panel,
                    part[(part["panel"] == name) & (part["batch_size"] == size)].sort_values("ratio"),
                    "ratio",
                    look,
                )
            panel.set_xscale("log")
            panel.set_xlabel("learning rate / batch size")
            if logarithmic:
                panel.set_yscale("log")
            panel.set_ylabel(r"$\lambda_1$, training loss" if logarithmic else "test accuracy (%)")
        remark(axes[one, next(iter(_PANELS))], not_drawn(groups[one]))
    legend(figure, looks, "batch size", seed_keys(rows))
    return figure, data
