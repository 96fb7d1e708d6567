"""How much single precision decides: every published quantity in float32 and in float64, on the same trainings.

``python -m benchmarks.precision --store FOLDER --out benchmarks/results/precision.json`` measures cells of scale
``digits`` with the first seed, and one of the small scale for each study, which the tests repeat.
"""

import argparse
import json
import tempfile
import warnings
from itertools import product
from pathlib import Path
from typing import Any

from hbanalysis import studies
from hbanalysis.records import drift
from hbanalysis.store import Store
from hbanalysis.store.provenance import environment
from hbanalysis.studies import Study

FILE = Path(__file__).parent / "results" / "precision.json"
SCALES = ("digits", "tiny")


def cells(study: Study, scale: str, count: int) -> list[Any]:
    """Return a study's first cell or, for two, also the last one with the same seed: the ends of what it varies."""
    every = study.cells(scale)
    first = [cell for cell in every if cell.training.seed == every[0].training.seed]
    return list(dict.fromkeys([first[0], first[-1]]))[:count]


def measured(study: Study, scale: str, count: int, store: Store) -> dict[str, Any]:
    """Return the labels of the cells and the spread of the drift of each quantity."""
    found, labels = [], []
    for cell in cells(study, scale, count):
        labels.append(study.label(cell))
        print(f"{study.name}, {scale}: {labels[-1]}", flush=True)
        found.append(drift.drift(study, cell, store))
    return {"cells": labels, "quantities": {name: list(s) for name, s in drift.spreads(found).items()}}


def main() -> None:
    """Measure, and write the file after each study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a store with finished trainings; default: an empty one")
    parser.add_argument("--out", type=Path, default=FILE, help="what it holds of other studies and scales stays")
    parser.add_argument("--study", action="append", help="studies; default: all")
    parser.add_argument("--scale", action="append", choices=SCALES, help="scales; default: both")
    parser.add_argument("--cells", type=int, choices=(1, 2), default=2, help="of each study at scale digits")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # networks with ties take the general path in both precisions
    with tempfile.TemporaryDirectory() as folder:
        store = Store(options.store or folder)
        for scale, name in product(options.scale or SCALES, options.study or studies.names()):
            if scale not in (*studies.get(name).scales, "tiny"):
                continue
            entry = measured(studies.get(name), scale, 1 if scale == "tiny" else options.cells, store)
            content = json.loads(options.out.read_text()) if options.out.exists() else {}
            content["environment"] = environment("cpu")
            content.setdefault(scale, {})[name] = entry
            options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
