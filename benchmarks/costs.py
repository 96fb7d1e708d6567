"""What one pass costs: the gradient that every time is divided by, and single Hessian-vector products."""

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

Batches = Sequence[tuple[Tensor, Tensor]]
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
CHUNKS = (50, 100, 200, 300, 599, 1797)
TIMED = 5


def batches(images: Tensor, labels: Tensor, size: int) -> Batches:
    """Cut the data into batches of ``size``; the last one may be shorter."""
    return list(zip(images.split(size), labels.split(size), strict=True))


def seconds(call: Callable[[], object], times: int = TIMED) -> float:
    """Return the least wall time of several calls, after one that does not count."""
    call()
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def full_gradient(model: nn.Module, parts: Batches, total: int) -> list[Tensor]:
    """Return the gradient of the mean loss, one backward pass a batch."""
    weights = list(model.parameters())
    summed = [torch.zeros_like(weight) for weight in weights]
    for images, labels in parts:
        loss = cross_entropy(model(images), labels, reduction="sum") / total
        for whole, part in zip(summed, torch.autograd.grad(loss, weights), strict=True):
            whole += part
    return summed


def double_backward(model: nn.Module, parts: Batches, total: int, vector: Tensor) -> Tensor:
    """Return the product of the Hessian of the mean loss with a flat vector, by two backward passes a batch."""
    weights = list(model.parameters())
    summed = torch.zeros_like(vector)
    for images, labels in parts:
        loss = cross_entropy(model(images), labels, reduction="sum") / total
        gradient = torch.autograd.grad(loss, weights, create_graph=True)
        flat = torch.cat([part.reshape(-1) for part in gradient])
        summed += torch.cat([part.reshape(-1) for part in torch.autograd.grad(flat @ vector, weights)])
    return summed


def gradient_times(
    model: Callable[[], nn.Module], images: Tensor, labels: Tensor, sizes: Sequence[int] = CHUNKS
) -> dict[str, dict[str, float]]:
    """Return the seconds of a full-data gradient for each memory format and chunk size."""
    found: dict[str, dict[str, float]] = {}
    for name, layout in FORMATS.items():
        net, inputs = model().to(memory_format=layout), images.contiguous(memory_format=layout)
        found[name] = {}
        for size in sizes:
            parts = batches(inputs, labels, size)
            found[name][str(size)] = seconds(lambda net=net, parts=parts: full_gradient(net, parts, len(labels)))
    return found


def dense_hessian(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the Hessian in float64, row by row by double backward over all samples at once."""
    model, parts = model.double(), [(images.double(), labels)]
    size = sum(weight.numel() for weight in model.parameters())
    loss = cross_entropy(model(parts[0][0]), labels)
    weights = list(model.parameters())
    gradient = torch.autograd.grad(loss, weights, create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in gradient])
    rows = [
        torch.cat([part.reshape(-1) for part in torch.autograd.grad(flat[i], weights, retain_graph=True)])
        for i in range(size)
    ]
    return torch.stack(rows)
