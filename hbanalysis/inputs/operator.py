"""The Hessian of each sample's loss in its own input, as one operator for all samples."""

from collections.abc import Iterator
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import require
from hbanalysis.inputs.logits import Labels, LogitMap, Piece, check_finite
from hbanalysis.operators.guards import once_differentiable_functions, twice_differentiable, versions, weights_sum
from hbanalysis.operators.losses import cross_entropy
from hbanalysis.operators.products import graph_bytes

_WORKING = 2  # a product needs about as much as the graphs of its samples once more


class Handle:
    """The graph of the gradient of some samples' losses, ready to be multiplied any number of times.

    Built inside `LogitMap.guarded`. Cost: one input gradient to build, some 2 to 2.5 to multiply.

    Raises:
        InputError: An operation cannot be differentiated twice.
        NumericalError: Logits or gradients are not finite.
    """

    def __init__(self, logits: LogitMap, piece: Piece) -> None:
        found = logits(piece)
        check_finite(found.detach(), piece)
        losses = cross_entropy(found, piece.labels)
        with twice_differentiable():
            (gradient,) = torch.autograd.grad(losses.sum(), piece.inputs, create_graph=True)
        check_finite(gradient.detach(), piece)
        names = once_differentiable_functions([losses], [gradient])
        require(
            not names,
            f"The operation {', '.join(names)} cannot be differentiated twice (its backward pass is marked "
            "@once_differentiable), so the loss has no Hessian here. Write the backward pass with differentiable "
            "operations and remove the mark.",
        )
        self.losses, self.gradient = losses.detach(), gradient.detach()
        self._piece, self._slope = piece, gradient

    def multiply(self, vectors: Tensor) -> Tensor:
        """Return each sample's Hessian times its vector, ``(n, ...)``, in the dtype of the model."""
        if not self._slope.requires_grad:
            return torch.zeros_like(vectors)
        vectors = torch.empty_like(self._piece.inputs).copy_(vectors).detach()  # in the layout of the inputs
        with twice_differentiable():
            (product,) = torch.autograd.grad(
                self._slope, self._piece.inputs, vectors, retain_graph=True, allow_unused=True
            )
        if product is None:
            return torch.zeros_like(vectors)
        check_finite(product, self._piece)
        return product


class InputHessian:
    r"""The Hessian of each sample's cross-entropy in its own input: one block a sample, all multiplied at once.

    .. math:: H_i = \nabla^2_x \, \ell(z(x_i), y_i), \qquad \ell = \log\Bigl(1 + \sum_{k \ne y} e^{z_k - z_y}\Bigr)

    In eval mode samples do not mix, so the Hessian of the summed loss in all inputs is block diagonal and one product
    with it serves every sample. Any network that PyTorch can differentiate twice; for piecewise-linear ones
    `input_spectrum` and `newton_direction` are exact and cheaper than iterating with this. The logits relative to the
    label keep the relative precision of the curvature where 1 - p_y is far below the rounding unit.

    Args:
        model: Maps inputs to logits ``(n, c)``, at least two. It runs in eval mode and is left as it was.
        x: Inputs ``(N, ...)``, float32 or float64; moved to the model's device and dtype chunk by chunk.
        labels: Class labels ``(N,)``.
        chunk_size: Samples differentiated at once; ``None`` takes what fits ``memory_budget``, at most 50 on a CPU
            and 1,000 on a GPU.
        memory_budget: Bytes that graphs may take; ``None`` means a quarter of what is free (1 GiB at most) on a CPU,
            half of it on a GPU. Graphs of chunks that fit are kept for the next product.

    Attributes:
        shape: That of x, which is also that of a vector.
        dtype: That of x.
        device: That of x.
        products: Vectors multiplied so far, each of all samples.

    Cost: a product takes 3 to 4.5 input gradients, 2 to 2.5 where the graph is kept (``benchmarks/inputs.py``).

    Raises:
        InputError: See `hbanalysis.inputs`.
        NumericalError: Logits, gradients or products are not finite.

    References:
        Paper, Table 1 (columns of the input curvature).

    Example:
        A linear model has the Hessian W^T (diag p - p p^T) W; here p = (1/2, 1/2):

        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> H = InputHessian(model, torch.zeros(1, 2), torch.tensor([0]))
        >>> H @ torch.tensor([[3.0, 5.0]])
        tensor([[3., 0.]])
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        labels: Labels,
        *,
        chunk_size: int | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self._logits = LogitMap(model, x, labels)
        self.shape, self.dtype, self.device = tuple(x.shape), x.dtype, x.device
        self.products = 0
        self._bytes = handle_bytes(self._logits)
        self._size = self._logits.size(chunk_size, memory_budget, _WORKING * self._bytes)
        self._budget = self._logits.budget(memory_budget)
        self._kept: dict[int, Handle] = {}
        self._state: tuple[float, ...] = ()

    def __matmul__(self, vectors: Tensor) -> Float[Tensor, "..."]:
        """Return every sample's Hessian times its vector.

        Args:
            vectors: One vector a sample, shaped like x, or a block ``(N, k, *x.shape[1:])``, as ``vectors`` of
                `InputSpectrum` is.

        Returns:
            The products, in the shape, dtype and on the device of ``vectors``.

        Raises:
            InputError: Another shape, or no floating-point numbers of 32 or 64 bits.
            NumericalError: A product is not finite.
        """
        block = vectors.ndim == len(self.shape) + 1
        rest = tuple(vectors.shape[2:] if block else vectors.shape[1:])
        require(
            vectors.ndim > 0 and vectors.shape[0] == self.shape[0] and rest == self.shape[1:],
            f"Vectors of shape {self.shape}, or blocks (N, k, ...) = ({self.shape[0]}, k, "
            f"{', '.join(map(str, self.shape[1:]))}), are needed; given {tuple(vectors.shape)}.",
        )
        require(
            vectors.dtype in (torch.float32, torch.float64),
            f"A floating-point vector of 32 or 64 bits is needed; given {vectors.dtype}.",
        )
        columns = vectors if block else vectors[:, None]
        result = torch.empty_like(columns, memory_format=torch.contiguous_format)
        with self._logits.guarded():
            for first, handle in self._handles():
                which = slice(first, first + len(handle.losses))
                for column in range(columns.shape[1]):
                    part = columns[which, column].detach().to(self._logits.device, self._logits.dtype)
                    result[which, column] = handle.multiply(part).to(result)
                del handle  # before the next chunk's graph is built
        self.products += columns.shape[1]
        return result if block else result[:, 0]

    def gradient(self) -> Float[Tensor, "..."]:
        """Return the gradient of each sample's loss in its input, shaped like x.

        Cost: some 1.2 input gradients; where the graph is kept it serves the products that follow or went before.

        Raises:
            NumericalError: Logits or gradients are not finite.
        """
        result = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        with self._logits.guarded():
            for first, handle in self._handles():
                result[first : first + len(handle.losses)] = handle.gradient.to(result)
                del handle  # before the next chunk's graph is built
        return result

    def losses(self) -> Float[Tensor, " N"]:
        """Return the loss of each sample, float64. Cost: one forward pass."""
        with self._logits.guarded(), torch.no_grad():
            parts = [
                cross_entropy(self._logits(piece), piece.labels).double() for piece in self._logits.pieces(self._size)
            ]
        return torch.cat(parts).to(self.device)

    def release(self) -> None:
        """Give back the memory of the kept graphs; the next product builds them anew."""
        self._kept.clear()

    def _handles(self) -> Iterator[tuple[int, Handle]]:
        """Yield the number of the first sample and the handle of every chunk; the first ones are kept."""
        model = self._logits.model
        data = [t._version for t in (self._logits.x, self._logits.labels) if not t.is_inference()]
        state = (*versions(model), weights_sum(model), *data)
        if state != self._state:
            self._kept.clear()
            self._state = state
        most = int(self._budget / self._bytes) // self._size - 1  # chunks kept; one more is being worked on
        for number, first in enumerate(range(0, self.shape[0], self._size)):
            handle = self._kept.get(first)
            if handle is None:
                which = slice(first, first + self._size)
                handle = Handle(self._logits, self._logits.piece(which, first))
                if number < most:
                    self._kept[first] = handle
            yield first, handle
            del handle
        # Buffers that a forward pass wrote were written back.
        self._state = (*versions(model), *self._state[-1 - len(data) :])


def handle_bytes(logits: LogitMap) -> float:
    """Return the bytes that the graphs of a gradient keep for a sample. Cost: an input gradient of two samples."""
    known = {t.untyped_storage().data_ptr() for t in (*logits.model.parameters(), *logits.model.buffers())}
    with logits.guarded():
        return max(graph_bytes(partial(Handle, logits, logits.pair), known) / 2, 1.0)
