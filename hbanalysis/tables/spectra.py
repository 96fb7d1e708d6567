"""Rows of `spectrum_vs_batch` as the data of one interactive figure: spectra by family, set and batch size."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hbanalysis.store import Row
from hbanalysis.tables.frames import distinct_titles, families, reached

SETS = ("train", "test")


def by_family(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return one entry a family of trainings that reached their target, largest scale first; JSON data all through.

    Each has ``title``, ``scale`` and, for the training and the test loss, ``lines``: ``batch_size``, ``seeds``, and the
    eigenvalues of each rank over the seeds: their geometric mean ``values``, and ``least`` and ``most``. Eigenvalues
    that are not positive in some seed end a line: its axis is logarithmic.
    """
    groups = families(rows)
    titles = distinct_titles(groups)
    found = []
    for one, group in groups.items():
        entry: dict[str, Any] = {"title": titles[one], "scale": one.scale}
        for name in SETS:
            by_size: dict[int, list[Sequence[float]]] = {}
            for row in reached(group):
                spectrum = row.values["at_target"].get(f"spectrum_{name}")
                if spectrum:
                    by_size.setdefault(row.config["training"]["batch_size"], []).append(spectrum)
            entry[name] = [_line(size, spectra) for size, spectra in sorted(by_size.items())]
        if entry["train"]:
            found.append(entry)
    return found


def _line(batch_size: int, spectra: list[Sequence[float]]) -> dict[str, Any]:
    ranks = []
    for values in zip(*spectra, strict=False):
        if min(values) <= 0:
            break
        ranks.append(values)
    return {
        "batch_size": batch_size,
        "seeds": len(spectra),
        "values": [_short(math.exp(sum(map(math.log, values)) / len(values))) for values in ranks],
        "least": [_short(min(values)) for values in ranks],
        "most": [_short(max(values)) for values in ranks],
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
