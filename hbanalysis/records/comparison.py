"""Rows computed here beside the published rows of the same cells: ratio, and whether it is in the band.

A training differs with the machine and the number of threads alone, so rows are compared in bands, never
digit by digit.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from hbanalysis import studies
from hbanalysis.store import Row

COLUMNS = ["study", "scale", "cell", "key", "quantity", "published", "here", "ratio", "band", "inside"]


def value_at(values: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, a whole number counting into a list; None where there is none.

    Example:
        >>> value_at({"at_target": {"spectrum_train": [3.0, 2.0]}}, "at_target.spectrum_train.1")
        2.0
        >>> value_at({"at_target": None}, "at_target.loss_train") is None
        True
    """
    current: Any = values
    for step in path.split("."):
        if isinstance(current, Mapping):
            current = current.get(step)
        elif isinstance(current, Sequence) and not isinstance(current, str) and step.lstrip("-").isdigit():
            place = int(step)
            current = current[place] if -len(current) <= place < len(current) else None
        else:
            return None
    return current


def ratio(here: Any, published: Any) -> float:
    """Return here / published; 1 where both are equal (0 / 0 too), not a number where either is missing.

    Example:
        >>> ratio(3.0, 2.0), ratio(0.0, 0.0), math.isnan(ratio(None, 2.0))
        (1.5, 1.0, True)
    """
    if not isinstance(here, int | float) or not isinstance(published, int | float):
        return math.nan
    if here == published:
        return 1.0
    return here / published if published else math.nan


def compare(here: Iterable[Row], published: Iterable[Row]) -> pd.DataFrame:
    """Set rows computed here beside the published rows with the same key.

    Args:
        here: Rows computed here.
        published: Published rows; those whose key is not among ``here`` are left out.

    Returns:
        One line for every value path of the study's ``bands``: `study`, `scale`, `cell`, `key`, `quantity`,
        `published`, `here`, `ratio`, `band` (text) and `inside` (bool). A value that is there on one side
        only is not inside. Rows without a published partner have no line; see `without_partner`.
    """
    partners = {(row.study, row.key): row for row in published}
    lines: list[dict[str, Any]] = []
    for row in here:
        partner = partners.get((row.study, row.key))
        if partner is None:
            continue
        study = studies.get(row.study)
        cell = study.label(study.from_config(row.config))
        for path, (low, high) in study.bands.items():
            mine, theirs = value_at(row.values, path), value_at(partner.values, path)
            if mine is None and theirs is None:
                continue
            share = ratio(mine, theirs)
            lines.append(
                {
                    "study": row.study,
                    "scale": partner.scale,
                    "cell": cell,
                    "key": row.key,
                    "quantity": path,
                    "published": math.nan if theirs is None else theirs,
                    "here": math.nan if mine is None else mine,
                    "ratio": share,
                    "band": f"{low:g} to {high:g}",
                    "inside": bool(low <= share <= high),
                }
            )
    return pd.DataFrame(lines, columns=COLUMNS)


def without_partner(here: Iterable[Row], published: Iterable[Row]) -> list[Row]:
    """Return the rows computed here whose cell has no published row."""
    known = {(row.study, row.key) for row in published}
    return [row for row in here if (row.study, row.key) not in known]


def table(compared: pd.DataFrame) -> str:
    """Write a comparison as text, four significant digits, one block a cell."""
    if compared.empty:
        return "No row here has a published partner."
    shown = compared.assign(inside=compared["inside"].map({True: "yes", False: "NO"}))
    for column in ("published", "here", "ratio"):
        shown[column] = [f"{value:.4g}" for value in shown[column]]
    lines = []
    for (study, scale, cell), part in shown.groupby(["study", "scale", "cell"], sort=False):
        lines.append(f"{study}, {scale}: {cell}")
        lines.append(part[["quantity", "published", "here", "ratio", "band", "inside"]].to_string(index=False))
        lines.append("")
    inside = int(compared["inside"].sum())
    lines.append(f"{inside} of {len(compared)} values inside their band.")
    return "\n".join(lines)
