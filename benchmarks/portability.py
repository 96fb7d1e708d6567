"""How far rows move with the number of threads and the version of torch: recomputed rows beside the published ones.

Every condition is a store that ``hbanalysis run`` filled under it, trainings included, named on the command line:
``python -m benchmarks.portability "2 threads=FOLDER" "torch 2.11=FOLDER"``. The published rows are the reference; a row
that is not published is left out.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.records import drift
from hbanalysis.records.comparison import compare
from hbanalysis.store import Row, Store, published

FILE = Path(__file__).parent / "results" / "portability.json"
PROVENANCE = ("device_name", "threads", "torch", "numpy", "python", "platform")


def condition(name: str, rows: Iterable[Row], reference: Iterable[Row]) -> dict[str, Any]:
    """Return the spread of every quantity of rows from their published partners, by study.

    Raises:
        InputError: No row has a published partner, or rows are of several environments.
    """
    partners = {row.key: row for row in reference}
    pairs = [(row, partners[row.key]) for row in rows if row.key in partners]
    origins = _environments(row for row, _ in pairs)
    if len(origins) != 1:
        raise InputError(f"The rows of {name!r} come from {len(origins)} environments; one is needed.")
    found: dict[str, Any] = {}
    for study_name in dict.fromkeys(row.study for row, _ in pairs):
        own = [(mine, theirs) for mine, theirs in pairs if mine.study == study_name]
        spread = drift.spreads(drift.differences(mine.values, theirs.values) for mine, theirs in own)
        found[study_name] = {
            "cells": [_label(mine) for mine, _ in own],
            "quantities": {quantity: list(each) for quantity, each in spread.items()},
            "ratios": _ratios([mine for mine, _ in own], [theirs for _, theirs in own]),
        }
    return {"name": name, "environment": origins[0], "studies": found}


def _environments(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the different environments of rows, each with the date of its last row."""
    dates: dict[str, str] = {}
    for row in rows:
        place = json.dumps({name: row.provenance[name] for name in PROVENANCE})
        dates[place] = max(dates.get(place, ""), row.provenance["date"])
    return [{**json.loads(place), "date": date} for place, date in sorted(dates.items())]


def _label(row: Row) -> str:
    study = studies.get(row.study)
    return study.label(study.from_config(row.config))


def _ratios(here: list[Row], reference: list[Row]) -> dict[str, list[float]]:
    """Return the smallest and largest ratio here / published of every quantity that the study has a band for."""
    compared = compare(here, reference)
    return {
        str(quantity): [float(f"{part.min():.4g}"), float(f"{part.max():.4g}")]
        for quantity, part in compared.groupby("quantity", sort=False)["ratio"]
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("condition", nargs="+", help="NAME=FOLDER of a store")
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    reference = published().rows()
    given = [one.rpartition("=") for one in options.condition]
    found = [condition(name, Store(folder).rows(), reference) for name, _, folder in given]
    keys = {row.key for _, _, folder in given for row in Store(folder).rows()}
    content = {"reference": _environments(row for row in reference if row.key in keys), "conditions": found}
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
