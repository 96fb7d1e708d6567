"""Curvature and robustness against the batch size, one curve an activation."""

from collections.abc import Sequence
from operator import itemgetter

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.plots.outcomes import CURVATURE, PANELS, dress, outcomes
from hbanalysis.plots.series import draw, not_drawn, of_family, seed_keys
from hbanalysis.plots.style import batch_axis, grid, legend, level_looks, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.frames import families_over


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
    data = outcomes(groups, {name: itemgetter(name) for name in ("activation", "batch_size")})
    chosen = [one for one in groups if of_family(data, one).size]
    figure, axes = grid(chosen, PANELS, share_y=False)
    names = sorted(data["activation"].unique(), key=lambda name: (name != "relu", name))
    looks = dict(zip(names, level_looks(range(len(names))).values(), strict=True))
    for one in chosen:
        for name in PANELS:
            panel, part = axes[one, name], of_family(data, one)
            part = part[part["panel"] == name]
            for activation, look in looks.items():
                draw(panel, part[part["activation"] == activation].sort_values("batch_size"), "batch_size", look)
            batch_axis(panel, part["batch_size"])
            dress(panel, name)
        remark(axes[one, CURVATURE], not_drawn(groups[one]))
    keys = [line_key(name, color=look.color, marker=look.marker) for name, look in looks.items()]
    legend(figure, {}, "activation", [*keys, *seed_keys([*rows, *relu])])
    return figure, data
