"""Loss, gradient and largest eigenvalue against the batch size, in eval mode and in train mode."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.lineup import COMMON, EVAL, MODES
from hbanalysis.plots.series import PLACE, cell, draw, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import batch_axis, grid, legend, level_looks, line_key, plain_numbers, remark
from hbanalysis.store import Row
from hbanalysis.tables import modes

_LOSS, _GRADIENT, _CURVATURE = PANELS = ("training loss", "gradient norm", "largest eigenvalue")
_AXES = {_LOSS: "mean loss", _GRADIENT: r"$\Vert\nabla L\Vert$", _CURVATURE: r"$\lambda_1$"}


def modes_vs_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Training loss, norm of its gradient and largest eigenvalue of its Hessian against the batch size, a curve a mode.

    Args:
        rows: rows of `batch_statistics`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `panel`, `mode`,
        `batch_size`, `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: no row has been measured.
    """
    groups = modes.groups(rows)
    points: list[dict[str, Any]] = []
    for one, group in groups.items():
        for row in group:
            for mode in MODES:
                values = row.values[mode]
                found = (values["loss"], values["gradient_norm"], values["spectrum"][0])
                for name, value in zip(PANELS, found, strict=True):
                    points.append(place(one) | cell(row) | {"panel": name, "mode": modes.LABELS[mode], "value": value})
    by = [*PLACE, "panel", "mode", "batch_size"]
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    data = with_means(frame[frame["value"] > 0], by, logarithmic=True)
    figure, axes = grid(list(groups), PANELS, share_y=False)
    looks = dict(zip(MODES, level_looks(range(len(MODES))).values(), strict=True))
    for one, group in groups.items():
        for name in PANELS:
            panel, part = axes[one, name], of_family(data, one)
            part = part[part["panel"] == name]
            for mode, look in looks.items():
                curve = part[part["mode"] == modes.LABELS[mode]].sort_values("batch_size")
                # The common batch is the own one of a training; dashes leave the curve below to be seen.
                draw(panel, curve, "batch_size", look, line="--" if mode == COMMON else "-")
            batch_axis(panel, part["batch_size"])
            panel.set_yscale("log")
            plain_numbers(panel)
            panel.set_ylabel(_AXES[name])
        shared = sorted({row.config["measure"]["common_batch"] for row in group})
        remark(axes[one, _LOSS], f"common batch: {', '.join(map(str, shared))} samples")
    keys = [
        line_key(
            f"{modes.LABELS[mode]} mode" if mode == EVAL else modes.LABELS[mode],
            color=look.color,
            marker=look.marker,
            linestyle="--" if mode == COMMON else "-",
        )
        for mode, look in looks.items()
    ]
    legend(figure, {}, "batch normalisation", [*keys, *seed_keys(rows)])
    return figure, data
