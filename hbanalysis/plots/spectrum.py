"""Fig. 1 and its short form: the leading Hessian eigenvalues against the batch size."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hbanalysis.plots.series import PLACE, cell, draw, not_drawn, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import batch_axis, batch_looks, grid, legend, level_looks, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.frames import families

_LOSSES = {"train": "training loss", "test": "test loss"}


def spectra(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """The leading eigenvalues of the Hessian for each batch size (Fig. 1 of the paper).

    Thin lines are seeds; thick lines their geometric mean, with the 95 % t-interval of the logarithms where
    there are three or more seeds. Values that are not positive have no place on the logarithmic axis and are
    counted in a remark.

    Args:
        rows: rows of `spectrum_vs_batch`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `split`,
        `batch_size`, `index` (1 is the largest), `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: no row has a spectrum.
    """
    points: list[dict[str, Any]] = []
    for one, group in families(rows).items():
        for row in group:
            for split in _LOSSES:
                points += [
                    place(one) | cell(row) | {"split": split, "index": i, "value": value}
                    for i, value in enumerate(_spectrum(row, split), start=1)
                    if value > 0
                ]
    by = [*PLACE, "split", "batch_size", "index"]
    data = _with_means(points, by)
    chosen = [one for one in families(rows) if of_family(data, one).size]
    figure, axes = grid(chosen, list(_LOSSES.values()))
    looks = batch_looks(data["batch_size"])
    for (one, loss), panel in axes.items():
        part = of_family(data, one)
        part = part[part["split"].map(_LOSSES) == loss]
        for batch_size, look in looks.items():
            draw(panel, part[part["batch_size"] == batch_size], "index", look)
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        # The test loss may have fewer values.
        panel.set_xlim(0.3, part["index"].max() + 0.7)
        panel.set_xlabel("eigenvalue number")
    for one in chosen:
        axes[one, "training loss"].set_ylabel("eigenvalue of the Hessian")
        remark(axes[one, "training loss"], _remark(families(rows)[one]))
    legend(figure, looks, "batch size", seed_keys(rows))
    return figure, data


def lambda1_vs_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """The largest Hessian eigenvalue against the batch size (Tables 1 and 2 of the paper).

    Args:
        rows: rows of `spectrum_vs_batch`.

    Returns:
        The figure, and the plotted data: columns as in `spectra`, without `index`.

    Raises:
        InputError: no row has been measured.
    """
    points = [
        place(one) | cell(row) | {"split": split, "value": row.values["at_target"][f"lambda1_{split}"]}
        for one, group in families(rows).items()
        for row in group
        if row.values.get("at_target")
        for split in _LOSSES
    ]
    data = _with_means([p for p in points if p["value"] > 0], [*PLACE, "split", "batch_size"])
    chosen = [one for one in families(rows) if of_family(data, one).size]
    figure, axes = grid(chosen, ["lambda1"])
    first, second = level_looks([0.0, 1.0]).values()
    for one in chosen:
        panel, part = axes[one, "lambda1"], of_family(data, one)
        draw(panel, part[part["split"] == "train"], "batch_size", first)
        draw(panel, part[part["split"] == "test"], "batch_size", second, line="--")
        panel.set_yscale("log")
        batch_axis(panel, part["batch_size"])
        panel.set_ylabel(r"largest eigenvalue $\lambda_1$")
        remark(panel, not_drawn(families(rows)[one]))
    keys = [
        line_key("training loss", color=first.color, marker=first.marker),
        line_key("test loss", color=second.color, marker=second.marker, linestyle="--"),
    ]
    legend(figure, {}, "", [*keys, *seed_keys(rows)])
    return figure, data


def _remark(rows: Sequence[Row]) -> str:
    omitted = sum(value <= 0 for row in rows for split in _LOSSES for value in _spectrum(row, split))
    said = [f"{omitted} values not above 0 are not drawn"] if omitted else []
    return "; ".join([*filter(None, [not_drawn(rows)]), *said])


def _spectrum(row: Row, split: str) -> list[float]:
    return (row.values.get("at_target") or {}).get(f"spectrum_{split}") or []


def _with_means(points: list[dict[str, Any]], by: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    return with_means(frame, by, logarithmic=True)
