"""How exact published numbers are: tables of what single precision, threads and versions of torch change.

The measurements are those of `benchmarks.precision` and `benchmarks.portability`, committed beside the benchmarks.
"""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from hbanalysis import studies
from hbanalysis.records.dictionary import meaning

CLASSES = {"up to 1e-6": 1e-6, "up to 1e-4": 1e-4, "up to 1e-2": 1e-2, "above": float("inf")}
_SCALES = ("digits", "tiny")


def of_precision(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return one line a study: its cells, its quantities by the class of their worst drift, and the worst of all.

    Args:
        found: What `benchmarks.precision` wrote.
    """
    lines = []
    for name in stated(found):
        scale, entry = shown(found, name)
        quantities = entry["quantities"]
        worst = max(quantities, key=lambda quantity: float(quantities[quantity][2]))
        lines.append(
            {
                "study": name,
                "measured on": "; ".join(entry["cells"]) + (" (a small cell of the tests)" if scale == "tiny" else ""),
                "quantities": str(len(quantities)),
                **_classes([line[2] for line in quantities.values()]),
                "largest": f"{quantities[worst][2]:.1e}, `{worst}`",
            }
        )
    return pd.DataFrame(lines)


def stated(found: Mapping[str, Any]) -> list[str]:
    """Return the studies whose drift was measured."""
    return [name for name in studies.names() if any(name in found.get(scale, {}) for scale in _SCALES)]


def shown(found: Mapping[str, Any], study: str) -> tuple[str, dict[str, Any]]:
    """Return the scale and the measurement of a study that pages show: of scale digits where there is one."""
    scale = next(scale for scale in _SCALES if study in found.get(scale, {}))
    return scale, found[scale][study]


def by_quantity(entry: Mapping[str, Any]) -> pd.DataFrame:
    """Return one line for each quantity of a study that differs: its numbers, their median and worst difference.

    Args:
        entry: A study's part of either measurement.
    """
    lines = [
        {
            "quantity": name,
            "meaning": meaning(name),
            "numbers": str(numbers),
            "median": f"{median:.1e}" if median else "0",
            "worst": f"{worst:.1e}",
        }
        for name, (numbers, median, worst) in entry["quantities"].items()
        if worst
    ]
    return pd.DataFrame(lines, columns=["quantity", "meaning", "numbers", "median", "worst"])


def of_portability(found: Mapping[str, Any]) -> pd.DataFrame:
    """Return one line for each banded quantity of a study: the ratios to the published row seen, and the band.

    Args:
        found: What `benchmarks.portability` wrote.
    """
    lines = []
    for name in studies.names():
        for quantity, (low, high) in studies.get(name).bands.items():
            seen = _seen(found, name, quantity)
            if seen:
                lines.append(
                    {
                        "study": name,
                        "quantity": f"`{quantity}`",
                        **seen,
                        "band": f"{low:g} to {high:g}",
                    }
                )
    return pd.DataFrame(lines).fillna("")


def moved(found: Mapping[str, Any], study: str) -> dict[str, tuple[float, float]]:
    """Return the smallest and largest ratio to the published rows over all conditions, by banded quantity."""
    ratios: dict[str, tuple[float, float]] = {}
    for condition in found["conditions"]:
        for quantity, (low, high) in condition["studies"].get(study, {}).get("ratios", {}).items():
            before = ratios.get(quantity, (low, high))
            ratios[quantity] = (min(before[0], low), max(before[1], high))
    return ratios


def conditions(found: Mapping[str, Any], study: str) -> list[str]:
    """Return the names of the conditions under which cells of a study were computed again."""
    return [condition["name"] for condition in found["conditions"] if study in condition["studies"]]


def _classes(worst: list[float]) -> dict[str, str]:
    counts, above = {}, 0.0
    for name, limit in CLASSES.items():
        counts[name] = str(sum(above < value <= limit or (above == 0 == value) for value in worst))
        above = limit
    return counts


def _seen(found: Mapping[str, Any], study: str, quantity: str) -> dict[str, str]:
    seen = {}
    for condition in found["conditions"]:
        ratios = condition["studies"].get(study, {}).get("ratios", {}).get(quantity)
        if ratios:
            low, high = ratios
            seen[condition["name"]] = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return seen
