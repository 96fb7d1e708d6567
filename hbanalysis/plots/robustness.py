"""Accuracy under FGSM against the batch size."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.errors import InputError
from hbanalysis.plots.series import PLACE, cell, draw, not_drawn, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import batch_axis, grid, legend, level_looks, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.frames import families


def robustness_vs_batch(rows: Sequence[Row], split: str = "test") -> tuple[Figure, pd.DataFrame]:
    """Accuracy on clean images and under FGSM against the batch size (Tables 1 and 2 of the paper).

    Args:
        rows: rows of `spectrum_vs_batch`.
        split: the images attacked, `"test"` or `"train"`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `epsilon` (0 is
        clean; in units of pixels in [0, 1]), `batch_size`, `seed`, `status`, `value` (percent), `kind`,
        `low`, `high`, `n`.

    Raises:
        InputError: an unknown split, or no row has been measured.
    """
    if split not in ("train", "test"):
        raise InputError(f"The split is 'train' or 'test'; given {split!r}.")
    points: list[dict[str, Any]] = []
    for one, group in families(rows).items():
        for row in group:
            for epsilon, accuracy in _accuracies(row, split):
                points.append(place(one) | cell(row) | {"epsilon": epsilon, "value": 100 * accuracy})
    by = [*PLACE, "epsilon", "batch_size"]
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    data = with_means(frame, by, logarithmic=False)
    chosen = [one for one in families(rows) if of_family(data, one).size]
    figure, axes = grid(chosen, ["accuracy"])
    looks = level_looks(data["epsilon"])
    for one in chosen:
        panel, part = axes[one, "accuracy"], of_family(data, one)
        for epsilon, look in looks.items():
            draw(panel, part[part["epsilon"] == epsilon], "batch_size", look)
        batch_axis(panel, part["batch_size"])
        panel.set_ylim(-3, 103)
        panel.set_ylabel(f"{'test' if split == 'test' else 'training'} accuracy (%)")
        remark(panel, not_drawn(families(rows)[one]))
    keys = [
        line_key("clean" if epsilon == 0 else rf"$\epsilon$ = {epsilon:g}", color=look.color, marker=look.marker)
        for epsilon, look in looks.items()
    ]
    legend(figure, {}, "FGSM", [*keys, *seed_keys(rows)])
    return figure, data


def _accuracies(row: Row, split: str) -> list[tuple[float, float]]:
    measured = row.values.get("at_target")
    if not measured:
        return []
    clean = [(0.0, measured[f"accuracy_{split}"])]
    return clean + [(float(a["epsilon"]), a[f"accuracy_{split}"]) for a in measured.get("fgsm", [])]
