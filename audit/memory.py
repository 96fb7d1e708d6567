"""Resident memory over a long run: 1,000 products of each operator, and 200 epochs of a training.

``python -m audit.memory --out build/audit/memory.json`` (minutes on one thread). A leak grows with the number of
products or epochs; allocators settle in the first tenth of a run, which is left out.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import nn

from benchmarks import digits_net
from hbanalysis import data, training
from hbanalysis.inputs import InputHessian
from hbanalysis.operators import GaussNewton, WeightHessian

PRODUCTS = 1000
EPOCHS = 200
SAMPLES = 400
MARKS = 10  # readings after equal parts of the run


def main() -> None:
    """Run everything and write what was read."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: products(PRODUCTS, *made) for name, made in operators().items()}
    found["training"] = epochs(EPOCHS)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def operators() -> dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...]]]:
    """Return the products of each operator on the digits, with the shape of its vectors."""
    model, (x, y) = digits_net.trained(), (part[:SAMPLES] for part in digits_net.data())
    small = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10)).eval()
    weights = WeightHessian(model, x, y)
    formed_anew = WeightHessian(model, x, y, memory_budget=0)
    gauss = GaussNewton(model, x, y)
    inputs = InputHessian(small, x, y)
    return {
        "weight Hessian, graphs kept": (weights.__matmul__, (weights.shape[0],)),
        "weight Hessian, graphs formed anew": (formed_anew.__matmul__, (formed_anew.shape[0],)),
        "Gauss-Newton": (gauss.__matmul__, (gauss.shape[0],)),
        f"input Hessians of {SAMPLES} samples": (inputs.__matmul__, tuple(x.shape)),
    }


def products(count: int, multiply: Callable[[torch.Tensor], torch.Tensor], shape: tuple[int, ...]) -> dict[str, object]:
    """Multiply again and again."""
    v = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def part(size: int) -> None:
        for _ in range(size):
            multiply(v)

    return {"unit": "product", **_readings(count, part)}


def epochs(count: int) -> dict[str, object]:
    """Train M1 on the digits for a number of epochs, whatever its loss, and read at the end of each."""
    config = training.TrainingConfig("digits", "M1", 64, train_samples=SAMPLES, target_loss=None, max_epochs=count)
    samples = data.load("digits", samples=SAMPLES)
    marks = [count * part // MARKS for part in range(1, MARKS + 1)]
    read: list[float] = []
    begun = time.process_time()

    def at_the_end(epoch: int, model: nn.Module) -> None:
        if epoch in marks:
            read.append(_resident())

    with tempfile.TemporaryDirectory() as folder:
        training.train(config, samples, Path(folder), epoch_end=at_the_end)
    return {"unit": "epoch", **_said(count, read, begun)}


def _readings(count: int, part: Callable[[int], None]) -> dict[str, object]:
    begun, read = time.process_time(), []
    for _ in range(MARKS):
        part(count // MARKS)
        read.append(_resident())
    return _said(count, read, begun)


def _said(count: int, read: list[float], begun: float) -> dict[str, object]:
    return {
        "count": count,
        "resident_mb": [round(value, 1) for value in read],
        "growth_mb": round(read[-1] - read[0], 1),
        "seconds": round(time.process_time() - begun, 1),
    }


def _resident() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


if __name__ == "__main__":
    main()
