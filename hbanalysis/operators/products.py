"""Products of one chunk's curvature with vectors, from retained autograd graphs.

An engine builds, for a chunk, a handle that multiplies vectors by the second derivatives of the chunk's summed loss.
What decides which handles are kept, and sums them, is above and knows nothing of how they work.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from hbanalysis.errors import InputError, require
from hbanalysis.operators.guards import once_differentiable_functions, twice_differentiable, wrongly_differentiated
from hbanalysis.operators.objective import Objective
from hbanalysis.operators.samples import Chunk
from hbanalysis.operators.structures import leaves


class Handle(ABC):
    """One chunk, ready to be multiplied any number of times.

    Args:
        loss: The chunk's weighted loss, summed; a float64 scalar on the device.
    """

    def __init__(self, loss: Tensor) -> None:
        self.loss = loss

    @property
    @abstractmethod
    def bytes(self) -> int:
        """What keeping the handle takes."""

    @abstractmethod
    def multiply(self, vector: Tensor) -> Tensor:
        """Return the product of the chunk's curvature with a flat vector ``(n,)``."""


class Engine(ABC):
    """Builds handles. Runs inside `guards.differentiation`, on chunks that lie on the device.

    Args:
        objective: The loss of a chunk as a function of the weights.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abstractmethod
    def build(self, chunk: Chunk, check: bool = False) -> Handle:
        """Return the handle of a chunk.

        Args:
            chunk: The samples.
            check: Also check the targets' values, which waits for the device: for the first pass.
        """


class GraphEngine(Engine):
    """Graphs of the gradient, differentiated once more for every vector: the Hessian.

    Cost: a gradient to build, some 1.5 to 2 more to multiply.

    Args:
        objective: The loss of a chunk as a function of the weights.
        mode: ``"graph"`` or ``"auto"``; engines on top of this one know others.

    Attributes:
        kind: How products are computed now: ``"graph"`` or ``"traced"``.
        refused: Why they are not computed in a faster way, or ``""``.

    Raises:
        InputError: A mode that the engine does not know.
    """

    modes: tuple[str, ...] = ("auto", "graph")

    def __init__(self, objective: Objective, mode: str = "auto") -> None:
        super().__init__(objective)
        require(mode in self.modes, f"engine must be one of {', '.join(self.modes)} here; given {mode!r}.")
        self.mode, self.kind, self.refused = mode, "graph", ""
        self._sizes: dict[tuple[Any, ...], int] = {}
        self._inspected = False

    def prepare(self, chunk: Chunk, samples: int) -> None:
        """Take note that so many samples will be multiplied in chunks like this one, many times."""

    def renew(self) -> None:
        """Take note that the weights, or the way the data are cut, may have changed."""

    def build(self, chunk: Chunk, check: bool = False) -> Handle:
        """See `Engine.build`."""
        total, multiply = self._graphs(chunk, check)
        return GraphHandle(total.detach(), multiply, partial(self.bytes_of, chunk))

    def bytes_of(self, chunk: Chunk) -> int:
        """Return the bytes that a chunk's graphs keep. Cost: they are built for the first chunk of each shape."""
        if chunk.signature not in self._sizes:
            self._sizes[chunk.signature] = graph_bytes(lambda: self._graphs(chunk, False), self._known(chunk))
        return self._sizes[chunk.signature]

    def _known(self, chunk: Chunk) -> set[int]:
        """Return the addresses of storages that are there anyway: those of the model, and of data that is a view."""
        known = {_storage(t) for t in (*self.objective.model.parameters(), *self.objective.model.buffers())}
        tensors = leaves((chunk.inputs, chunk.targets))
        return known | {_storage(t) for t in tensors if t.untyped_storage().nbytes() > t.nbytes}

    def _graphs(self, chunk: Chunk, check: bool) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Return the loss, and the function that multiplies."""
        outputs = self.objective.outputs(chunk)
        if check:
            self.objective.check(outputs, chunk)
        total = self.objective.reduce(outputs, chunk)
        gradient = self.objective.gradient(total, graph=True)
        self._inspect([total], gradient)
        return total, partial(self._second, gradient)

    def _second(self, gradient: tuple[Tensor | None, ...], vector: Tensor) -> Tensor:
        space = self.objective.space
        pairs = [
            (g, v) for g, v in zip(gradient, space.split(vector), strict=True) if g is not None and g.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(vector)
        firsts, directions = zip(*pairs, strict=True)
        with twice_differentiable():
            return space.join(
                torch.autograd.grad(firsts, space.tensors, directions, retain_graph=True, allow_unused=True)
            )

    def _inspect(self, roots: Sequence[Tensor], gradient: Sequence[Tensor | None]) -> None:
        """Refuse, once, functions whose second derivative autograd would silently get wrong or take for zero."""
        if self._inspected:
            return
        names = once_differentiable_functions(roots, [g for g in gradient if g is not None])
        if names:
            raise InputError(
                f"The operation {', '.join(names)} cannot be differentiated twice (its backward pass is marked "
                "@once_differentiable), so the loss has no Hessian here. Write the backward pass with differentiable "
                "operations and remove the mark."
            )
        wrong = wrongly_differentiated(roots)
        if wrong:
            raise InputError(
                f"PyTorch's second derivative of the operation {', '.join(wrong)} is wrong, so the loss has no Hessian "
                "here. Write weight normalisation as v * (g / v.norm(dim=1, keepdim=True)), or use "
                "torch.nn.utils.parametrizations.weight_norm, whose second derivative is right here."
            )
        self._inspected = True


class GaussNewtonEngine(GraphEngine):
    """Graphs of the outputs and of the loss in the outputs: J' S J.

    J v comes from differentiating J' u, which is linear in u, with respect to u.

    Cost: a forward pass and two backward passes to build, some 2 gradients to multiply.
    """

    def _graphs(self, chunk: Chunk, check: bool) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        outputs = self.objective.outputs(chunk)
        if not isinstance(outputs, Tensor) or not outputs.requires_grad:
            raise InputError(
                "Gauss-Newton needs one tensor of outputs that depends on the weights; the model returned "
                f"{type(outputs).__name__}. Pick the tensor with forward=lambda model, inputs: model(inputs)[0], say."
            )
        if check:
            self.objective.check(outputs, chunk)
        leaf = outputs.detach().requires_grad_()
        total = self.objective.reduce(leaf, chunk)
        with twice_differentiable():
            (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
        dual = torch.zeros_like(outputs, requires_grad=True)
        with twice_differentiable():
            pulled = torch.autograd.grad(
                outputs, self.objective.space.tensors, dual, create_graph=True, allow_unused=True
            )
        self._inspect([total, outputs], (slope, *pulled))
        return total, partial(self._sandwich, outputs, leaf, slope, dual, pulled)

    def _sandwich(
        self,
        outputs: Tensor,
        leaf: Tensor,
        slope: Tensor,
        dual: Tensor,
        pulled: tuple[Tensor | None, ...],
        vector: Tensor,
    ) -> Tensor:
        space = self.objective.space
        pairs = [(p, v) for p, v in zip(pulled, space.split(vector), strict=True) if p is not None]
        if not slope.requires_grad or not pairs:  # a loss that is linear in the outputs; weights that are not used
            return torch.zeros_like(vector)
        firsts, directions = zip(*pairs, strict=True)
        with twice_differentiable():
            (pushed,) = torch.autograd.grad(firsts, dual, directions, retain_graph=True)
            (curved,) = torch.autograd.grad(slope, leaf, pushed, retain_graph=True)
            return space.join(torch.autograd.grad(outputs, space.tensors, curved, retain_graph=True, allow_unused=True))


class GraphHandle(Handle):
    """A chunk's graphs; see `Handle`."""

    def __init__(self, loss: Tensor, multiply: Callable[[Tensor], Tensor], measure: Callable[[], int]) -> None:
        super().__init__(loss)
        self._multiply, self._measure = multiply, measure

    @cached_property
    def bytes(self) -> int:
        """See `Handle.bytes`; measured when first asked for."""
        return self._measure()

    def multiply(self, vector: Tensor) -> Tensor:
        """See `Handle.multiply`."""
        return self._multiply(vector)


def graph_bytes(build: Callable[[], object], known: set[int] | None = None) -> int:
    """Return the bytes of the distinct storages that autograd keeps while ``build`` runs.

    The graph holds indices into a list that is cleared here. Were it to hold the tensors, an operation that saves its
    own output would own itself, a cycle that is never freed.

    Args:
        build: Builds a graph.
        known: Addresses of storages that are there anyway, such as the weights.
    """
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> int:
        saved.append(tensor)
        return len(saved) - 1

    with torch.autograd.graph.saved_tensors_hooks(pack, saved.__getitem__):
        build()
    sizes = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in saved}
    saved.clear()
    return sum(size for address, size in sizes.items() if address not in (known or set()))


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
