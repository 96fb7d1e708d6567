r"""The gradients of every logit relative to the label's, and all that follows from them.

With the rows :math:`R_k = \nabla_x (z_k - z_y)`, k other than y, and the factor :math:`A = C C^T` of `softmax`, a
piecewise-linear network has the gradient :math:`g = R^T q` and the Hessian :math:`H = R^T A R` in its input. R has at
most c - 1 rows, so after :math:`R^T = Q T` (float64, Householder) everything is a matter of small matrices: the
eigenvalues of H are the squared singular values of T C.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError, require
from hbanalysis.inputs.logits import LogitMap, Piece, check_finite
from hbanalysis.inputs.piecewise import require_piecewise_linear
from hbanalysis.inputs.softmax import SoftmaxCurvature, other_classes, softmax_curvature

_WORKING = 24  # bytes for each number of R: it and its orthonormal basis in float64, and what LAPACK copies
_NORMS = {"inf": 1, "2": 2}  # the norm dual to that of the perturbation

Result = TypeVar("Result")


class LogitJacobians:
    r"""The Jacobians of the relative logits of n samples, and the curvature of their losses.

    Made by `logit_jacobians`. Numbers a sample (eigenvalues, norms, distances) are float64; what has the shape of the
    inputs is in the model's dtype. Everything is on the model's device.

    Args:
        rows: :math:`R_k = \nabla_x (z_k - z_y)`, the classes other than the label ascending, ``(n, c - 1, *shape)``.
        logits: ``(n, c)``.
        labels: ``(n,)``.
        first: Number of the first sample, for messages.

    Attributes:
        relative: :math:`z_k - z_y` in float64, ``(n, c - 1)``.
    """

    def __init__(self, rows: Tensor, logits: Tensor, labels: Tensor, first: int = 0) -> None:
        self.rows, self.labels, self.first = rows, labels, first
        others = other_classes(labels, logits.shape[1])
        logits = logits.double()
        self.relative = logits.gather(1, others) - logits.gather(1, labels[:, None])

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def softmax(self) -> SoftmaxCurvature:
        """Gradient and curvature of the losses in the relative logits."""
        return softmax_curvature(self.relative)

    def gradient(self, normalized: bool = False) -> Float[Tensor, "n ..."]:
        """Return the gradient of each sample's loss, ``(n, *shape)``.

        Args:
            normalized: Scale each to unit Euclidean norm, which does not underflow where 1 - p_y does.
        """
        log_q = self.softmax.log_q
        scale = log_q.amax(1)
        return self._shaped(torch.einsum("nmd,nm->nd", self._flat, self._weights), scale, normalized, "gradient")

    def gradient_norms(self) -> Float[Tensor, " n"]:
        """Return the Euclidean norm of each sample's gradient, float64."""
        scale = self.softmax.log_q.amax(1)
        return (self._triangle @ self._weights[:, :, None])[:, :, 0].norm(dim=1) * scale.exp()

    def eigenvalues(self) -> Float[Tensor, "n r"]:
        """Return the min(c - 1, d) eigenvalues of each Hessian that can be other than 0, descending, float64."""
        return torch.linalg.svdvals(self._triangle @ self.softmax.factor).square() * self._unit

    def eigenpairs(self) -> tuple[Float[Tensor, "n r"], Float[Tensor, "n r ..."]]:
        """Return eigenvalues and orthonormal eigenvectors ``(n, r, *shape)``, turned so that the loss rises.

        Vectors of eigenvalues 0 complete the basis of the span of R or, where R lacks rank, of some space around it.
        """
        basis, triangle = self._qr
        left, sizes, right = torch.linalg.svd(triangle @ self.softmax.factor, full_matrices=False)
        slopes = (right @ self.softmax.pulled[:, :, None])[:, :, 0]
        left = left * torch.where(slopes < 0, -1.0, 1.0)[:, None, :]
        vectors = (basis @ left).mT.to(self.rows.dtype)
        return sizes.square() * self._unit, vectors.reshape(*vectors.shape[:2], *self.rows.shape[2:])

    def multiply(self, vectors: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
        """Return each sample's Hessian times its vector, ``R^T C C^T R v``, shaped and typed like ``vectors``."""
        pushed = self.softmax.factor.mT @ (self._flat @ vectors.double().reshape(len(self), -1, 1))
        pulled = self._flat.mT @ (self.softmax.factor @ pushed) * self.softmax.scale.exp()[:, None, None]
        return pulled.reshape(vectors.shape).to(vectors.dtype)

    def ranks(self, rtol: float | None = None) -> Tensor:
        r"""Return the rank of each R, ``(n,)``: singular values above ``rtol`` times the largest.

        The ranks of H are the same in exact arithmetic, but its eigenvalues also carry the probabilities, which tell
        nothing about rank.

        Args:
            rtol: ``None`` means NumPy's, the larger of c - 1 and d times the rounding unit of the model's dtype.
        """
        sizes = torch.linalg.svdvals(self._triangle)
        return self._above(sizes, rtol)

    def newton_direction(
        self, damping: float = 0.0, normalized: bool = False, rtol: float | None = None
    ) -> Float[Tensor, "n ..."]:
        """Return ``(H + damping I)^-1 g`` of each sample, ``(n, *shape)``; see `hbanalysis.newton_direction`.

        Args:
            damping: At least 0; 0 takes the pseudo-inverse.
            normalized: Scale each to unit Euclidean norm.
            rtol: See `ranks`.

        Raises:
            InputError: Negative damping.
            NumericalError: A direction is too long for the model's dtype; ``normalized=True`` avoids that.
        """
        require(0 <= damping < float("inf"), f"damping is finite and not negative; given {damping}.")
        basis, triangle = self._qr
        if damping:
            small, scale = self._damped(triangle, damping)
        else:
            small, scale = self._undamped(triangle, rtol)
        return self._shaped((basis @ small[:, :, None])[:, :, 0], scale, normalized, "Newton direction")

    def boundary_distances(self, norm: str = "inf") -> Float[Tensor, " n"]:
        """Return the linearised distance to the nearest class boundary; see `hbanalysis.boundary_distance`.

        Raises:
            InputError: ``norm`` is neither ``"inf"`` nor ``"2"``.
        """
        dual = check_norm(norm)
        slopes = torch.linalg.vector_norm(self.rows.flatten(2), dual, dim=2, dtype=torch.float64)
        each = -self.relative / slopes  # a slope of 0 gives an infinite distance, with the sign of the margin
        return torch.where(self.relative == 0, 0.0, each).amin(1)

    @property
    def _flat(self) -> Tensor:
        return self.rows.flatten(2).double()

    @cached_property
    def _weights(self) -> Tensor:
        """The probabilities q, divided by their largest."""
        log_q = self.softmax.log_q
        return (log_q - log_q.amax(1, keepdim=True)).exp()

    @property
    def _unit(self) -> Tensor:
        return self.softmax.scale.exp()[:, None]

    @cached_property
    def _qr(self) -> tuple[Tensor, Tensor]:
        """Q ``(n, d, r)`` and T ``(n, r, m)`` with R^T = Q T."""
        basis, triangle = torch.linalg.qr(self._flat.mT)
        return basis, triangle

    @cached_property
    def _triangle(self) -> Tensor:
        return self._qr[1] if "_qr" in self.__dict__ else torch.linalg.qr(self._flat.mT, mode="r")[1]

    def _above(self, sizes: Tensor, rtol: float | None) -> Tensor:
        if rtol is None:
            rtol = max(self.rows.shape[1], self.rows[0, 0].numel()) * torch.finfo(self.rows.dtype).eps
        return (sizes > rtol * sizes[:, :1]).sum(1)

    def _damped(self, triangle: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        """Coordinates of the damped direction in the basis Q, and the logarithm of their scale."""
        curvature = self.softmax
        left, sizes, right = torch.linalg.svd(triangle @ curvature.factor, full_matrices=False)
        # In units of exp(scale) the denominator is s^2 + exp(excess); it is divided by its larger summand's scale.
        excess = torch.as_tensor(damping, dtype=torch.float64).log().to(sizes.device) - curvature.scale
        above = excess.clamp(min=0)
        shrunk = sizes / (sizes.square() * (-above).exp()[:, None] + (excess - above).exp()[:, None])
        pulled = (right @ curvature.pulled[:, :, None])[:, :, 0]
        return (left @ (shrunk * pulled)[:, :, None])[:, :, 0], curvature.pulled_scale - curvature.scale / 2 - above

    def _undamped(self, triangle: Tensor, rtol: float | None) -> tuple[Tensor, Tensor]:
        """The same for the pseudo-inverse: R^+ 1 where R has full rank, else least squares weighted by A."""
        left, sizes, right = torch.linalg.svd(triangle, full_matrices=False)
        ranks = self._above(sizes, rtol)
        small = torch.zeros_like(triangle[:, :, 0])
        for rank in ranks.unique().tolist():
            if rank == 0:  # a gradient of 0
                continue
            which = (ranks == rank).nonzero().flatten()
            span = right[which, :rank].mT  # the columns span the range of R
            full = rank == triangle.shape[2]
            solved = span.sum(1) if full else _weighted(self.softmax.factor[which], span)
            small[which] = (left[which, :, :rank] @ (solved / sizes[which, :rank])[:, :, None])[:, :, 0]
        return small, -self.softmax.log_p

    def _shaped(self, vectors: Tensor, scale: Tensor, normalized: bool, what: str) -> Tensor:
        """Return ``exp(scale) vectors`` or unit vectors, in the shape of the inputs."""
        if normalized:
            norms = vectors.norm(dim=1, keepdim=True)
            scaled = torch.where(norms > 0, vectors / norms, 0.0).to(self.rows.dtype)
        else:
            scaled = torch.where(vectors == 0, 0.0, vectors * scale.exp()[:, None]).to(self.rows.dtype)
            wrong = (~scaled.isfinite()).any(1).nonzero().flatten()
            if len(wrong):
                raise NumericalError(
                    f"The {what} of sample {self.first + int(wrong[0])} is too long for {scaled.dtype} (p_y is about "
                    f"1e{self.softmax.log_p[wrong[0]].item() / 2.302585:.0f}). Use normalized=True."
                )
        return scaled.reshape(len(self), *self.rows.shape[2:])


def logit_jacobians(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
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
    Memory: the graph, and 24 bytes and the rows themselves for each of the c - 1 times d numbers of a sample.

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
    numbers = (logits.classes - 1) * logits.x[0].numel()
    size = logits.size(chunk_size, memory_budget, graph + numbers * (logits.dtype.itemsize + _WORKING))
    for first in range(0, len(logits.x), size):
        with logits.guarded():  # not around the yield: between two chunks the model belongs to the caller
            piece = logits.piece(slice(first, first + size), first)
            found, rows = _relative_rows(logits, piece)
        check_finite(found, piece)
        check_finite(rows, piece)
        yield LogitJacobians(rows, found, piece.labels, first)


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


def _weighted(factor: Tensor, span: Tensor) -> Tensor:
    """Return the w that bring ``span w`` nearest to ones in the norm of A = C C^T, ``(n, rank)``."""
    order = torch.diagonal(factor, dim1=1, dim2=2).argsort(dim=1, descending=True)
    # Householder QR respects rows of very different size only if the large ones come first.
    rows = (factor.mT @ span).gather(1, order[:, :, None].expand(-1, -1, span.shape[2]))
    right = factor.sum(1).gather(1, order)[:, :, None]
    return torch.linalg.lstsq(rows, right, driver="gels").solution[:, :, 0]


def check_norm(norm: str) -> int:
    """Return the order of the norm dual to ``"inf"`` or ``"2"``.

    Raises:
        InputError: Any other name.
    """
    if norm not in _NORMS:
        raise InputError(f"norm is 'inf' or '2'; given {norm!r}.")
    return _NORMS[norm]
