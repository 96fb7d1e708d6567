r"""The gradients of every logit relative to the label's, and all that follows from them.

With the rows :math:`R_k = \nabla_x (z_k - z_y)`, k other than y, and the factor :math:`A = C C^T` of `softmax`, a
piecewise-linear network has the gradient :math:`g = R^T q` and the Hessian :math:`H = R^T A R` in its input. R has at
most c - 1 rows, so after :math:`R^T = Q T` (float64, Householder) everything is a matter of small matrices: the
eigenvalues of H are the squared singular values of T C.
"""

from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError, require
from hbanalysis.inputs.softmax import SoftmaxCurvature, other_classes, softmax_curvature

_ROUNDING = 64  # units that the rounding of rows leaves in a singular value which is zero, at most: 5 were seen
_LEAD = 1000.0  # a label so many nats behind has a probability that no other can feel, also as a square root
_NO_CURVATURE = 200.0  # damping so many nats above the curvature leaves the gradient alone
_NORMS = {"inf": 1, "2": 2}  # the norm dual to that of the perturbation


class LogitJacobians:
    r"""The Jacobians of the relative logits of n samples, and the curvature of their losses.

    Made by `hbanalysis.inputs.logit_jacobians`. Numbers a sample (eigenvalues, norms, distances) are float64; what has
    the shape of the inputs is in the model's dtype. Everything is on the model's device.

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
        left = left * self._signs(left, sizes, right)[:, None, :]
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
            rtol: ``None`` means the larger of c - 1 and 64 times the rounding unit of the model's dtype, and NumPy's
                rule, the larger of c - 1 and d times that of float64. Each row is right to some units whatever its
                length: dependent rows of float32 left 5 at most for 64 to 150,528 inputs. What follows is float64.
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
            NumericalError: A direction is too long for the model's dtype; ``normalized=True`` avoids that. Or it is
                lost, where R lacks rank and logits lie 1,400 apart.
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

    @cached_property
    def _solvable(self) -> SoftmaxCurvature:
        """The curvature with labels at most `_LEAD` behind, so that no square root of a probability underflows."""
        beyond = (self.relative.amax(1, keepdim=True) - _LEAD).clamp(min=0)
        return softmax_curvature(self.relative - beyond) if bool(beyond.any()) else self.softmax

    def _above(self, sizes: Tensor, rtol: float | None) -> Tensor:
        if rtol is None:
            count, numbers = self.rows.shape[1], self.rows[0, 0].numel()
            rows = max(count, _ROUNDING) * torch.finfo(self.rows.dtype).eps
            rtol = rows + max(count, numbers) * torch.finfo(torch.float64).eps
        return (sizes > rtol * sizes[:, :1]).sum(1)

    def _signs(self, left: Tensor, sizes: Tensor, right: Tensor) -> Tensor:
        r"""Return 1 or -1 for each singular vector :math:`u_i` of T C, so that the gradient has no negative part in it.

        The part is :math:`u_i^T T q` or, with the gradient h in the basis of the factor, :math:`\sigma_i v_i^T h`. The
        first is right to the rounding of T q, the second to that of :math:`\sigma_i h`; the smaller one decides.
        """
        curvature = self.softmax
        gradient = self._triangle @ self._weights[:, :, None]
        by_gradient = (left.mT @ gradient)[:, :, 0]
        by_factor = (right @ curvature.pulled[:, :, None])[:, :, 0]
        first = gradient.flatten(1).norm(dim=1).log() + curvature.log_q.amax(1)
        second = curvature.pulled.norm(dim=1).log() + curvature.scale / 2 + curvature.pulled_scale
        slopes = torch.where(sizes.log() + second[:, None] < first[:, None], by_factor, by_gradient)
        return torch.where(slopes < 0, -1.0, 1.0)

    def _damped(self, triangle: Tensor, damping: float) -> tuple[Tensor, Tensor]:
        r"""Coordinates of the damped direction in the basis Q, and the logarithm of their scale.

        .. math:: (T C C^T T^T + \mu I) \, w = T C h, \qquad \text{the least squares of} \quad
            \binom{C^T T^T}{\sqrt\mu \, I} \, w = \binom{h}{0}
        """
        curvature = self._solvable
        excess = torch.as_tensor(damping, dtype=torch.float64).log().to(triangle.device) - curvature.scale
        ridge = excess.clamp(max=_NO_CURVATURE)
        size = triangle.shape[1]
        identity = torch.eye(size, dtype=torch.float64, device=triangle.device)
        rows = torch.cat([(triangle @ curvature.factor).mT, (ridge / 2).exp()[:, None, None] * identity], 1)
        solved = _least_squares(rows, nn.functional.pad(curvature.pulled, (0, size)))
        return solved, curvature.pulled_scale - curvature.scale / 2 - (excess - ridge)

    def _undamped(self, triangle: Tensor, rtol: float | None) -> tuple[Tensor, Tensor]:
        """The same for the pseudo-inverse: R^+ 1 / p_y where R has full rank, else least squares weighted by A."""
        left, sizes, right = torch.linalg.svd(triangle, full_matrices=False)
        ranks = self._above(sizes, rtol)
        small, scale = torch.zeros_like(triangle[:, :, 0]), -self.softmax.log_p
        for rank in ranks.unique().tolist():
            if rank == 0:  # a gradient of 0
                continue
            which = (ranks == rank).nonzero().flatten()
            span = right[which, :rank].mT  # the columns span the range of R
            if rank == triangle.shape[2]:
                solved = span.sum(1)
            else:
                curvature = self._solvable
                solved = _least_squares(curvature.factor[which].mT @ span, curvature.pulled[which])
                scale[which] = (curvature.pulled_scale - curvature.scale / 2)[which]
            small[which] = (left[which, :, :rank] @ (solved / sizes[which, :rank])[:, :, None])[:, :, 0]
        return small, scale

    def _shaped(self, vectors: Tensor, scale: Tensor, normalized: bool, what: str) -> Tensor:
        """Return ``exp(scale) vectors`` or unit vectors, in the shape of the inputs."""
        largest = vectors.abs().amax(1)  # squares and the exponential then neither underflow nor overflow by themselves
        vectors = torch.where(largest[:, None] > 0, vectors / largest[:, None], 0.0)
        scale = scale + largest.log()
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


def _least_squares(rows: Tensor, right: Tensor) -> Tensor:
    """Return the w that bring ``rows w`` nearest to ``right``, ``(n, columns)``; rows may differ in size by any factor.

    Args:
        rows: ``(n, count, columns)`` of full column rank.
        right: ``(n, count)``.

    Raises:
        NumericalError: Rows that are needed have underflowed to 0.
    """
    # Householder QR respects rows of very different size only if the large ones come first.
    order = rows.norm(dim=2).argsort(dim=1, descending=True)
    rows = rows.gather(1, order[:, :, None].expand_as(rows))
    try:
        return torch.linalg.lstsq(rows, right.gather(1, order)[:, :, None], driver="gels").solution[:, :, 0]
    except torch.linalg.LinAlgError as error:
        raise NumericalError(
            "The curvatures of the logits span more than float64 holds, and their gradients are linearly dependent, so "
            "the Newton direction without damping is lost. Use a positive damping."
        ) from error


def check_norm(norm: str) -> int:
    """Return the order of the norm dual to ``"inf"`` or ``"2"``.

    Raises:
        InputError: Any other name.
    """
    if norm not in _NORMS:
        raise InputError(f"norm is 'inf' or '2'; given {norm!r}.")
    return _NORMS[norm]
