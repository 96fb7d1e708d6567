"""Curvature and robustness against the batch size, one curve an activation."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.plots.series import PLACE, cell, draw, not_drawn, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import batch_axis, grid, legend, level_looks, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.frames import families_over

_PANELS = {"largest eigenvalue": True, "accuracy under FGSM": False}  # whether the axis is logarithmic


def activations_vs_batch(rows: Sequence[Row], relu: Sequence[Row] = ()) -> tuple[Figure, pd.DataFrame]:
    """The largest eigenvalue and FGSM accuracy against the batch size, one curve an activation.

    Args:
        rows: rows of `smooth_activations`.
        relu: rows of `spectrum_vs_batch`, for the curve of ReLU.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `panel`, `activation`,
        `batch_size`, `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: no row has been measured.
    """
    groups = families_over([*rows, *relu], "activation")
    points: list[dict[str, Any]] = []
    for one, group in groups.items():
        for row in group:
            at, activation = row.values.get("at_target"), {"activation": row.config["training"]["activation"]}
            if at:
                found = (at["lambda1_train"], 100 * at["fgsm"][0]["accuracy_test"])
                for name, value in zip(_PANELS, found, strict=True):
                    points.append(place(one) | cell(row) | activation | {"panel": name, "value": value})
    by = [*PLACE, "panel", "activation", "batch_size"]
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    parts = [
        with_means(frame[frame["panel"] == name], by, logarithmic=logarithmic) for name, logarithmic in _PANELS.items()
    ]
    data = pd.concat(parts, ignore_index=True)
    chosen = [one for one in groups if of_family(data, one).size]
    figure, axes = grid(chosen, list(_PANELS), share_y=False)
    names = sorted(data["activation"].unique(), key=lambda name: (name != "relu", name))
    looks = dict(zip(names, level_looks(range(len(names))).values(), strict=True))
    for one in chosen:
        for name, logarithmic in _PANELS.items():
            panel, part = axes[one, name], of_family(data, one)
            part = part[part["panel"] == name]
            for activation, look in looks.items():
                draw(panel, part[part["activation"] == activation].sort_values("batch_size"), "batch_size", look)
            batch_axis(panel, part["batch_size"])
            if logarithmic:
                panel.set_yscale("log")
            panel.set_ylabel(r"$\lambda_1$, training loss" if logarithmic else "test accuracy (%)")
        remark(axes[one, next(iter(_PANELS))], not_drawn(groups[one]))
    keys = [line_key(name, color=look.color, marker=look.marker) for name, look in looks.items()]
    legend(figure, {}, "activation", [*keys, *seed_keys([*rows, *relu])])
    return figure, data
