"""What screening and Lanczos take on trained networks, in passes over the data: counts, which no load can change.

``python -m benchmarks.screening --cache FOLDER --out benchmarks/results/screening.json``
"""

import argparse
import json
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hbanalysis as hb
from benchmarks.large import Size, task_of
from benchmarks.peers import K
from hbanalysis.eigen.screening import plan
from hbanalysis.store import provenance

SAMPLES = (500, 1000, 2000, 4000, 8000)  # of MNIST, for M1 trained to loss 1e-3
SEEDS = (0, 1)
BATCH = 64
PARTS = (0.1, 0.3, 0.5)  # of the samples, heaviest first, whose share of the weights is noted


def measured(size: Size, cache: Path) -> dict[str, Any]:
    """Return what both methods take for one trained network, and how far their values lie apart."""
    task, network = task_of(size, cache)
    H = hb.WeightHessian(task.model, task.images, task.labels)
    weights = H.doubts()
    ordered = weights.sort(descending=True).values
    count = len(ordered)
    row: dict[str, Any] = {
        **network,
        "seed": size.seed,
        "share_of_heaviest": {str(part): float(ordered[: round(part * count)].sum() / ordered.sum()) for part in PARTS},
        "worthwhile": plan(weights, K, 1e-4).worthwhile,
    }
    values = {}
    for method in ("screened", "lanczos"):
        pairs = hb.eigsh(H, K, method=method, check=False)
        values[method] = pairs.values.numpy()
        row[method] = {
            "method": pairs.method,
            "products": pairs.products,
            "converged": pairs.converged,
            "values": pairs.values.tolist(),
            "notes": {name: float(value) for name, value in pairs.notes.items()},
        }
    row["apart"] = float(np.max(np.abs(values["screened"] / values["lanczos"] - 1)))
    return row


def main() -> None:
    """Read the command line, run, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="keeps the trained networks between runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/screening.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    load, rows = os.getloadavg(), []
    for count, seed in product(SAMPLES, SEEDS):
        rows.append(measured(Size("mnist", "M1", count, BATCH, (), seed), chosen.cache))
        row = rows[-1]
        print(count, seed, row["screened"]["products"], row["lanczos"]["products"], row["apart"], flush=True)
    environment = provenance.environment("cpu") | {"load_before": load, "load_after": os.getloadavg()}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps({"rows": rows, "environment": environment}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
