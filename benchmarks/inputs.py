"""What the input spectrum of every sample costs, in input gradients, beside power iteration.

``OMP_NUM_THREADS=1 python -m benchmarks.inputs --repeats 3 --out benchmarks/results/inputs.json``
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hbanalysis as hb
from benchmarks.costs import FORMATS
from hbanalysis import data, networks
from hbanalysis.operators import losses
from hbanalysis.store import provenance

CHUNKS = (25, 50, 100)
STOP = 1e-4  # relative change of the eigenvalue at which power iteration stops, as in the paper
LIMIT = 1000  # products at most
TIMED = 4  # calls of which the fastest counts, for the gradient
FEW = 5  # samples of the sample-by-sample runs
MANY_CLASSES = 100


@dataclass(frozen=True)
class Task:
    """A trained network and the samples whose curvature is wanted."""

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor


def task(name: str, channels: int, side: int, samples: int, epochs: int, classes: int = 10) -> Task:
    """Return a network trained on the digits, padded to the size and repeated over the channels.

    With more than ten classes the other logits are trained down, so that the shape is that of CIFAR-100.
    """
    digits = data.load("digits")
    pad = (side - digits.images.shape[-1]) // 2
    images = F.pad(digits.images, (pad, pad, pad, pad)).repeat(1, channels, 1, 1)
    model = networks.build(name, (channels, side, side), classes)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), digits.labels[batch]).backward()
            optimizer.step()
    return Task(name, model.eval(), images[:samples], digits.labels[:samples])


def cpu_seconds(call: Callable[[], object]) -> float:
    """Return the processor seconds of one call, which others on the computer disturb less than wall time."""
    started = time.process_time()
    call()
    return time.process_time() - started


def gradient_seconds(given: Task) -> dict[str, float]:
    """Return the processor seconds of one input gradient of all samples, for each memory format and chunk size."""
    found = {}
    for form, layout in FORMATS.items():
        model = _copy(given, layout)
        for size in CHUNKS:
            parts = [
                (a.contiguous(memory_format=layout).requires_grad_(), b)
                for a, b in zip(given.x.split(size), given.y.split(size), strict=True)
            ]

            def call(model: nn.Module = model, parts: list[tuple[Tensor, Tensor]] = parts) -> None:
                for a, b in parts:
                    torch.autograd.grad(losses.cross_entropy(model(a), b).sum(), a)

            found[f"{form}, {size}"] = min(cpu_seconds(call) for _ in range(TIMED))
    return found


def power_iteration(model: nn.Module, x: Tensor, y: Tensor, tol: float) -> tuple[Tensor, int]:
    """Return the dominant eigenvalue of every sample and the products of the slowest one.

    One cached graph of the gradient; samples that have converged are masked, and once half of them have, the graph is
    built anew for the others.
    """
    values = torch.zeros(len(x), dtype=torch.float64)
    active, vectors = torch.arange(len(x)), torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    old = torch.full((len(x),), torch.inf, dtype=torch.float64)
    steps = 0
    while len(active):
        leaf = x[active].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        (slope,) = torch.autograd.grad(losses.cross_entropy(model(leaf), y[active]).sum(), leaf, create_graph=True)
        waiting = torch.ones(len(active), dtype=torch.bool)
        while steps < LIMIT and 2 * int(waiting.sum()) > len(active):
            v = _unit(vectors[active])
            (product,) = torch.autograd.grad(slope, leaf, v, retain_graph=True)
            steps += 1
            found = (v * product).flatten(1).double().sum(1)
            change = (found - old[active]).abs() <= tol * found.abs()
            values[active] = torch.where(waiting, found, values[active])
            old[active], vectors[active] = found, product
            waiting &= ~change
        if steps >= LIMIT:
            break
        active = active[waiting]
    return values, steps


def sample_by_sample(given: Task, tol: float) -> tuple[Tensor, list[int]]:
    """Return the same for a few samples, each alone."""
    found = [power_iteration(given.model, given.x[i : i + 1], given.y[i : i + 1], tol) for i in range(FEW)]
    return torch.cat([value for value, _ in found]), [steps for _, steps in found]


def batched_power(given: Task, tol: float, size: int = 50) -> tuple[Tensor, list[int]]:
    """Return the dominant eigenvalues of all samples by power iteration, and each chunk's products."""
    parts = zip(given.x.split(size), given.y.split(size), strict=True)
    found = [power_iteration(given.model, a, b, tol) for a, b in parts]
    return torch.cat([value for value, _ in found]), [steps for _, steps in found]


def errors(values: Tensor, truth: Tensor) -> dict[str, float]:
    """Return how far the largest eigenvalues are from the truth, relative to each."""
    each = (values.double() - truth[: len(values)]).abs() / truth[: len(values)]
    return {
        "median_error": each.median().item(),
        "max_error": each.max().item(),
        "share_within_1e-3": (each <= 1e-3).double().mean().item(),
    }


def measure(given: Task, repeats: int) -> dict[str, Any]:
    """Run all methods in turn on one network, and say what each took in input gradients."""
    model, x, y = given.model, given.x, given.y
    methods: dict[str, tuple[Callable[[], Any], float]] = {
        "input_spectrum, all c - 1 values": (lambda: hb.input_spectrum(model, x, y), 1.0),
        "input_spectrum, with vectors": (lambda: hb.input_spectrum(model, x, y, vectors=True), 1.0),
        "newton_direction": (lambda: hb.newton_direction(model, x, y, normalized=True), 1.0),
        "input_spectrum, lanczos, k=1": (lambda: hb.input_spectrum(model, x, y, k=1, method="lanczos"), 1.0),
        "one product, graph built": (lambda: hb.InputHessian(model, x, y, memory_budget=1, chunk_size=50) @ x, 1.0),
        "power iteration, batched and masked, one value": (lambda: batched_power(given, STOP), 1.0),
        f"power iteration, sample by sample, one value ({FEW} samples, scaled)": (
            lambda: sample_by_sample(given, STOP),
            len(x) / FEW,
        ),
    }
    truth = hb.input_spectrum(_copy(given, torch.contiguous_format).double(), x.double(), y)
    spent: dict[str, list[float]] = {name: [] for name in methods}
    gradients: list[dict[str, float]] = []
    answers: dict[str, Any] = {}
    for repeat in range(repeats):
        gradients.append(gradient_seconds(given))
        for name, (call, scale) in methods.items():

            def run(name: str = name, call: Callable[[], Any] = call) -> None:
                answers[name] = call()

            spent[name].append(cpu_seconds(run) * scale)
            print(f"{given.name}, repeat {repeat + 1}: {name}, {spent[name][-1]:.2f} s", flush=True)
    unit = min(value for run in gradients for value in run.values())
    rows = []
    for name in methods:
        row: dict[str, Any] = {
            "name": name,
            "seconds": spent[name],
            "gradients": min(spent[name]) / unit,
            "gradients_most": max(spent[name]) / unit,
        }
        answer = answers[name]
        if isinstance(answer, tuple):
            row |= {"products": answer[1], **errors(answer[0], truth[:, 0])}
        elif name.startswith("input_spectrum"):
            values = answer if isinstance(answer, Tensor) else answer.values
            row |= errors(values[:, 0], truth[:, 0])
        rows.append(row)
    with torch.no_grad():
        accuracy = (model(x).argmax(1) == y).double().mean().item()
    return {
        "network": given.name,
        "shape": list(x.shape[1:]),
        "samples": len(x),
        "classes": truth.shape[1] + 1,
        "accuracy": accuracy,
        "allowed_gradients": 0.7 * (truth.shape[1] + 1) + 1,
        "unit_seconds": unit,
        "gradient_seconds": gradients,
        "lambda_1_quantiles": truth[:, 0].quantile(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]).double()).tolist(),
        "methods": rows,
    }


def hundred_classes(samples: int, budget: int) -> dict[str, Any]:
    """Return time and memory of the full spectrum with a hundred classes under a budget."""
    given = task("C3", 3, 32, samples, 0, MANY_CLASSES)
    unit = min(gradient_seconds(given).values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spent = cpu_seconds(lambda: hb.input_spectrum(given.model, given.x, given.y, memory_budget=budget))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "network": "C3, not trained",
        "classes": MANY_CLASSES,
        "samples": samples,
        "memory_budget": budget,
        "peak_memory_grew_by": grown * 1024,
        "gradients": spent / unit,
        "allowed_gradients": 0.7 * MANY_CLASSES + 1,
    }


def table(found: dict[str, Any]) -> str:
    """Return the results as plain text."""
    lines = []
    for run in found["networks"]:
        lines.append(
            f"{run['network']}, {run['samples']} samples of {run['shape']}, accuracy {run['accuracy']:.3f}, unit "
            f"{1e3 * run['unit_seconds'] / run['samples']:.3f} ms a sample, allowed {run['allowed_gradients']:.1f}"
        )
        for row in run["methods"]:
            error = f"{row['median_error']:.1e} median, {row['max_error']:.1e} most" if "max_error" in row else ""
            lines.append(f"  {row['name']:70}{row['gradients']:>8.2f}{row['gradients_most']:>8.2f}  {error}")
    run = found["hundred_classes"]
    lines.append(
        f"{run['network']}, c = {run['classes']}: {run['gradients']:.1f} gradients (allowed "
        f"{run['allowed_gradients']:.0f}), memory grew by {run['peak_memory_grew_by'] / 1e6:.0f} MB under a budget of "
        f"{run['memory_budget'] / 1e6:.0f} MB"
    )
    return "\n".join(lines)


def _copy(given: Task, layout: torch.memory_format) -> nn.Module:
    x = given.x
    model = networks.build(given.name, tuple(x.shape[1:]), _classes(given)).eval()
    model.load_state_dict(given.model.state_dict())
    return model.to(memory_format=layout)


def _classes(given: Task) -> int:
    with torch.no_grad():
        return given.model(given.x[:1]).shape[1]


def _unit(vectors: Tensor) -> Tensor:
    norms = vectors.flatten(1).norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / norms.reshape(-1, *[1] * (vectors.ndim - 1))


def main() -> None:
    """Read the command line, run, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/inputs.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()
    many = hundred_classes(32, 100_000_000)  # first, since the peak of the process never falls
    runs = [measure(task("M1", 1, 28, 500, 6), chosen.repeats), measure(task("C1", 3, 32, 150, 3), chosen.repeats)]
    found = {
        "environment": provenance.environment("cpu") | {"load_before": load, "load_after": os.getloadavg()},
        "repeats": chosen.repeats,
        "networks": runs,
        "hundred_classes": many,
    }
    print(table(found))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
