"""Linear operators that are never formed: the Hessian of the mean loss in the weights.

An operator has ``shape``, ``dtype``, ``device``, ``products`` (columns multiplied so far), ``@`` and ``to_scipy()``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError
from hbanalysis.losses import PerSampleLoss, resolve
from hbanalysis.memory import available
from hbanalysis.parameters import ParameterSpace

Batch = tuple[Tensor, Tensor]
LARGEST_BUDGET = 4 << 30
DEFAULT_CHUNK = {"cpu": 100, "cuda": 1000}


@runtime_checkable
class SymmetricOperator(Protocol):
    """What the eigensolvers need of an operator."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def __matmul__(self, other: Tensor) -> Tensor:
        """Return the product with one vector ``(n,)`` or the columns of ``(n, b)``."""
        ...


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode and restore each one's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


class WeightHessian:
    r"""The Hessian of the mean per-sample loss over a whole data set, in the weights.

    .. math:: H = \nabla^2_\theta \; \frac1N \sum_{i=1}^N \ell(f_\theta(x_i), y_i)

    The sum runs over samples, not batches, so the result does not depend on how the set is cut into chunks. Products
    run in eval mode (batch normalisation uses its running statistics, as in the authors' code) and leave the model as
    it was: modes, buffers, ``.grad``, ``requires_grad`` and the random state.

    Args:
        model: A module mapping a batch of inputs to outputs.
        data: Inputs ``(N, ...)``, or any iterable of ``(inputs, targets)`` batches that can be iterated repeatedly.
        targets: Targets ``(N,)`` or ``(N, ...)`` if ``data`` is a tensor.
        loss: ``"cross_entropy"``, ``"squared_error"`` or a callable returning one loss a sample.
        parameters: Name patterns that select a block of the Hessian; ``None`` takes every parameter.
        chunk_size: Samples differentiated at once; memory grows with it.
        memory_budget: Bytes that retained gradient graphs may take; ``None`` means a quarter of the memory free now,
            4 GiB at most; 0 retains nothing. A retained chunk skips the forward and first backward pass of each later
            product.
        total: What the sum over samples is divided by, for part of a larger set; ``None`` means N.

    Cost: a product differentiates twice: a chunk that is recomputed costs the gradient as well (some 2.5 to 3
    gradients in all), one that is retained does not (1.5 to 2).

    Raises:
        InputError: Empty data, missing targets, a one-shot iterator, or parameters on several devices.
        NumericalError: The loss of a chunk is not finite; the message names the chunk.

    Example:
        A linear model under squared error has the Hessian 2 X'X / N:

        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> H = WeightHessian(nn.Linear(2, 1, bias=False), x, torch.zeros(2, 1), loss="squared_error")
        >>> H @ torch.tensor([1.0, 0.0])
        tensor([10., 14.])
    """

    def __init__(
        self,
        model: nn.Module,
        data: Tensor | Iterable[Batch],
        targets: Tensor | None = None,
        *,
        loss: str | PerSampleLoss = "cross_entropy",
        parameters: str | Sequence[str] | None = None,
        chunk_size: int | None = None,
        memory_budget: int | None = None,
        total: int | None = None,
    ) -> None:
        self.model = model
        self.space = ParameterSpace(model, parameters)
        self.shape = (self.space.size, self.space.size)
        self.dtype, self.device = self.space.dtype, self.space.device
        self.products = 0
        self._loss = resolve(loss)
        self._chunk_size = chunk_size or DEFAULT_CHUNK.get(self.device.type, 1000)
        self._data = _checked(data, targets)
        spare = min(available(self.device) // 4, LARGEST_BUDGET)
        self._budget = spare if memory_budget is None else memory_budget
        self._retained: list[tuple[Tensor | None, ...]] = []
        self._state: tuple[int, ...] | None = None
        self._bytes = 0
        found = sum(len(y) for _, y in self._chunks())
        self.samples = total or found
        if found == 0:
            raise InputError("The data holds no sample; a mean loss needs at least one.")

    def __matmul__(self, other: Tensor) -> Tensor:
        """Return ``H @ other`` for a vector ``(n,)`` or columns ``(n, b)``, in the dtype and device of ``other``.

        Raises:
            InputError: The length does not match, or ``other`` is not floating point.
            NumericalError: The loss or the product is not finite.
        """
        if other.ndim not in (1, 2) or other.shape[0] != self.shape[1] or not other.is_floating_point():
            raise InputError(
                f"A floating-point vector ({self.shape[1]},) or matrix ({self.shape[1]}, b) is needed; "
                f"given {other.dtype} {tuple(other.shape)}."
            )
        columns = other.reshape(self.shape[1], -1).to(self.device, self.dtype)
        total = torch.zeros(columns.shape, dtype=torch.float64, device=self.device)
        with torch.enable_grad(), evaluation_mode(self.model):
            for graph in self._graphs():
                for j in range(columns.shape[1]):
                    total[:, j] += self._chunk_product(graph, columns[:, j])
        self.products += columns.shape[1]
        if not torch.isfinite(total).all():
            raise NumericalError("A Hessian-vector product is not finite; check the vector and the weights.")
        return (total / self.samples).reshape(other.shape).to(other)

    def gradient(self) -> Tensor:
        """Return the gradient of the mean loss, shape ``(n,)``. Cost: one gradient."""
        total = torch.zeros(self.shape[0], dtype=torch.float64, device=self.device)
        with torch.enable_grad(), evaluation_mode(self.model):
            for index, (x, y) in enumerate(self._chunks()):
                total += self.space.join(self._first(x, y, index, graph=False))
        return (total / self.samples).to(self.dtype)

    def loss(self) -> float:
        """Return the mean loss. Cost: one forward pass."""
        with torch.no_grad(), evaluation_mode(self.model):
            return sum(self._chunk_loss(x, y, i).double().item() for i, (x, y) in enumerate(self._chunks())) / (
                self.samples
            )

    def dense(self) -> Tensor:
        """Return the matrix itself, made symmetric. Cost: n products; for small networks and tests."""
        matrix = self @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        return (matrix + matrix.T) / 2

    def to_scipy(self) -> LinearOperator:
        """Return a SciPy ``LinearOperator`` over float64 NumPy vectors."""

        def multiply(array: np.ndarray) -> np.ndarray:
            columns = torch.from_numpy(array).to(self.device, self.dtype)
            return (self @ columns).double().cpu().numpy()

        return LinearOperator(self.shape, matvec=multiply, matmat=multiply, rmatvec=multiply, dtype=float)

    def _chunks(self) -> Iterator[Batch]:
        if isinstance(self._data, tuple):
            x, y = self._data
            batches: Iterable[Batch] = [(x, y)]
        else:
            batches = self._data
        for x, y in batches:
            for start in range(0, len(y), self._chunk_size):
                part = slice(start, start + self._chunk_size)
                yield x[part].to(self.device), y[part].to(self.device)

    def _chunk_loss(self, x: Tensor, y: Tensor, index: int) -> Tensor:
        losses = self._loss(self.model(x), y)
        if losses.shape != (len(y),):
            raise InputError(
                f"The loss must return one value a sample, shape ({len(y)},); it returned {tuple(losses.shape)}. "
                "Use reduction='none'."
            )
        total = losses.sum()
        if not torch.isfinite(total):
            raise NumericalError(
                f"The loss of chunk {index} (samples {index * self._chunk_size} on) is {total.item()}; "
                "check the weights and the inputs."
            )
        return total

    def _first(self, x: Tensor, y: Tensor, index: int, graph: bool) -> tuple[Tensor | None, ...]:
        total = self._chunk_loss(x, y, index)
        return torch.autograd.grad(total, self.space.tensors, create_graph=graph, allow_unused=True)

    def _graphs(self) -> Iterator[tuple[Tensor | None, ...]]:
        """Yield each chunk's gradient with its graph, retained ones first as far as the budget goes."""
        state = (*self.space.state(), *(b._version for b in self.model.buffers()))
        if state != self._state:
            self._retained, self._state = [], state
        kept = len(self._retained)
        yield from self._retained
        used = kept * self._bytes
        for index, (x, y) in enumerate(self._chunks()):
            if index < kept:
                continue
            if self._budget and not self._bytes:
                self._bytes = _graph_bytes(partial(self._first, x, y, index, graph=True))
            gradient = self._first(x, y, index, graph=True)
            used += self._bytes
            if self._budget and index == len(self._retained) and used <= self._budget:
                self._retained.append(gradient)
            yield gradient

    def _chunk_product(self, gradient: tuple[Tensor | None, ...], vector: Tensor) -> Tensor:
        pairs = [
            (g, v) for g, v in zip(gradient, self.space.split(vector), strict=True) if g is not None and g.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(vector)
        firsts, directions = zip(*pairs, strict=True)
        second = torch.autograd.grad(firsts, self.space.tensors, directions, retain_graph=True, allow_unused=True)
        return self.space.join(second)


def _graph_bytes(build: Callable[[], object]) -> int:
    """Return the bytes of the distinct tensors that autograd keeps while ``build`` runs.

    The graph holds indices into a list that is cleared here. Were it to hold the tensors, an operation that saves its
    own output would own itself, a cycle that is never freed.
    """
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> int:
        saved.append(tensor)
        return len(saved) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
        build()
    total = sum({tensor.data_ptr(): tensor.nbytes for tensor in saved}.values())
    saved.clear()
    return total


def _checked(data: Tensor | Iterable[Batch], targets: Tensor | None) -> Batch | Iterable[Batch]:
    if isinstance(data, Tensor):
        if targets is None or len(targets) != len(data):
            given = "none" if targets is None else str(len(targets))
            raise InputError(f"Inputs of {len(data)} samples need as many targets; given {given}.")
        return data, targets
    if iter(data) is data:
        raise InputError(
            "The data can be iterated only once (a generator or iterator), but every product needs a whole pass. "
            "Give a list of batches, a DataLoader, or two tensors."
        )
    return data
