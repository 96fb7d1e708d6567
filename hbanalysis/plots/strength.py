"""Attacks of different strength against the batch size: one step, ten, and projected gradients with restarts."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis import paper
from hbanalysis.plots.series import PLACE, cell, draw, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import Look, batch_axis, grid, legend, level_looks, line_key
from hbanalysis.store import Row
from hbanalysis.tables.attack_tables import ATTACKS, SPLITS, measured_attacks
from hbanalysis.tables.frames import families, reached

_LOOKS = {
    "fgsm_test": Look((0.267, 0.005, 0.329, 1.0), "o"),
    "fgsm_exact_test": Look((0.230, 0.322, 0.546, 1.0), "s"),
    "fgsm10_test": Look((0.128, 0.567, 0.551, 1.0), "^"),
    "pgd": Look((0.702, 0.345, 0.024, 1.0), "D"),
}
_SETS = {"train": "training set", "test": "test set"}
_DPI = 92  # below the house's: the page holds four figures


def attacks_vs_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw test accuracy under attacks of growing strength against the batch size, a panel a size of the attack.

    Args:
        rows: Rows of `robustness_vs_batch`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `attack`, `epsilon`,
        `batch_size`, `seed`, `status`, `value` (percent), `kind`, `low`, `high`, `n`.

    Raises:
        InputError: There is no measured row.
    """
    points = []
    for where, line in _lines(rows):
        for column in ATTACKS:
            names = {"attack": column, "epsilon": line["epsilon"]}
            points.append(where | names | {"value": 100 * line[column]})
    by = [*PLACE, "attack", "epsilon", "batch_size"]
    data = with_means(pd.DataFrame(points, columns=[*by, "seed", "status", "value"]), by, logarithmic=False)
    groups = list(families(reached(rows)))
    sizes = {one: sorted(set(of_family(data, one)["epsilon"])) for one in groups}
    columns = [f"size {number + 1}" for number in range(max(map(len, sizes.values()), default=0))]
    figure, axes = grid(groups, columns)
    figure.set_dpi(_DPI)
    for one in groups:
        part = of_family(data, one)
        for name, epsilon in zip(columns, sizes[one], strict=False):
            panel, chosen = axes[one, name], part[part["epsilon"] == epsilon]
            for column, look in _LOOKS.items():
                draw(panel, chosen[chosen["attack"] == column], "batch_size", look)
            batch_axis(panel, part["batch_size"])
            panel.set_title(rf"$\epsilon$ = {epsilon:g}")
            panel.set_ylim(-3, 103)
        for name in columns[len(sizes[one]) :]:
            axes[one, name].set_visible(False)
        axes[one, columns[0]].set_ylabel("test accuracy (%)")
    keys = [line_key(ATTACKS[column], color=look.color, marker=look.marker) for column, look in _LOOKS.items()]
    legend(figure, {}, "", [*keys, *seed_keys(rows)[:1]])
    return figure, data


def steps_vs_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy under FGSM minus that under FGSM-10 against the batch size, on both sets (K14).

    Args:
        rows: Rows of `robustness_vs_batch`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `split`, `one_step` (FGSM
        clamped to valid pixels or free), `epsilon`, `batch_size`, `seed`, `status`, `value` (points), `kind`, `low`,
        `high`, `n`.

    Raises:
        InputError: There is no measured row.
    """
    points = []
    for where, line in _lines(rows):
        for split in SPLITS:
            for one_step, column in (("clamped", f"fgsm_{split}"), ("free", f"fgsm_free_{split}")):
                names = {"split": split, "one_step": one_step, "epsilon": line["epsilon"]}
                points.append(where | names | {"value": 100 * (line[column] - line[f"fgsm10_{split}"])})
    by = [*PLACE, "split", "one_step", "epsilon", "batch_size"]
    data = with_means(pd.DataFrame(points, columns=[*by, "seed", "status", "value"]), by, logarithmic=False)
    groups = list(families(reached(rows)))
    figure, axes = grid(groups, list(_SETS.values()))
    figure.set_dpi(_DPI)
    limit = paper.criteria().claims["K14"].thresholds["difference_points_below"]
    looks = level_looks(data["epsilon"])
    for one in groups:
        part = of_family(data, one)
        for split, name in _SETS.items():
            panel = axes[one, name]
            panel.axhspan(-limit, limit, color="0.88", zorder=0)
            for epsilon, look in looks.items():
                for one_step, style in (("clamped", "-"), ("free", ":")):
                    chosen = part[(part[["split", "one_step", "epsilon"]] == [split, one_step, epsilon]).all(axis=1)]
                    draw(panel, chosen, "batch_size", look, line=style)
            batch_axis(panel, part["batch_size"])
        axes[one, _SETS["train"]].set_ylabel("FGSM minus FGSM-10 (points)")
    keys = [
        line_key(rf"$\epsilon$ = {epsilon:g}", color=look.color, marker=look.marker) for epsilon, look in looks.items()
    ]
    keys += [line_key("FGSM clamped"), line_key("FGSM not clamped", linestyle=":"), *seed_keys(rows)[:1]]
    legend(figure, {}, "", [*keys, line_key(f"within {limit:g} points", color="0.88", linewidth=8)])
    return figure, data


def _lines(rows: Sequence[Row]) -> list[tuple[dict[str, Any], pd.Series]]:
    """Return for each measured row and size of the attack where it belongs, and its line of `measured_attacks`."""
    found = []
    for one, group in families(reached(rows)).items():
        for row in group:
            for _, line in measured_attacks([row]).iterrows():
                found.append((place(one) | cell(row), line))
    return found
