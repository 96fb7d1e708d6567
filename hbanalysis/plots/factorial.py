"""Curvature and robustness against the ratio of learning rate and batch size."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.claims.factorial import designs
from hbanalysis.plots.outcomes import CURVATURE, PANELS, dress, outcomes
from hbanalysis.plots.series import draw, not_drawn, of_family, seed_keys
from hbanalysis.plots.style import batch_looks, grid, legend, remark
from hbanalysis.store import Row


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
    groups = designs(rows)
    data = outcomes(groups, {"batch_size": itemgetter("batch_size"), "ratio": _ratio})
    chosen = [one for one in groups if of_family(data, one).size]
    figure, axes = grid(chosen, PANELS, share_y=False)
    looks = batch_looks(data["batch_size"])
    for one in chosen:
        for name in PANELS:
            panel, part = axes[one, name], of_family(data, one)
            part = part[part["panel"] == name]
            for size, look in looks.items():
                draw(panel, part[part["batch_size"] == size].sort_values("ratio"), "ratio", look)
            panel.set_xscale("log")
            panel.set_xlabel("learning rate / batch size")
            dress(panel, name)
        remark(axes[one, CURVATURE], not_drawn(groups[one]))
    legend(figure, looks, "batch size", seed_keys(rows))
    return figure, data


def _ratio(training: Mapping[str, Any]) -> float:
    return training["learning_rate"] / training["batch_size"]
