"""How cost grows: a product with samples and parameters, and one product of all of CIFAR-10.

``python -m benchmarks.scaling --cache FOLDER --out benchmarks/results/scaling.json``
"""

import argparse
import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

import hbanalysis as hb
from benchmarks import costs
from benchmarks.large import Size, task_of
from benchmarks.peers import K
from hbanalysis import checkpoints, data, networks
from hbanalysis.store import provenance
from hbanalysis.training import stem

SAMPLES = (1000, 2000, 4000, 8000)  # of MNIST, for M1
WIDTHS = (128, 384, 1024, 2048)  # of a perceptron with two hidden layers, on 1,000 images of MNIST
BATCH = 64
TRACKED = (1e-2, 3e-3, 1e-3)  # losses at whose first crossings the spectrum is followed
STEPS = 40  # of Lanczos, in which the work beside the products is timed
CIFAR = "cifar10"
THREADS = 2  # for the product over all of CIFAR-10


def product_seconds(H: hb.WeightHessian, times: int = 3) -> float:
    """Return the least seconds of a product once graphs and programs are there."""
    vector = torch.randn(H.shape[0], generator=torch.Generator().manual_seed(0))
    return costs.seconds(lambda: H @ vector, times)


def with_samples() -> list[dict[str, Any]]:
    """Time a product and a gradient of M1 for several numbers of samples."""
    rows = []
    for count in SAMPLES:
        found = data.load("mnist", "train", samples=count)
        model = networks.build("M1", (1, 28, 28), 10, seed=0).eval()
        H = hb.WeightHessian(model, found.images, found.labels, engine="traced")
        rows.append({"samples": count, "product": product_seconds(H), "gradient": costs.seconds(H.gradient, 3)})
    return rows


def with_parameters() -> list[dict[str, Any]]:
    """Time a product, and a Lanczos step's own work, for perceptrons of several widths."""
    found = data.load("mnist", "train", samples=1000)
    rows = []
    for width in WIDTHS:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(784, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
        ).eval()
        H = hb.WeightHessian(model, found.images, found.labels, engine="traced")
        rows.append({"parameters": H.shape[0], "product": product_seconds(H), "gradient": costs.seconds(H.gradient, 3)})
    return rows


class Timed(hb.WeightHessian):
    """Adds up the seconds inside of products."""

    seconds = 0.0

    def _multiply(self, columns: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        product = super()._multiply(columns)
        self.seconds += time.perf_counter() - started
        return product


def overhead() -> dict[str, Any]:
    """Return the share of a run of C1 on 2,000 images that is not spent in products."""
    found = data.load(CIFAR, "train", samples=2000)
    model = networks.build("C1", (3, 32, 32), 10, seed=0).eval()
    H = Timed(model, found.images, found.labels, engine="traced")
    H @ torch.ones(H.shape[0])  # traces and settles the chunk size
    H.seconds, started = 0.0, time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hb.ConvergenceWarning)
        pairs = hb.eigsh(H, K, method="lanczos", check=False, max_products=STEPS)
    whole = time.perf_counter() - started
    return {"parameters": H.shape[0], "samples": 2000, "products": pairs.products, "share": 1 - H.seconds / whole}


def tracking(cache: Path) -> list[dict[str, Any]]:
    """Return Lanczos' products from a random start and from the eigenvectors at an earlier point of the training."""
    size = Size("mnist", "M1", 1000, BATCH, ())
    task, network = task_of(size, cache)
    H = hb.WeightHessian(task.model, task.images, task.labels)
    config = size.training()
    rows, earlier = [], None
    for threshold in TRACKED:
        checkpoints.restore(task.model, cache / config.key / f"{stem(threshold)}.safetensors")
        fresh = hb.eigsh(H, K, check=False)
        row: dict[str, Any] = {**network, "loss": threshold, "random": fresh.products}
        if earlier is not None:
            row["tracked"] = hb.eigsh(H, K, check=False, v0=earlier).products
        rows.append(row)
        earlier = fresh
    return rows


def whole_cifar() -> dict[str, Any]:
    """Time one product of C1 over all 50,000 images of CIFAR-10, and watch its memory beyond the data."""
    torch.set_num_threads(THREADS)
    found = data.load(CIFAR, "train")
    model = networks.build("C1", (3, 32, 32), 10, seed=0).eval()
    process = psutil.Process()
    before = process.memory_info().rss
    H = hb.WeightHessian(model, found.images, found.labels, memory_budget=1 << 30)
    started = time.perf_counter()
    H @ torch.ones(H.shape[0])
    seconds = time.perf_counter() - started
    peak = max(_peak(), process.memory_info().rss)
    torch.set_num_threads(1)
    return {
        "samples": len(found),
        "threads": THREADS,
        "memory_budget": 1 << 30,
        "first_product": seconds,
        "peak_beyond_data": peak - before,
        "extrapolated": {"products": 50, "seconds": 50 * seconds},
    }


def _peak() -> int:
    """Return the highest resident memory of this process so far, in bytes (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Read the command line, run, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="keeps the trained networks between runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scaling.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()
    found: dict[str, Any] = {"cifar10": whole_cifar()}  # first, so that its peak memory is its own
    found |= {
        "samples": with_samples(),
        "parameters": with_parameters(),
        "overhead": overhead(),
        "tracking": tracking(chosen.cache),
        "environment": provenance.environment("cpu") | {"load_before": load, "load_after": os.getloadavg()},
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
