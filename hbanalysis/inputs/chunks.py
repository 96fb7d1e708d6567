"""The Jacobians of the relative logits of a whole set of samples, chunk by chunk, in what memory there is."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from hbanalysis.inputs.jacobians import LogitJacobians
from hbanalysis.inputs.logits import Labels, LogitMap, Piece, check_finite
from hbanalysis.inputs.piecewise import require_piecewise_linear
from hbanalysis.inputs.softmax import other_classes

_WORKING = 24  # bytes for each number of R: it and its orthonormal basis in float64, and what LAPACK copies
_SQUARES = 3  # float64 arrays (c - 1, c - 1) of a sample: one or two factors, and what they are made from
_SMALL = 10  # those of min(c - 1, d) times c - 1: the triangle of R, its products, and their decompositions

Result = TypeVar("Result")


def logit_jacobians(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    chunk_size: int | None = None,
    memory_budget: int | None = None,
    any_network: bool = False,
) -> Iterator[LogitJacobians]:
    r"""Yield the Jacobians of the relative logits, chunk by chunk, for several quantities from one pass.

    Eigenvalues, gradients, Newton directions and boundary distances of a chunk all come from the same c - 1
    vector-Jacobian products.

    Args:
        model: Maps inputs to logits ``(n, c)``. It runs in eval mode and is left as it was.
        x: Inputs ``(N, ...)``.
        labels: ``(N,)``.
        chunk_size: Samples at once; ``None`` takes what fits ``memory_budget``, at most 50 on a CPU and 1,000 on a
            GPU.
        memory_budget: Bytes for a chunk, its graph included; ``None`` means a quarter of what is free (1 GiB at most)
            on a CPU, half of it on a GPU.
        any_network: Also take networks that are not piecewise linear. Eigenvalues and directions are then those of the
            Gauss-Newton part :math:`R^T A R`, not of the Hessian; gradients and boundary distances are right as ever.

    Cost: one forward pass and c - 1 backward passes that stop at the input, some (c + 1) / 2 input gradients.
    Memory: the graph, 24 bytes and the rows themselves for each of the c - 1 times d numbers of a sample, and 24 bytes
    for each of (c - 1)^2 and 80 for each of c - 1 times min(c - 1, d).

    Raises:
        InputError: The network is not piecewise linear; the message names the operation. Or see `hbanalysis.inputs`.
        NumericalError: Logits or gradients are not finite.

    Example:
        >>> model, x = nn.Linear(2, 3), torch.tensor([[1.0, 2.0]])
        >>> (part,) = logit_jacobians(model, x, torch.tensor([0]))
        >>> bool(torch.allclose(part.rows[0], model.weight[1:] - model.weight[:1]))
        True
    """
    logits = LogitMap(model, x, labels)
    if not any_network:
        require_piecewise_linear(logits)
    return walk(logits, chunk_size, memory_budget)


def collected(parts: Iterator[LogitJacobians], of: Callable[[LogitJacobians], Result]) -> list[Result]:
    """Return a quantity of every chunk; no chunk is held while the next one is made."""
    found: list[Result] = []
    while True:
        part = next(parts, None)
        if part is None:
            return found
        found.append(of(part))
        del part


def walk(logits: LogitMap, chunk_size: int | None, memory_budget: int | None) -> Iterator[LogitJacobians]:
    """Yield the Jacobians of a model that has been checked; see `logit_jacobians`."""
    with logits.guarded():
        graph = logits.graph_bytes()
    size = logits.size(chunk_size, memory_budget, graph + _bytes(logits))
    for first in range(0, len(logits.x), size):
        with logits.guarded():  # not around the yield: between two chunks the model belongs to the caller
            piece = logits.piece(slice(first, first + size), first)
            found, rows = _relative_rows(logits, piece)
        check_finite(found, piece)
        check_finite(rows, piece)
        yield LogitJacobians(rows, found, piece.labels, first)


def _bytes(logits: LogitMap) -> int:
    """Return what the rows of a sample and all that is computed from them take at most."""
    rows, numbers = logits.classes - 1, logits.x[0].numel()
    squares = _SQUARES * rows**2 + _SMALL * rows * min(rows, numbers)
    return rows * numbers * (logits.dtype.itemsize + _WORKING) + torch.float64.itemsize * squares


def _relative_rows(logits: LogitMap, piece: Piece) -> tuple[Tensor, Tensor]:
    """Return logits and the gradients of the other logits relative to the label's, one backward pass each."""
    others = other_classes(piece.labels, logits.classes)
    shape = (len(piece), logits.classes - 1, *piece.inputs.shape[1:])
    rows = torch.empty(shape, dtype=logits.dtype, device=logits.device)
    found = logits(piece)
    for column in range(logits.classes - 1):
        seed = torch.zeros_like(found).scatter_(1, others[:, column : column + 1], 1.0)
        seed.scatter_(1, piece.labels[:, None], -1.0)
        (row,) = torch.autograd.grad(found, piece.inputs, seed, retain_graph=column < logits.classes - 2)
        rows[:, column] = row
    return found.detach(), rows
