"""Extreme eigenpairs of a symmetric operator, with error bounds: Lanczos, and the paper's power iteration.

Choose `eigsh` unless you want to show what power iteration does: it uses every product that it has taken, where
power iteration forgets all but the last, and it knows how wrong it is.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hbanalysis.basis import Basis
from hbanalysis.errors import ConvergenceWarning, InputError, NumericalError, unknown_name
from hbanalysis.operators import SymmetricOperator
from hbanalysis.parameters import ParameterSpace

Show = Callable[[int, float], None]
AFTER_BREAKDOWN = 8  # steps that a fresh random direction gets to show what the exhausted space did not hold
# A gap bound speaks of the eigenvalues that the Ritz values resolve; two closer than the residual look like one. So the
# residuals themselves must come down to 10 tol, or to this share of the value if that is smaller.
RESOLUTION = 1e-3
WHICH = ("LA", "SA", "LM", "BE")


@dataclass(frozen=True)
class Eigenpairs:
    """Eigenpairs as far as they were found, with what is known about their errors.

    Attributes:
        values: ``(k,)`` float64, in the order that ``which`` asks for.
        vectors: ``(n, k)``, unit columns; column i belongs to ``values[i]``.
        residuals: ``(k,)`` norms of ``H v - value v``. An eigenvalue lies within ``residuals[i]`` of ``values[i]``,
            whatever the rest of the spectrum is (up to the rounding of the products themselves).
        bounds: ``(k,)`` the smaller of the residual and its gap-sharpened square (Kato and Temple); the sharpening is
            conditional on no other eigenvalue hiding in the gap.
        products: Columns multiplied by the operator.
        converged: Every bound is within the tolerance.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    bounds: Tensor
    products: int
    converged: bool
    space: ParameterSpace | None = None

    def vector(self, index: int) -> dict[str, Tensor]:
        """Return eigenvector ``index`` as one tensor a parameter, by name.

        Raises:
            InputError: The operator has no named parameters.
        """
        if self.space is None:
            raise InputError("This operator has no named parameters; use vectors[:, index].")
        return dict(zip(self.space.names, self.space.split(self.vectors[:, index]), strict=True))


def eigsh(
    operator: SymmetricOperator | Tensor,
    k: int = 6,
    *,
    which: str = "LA",
    tol: float = 1e-4,
    v0: Tensor | None = None,
    subspace: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
    show: Show | None = None,
) -> Eigenpairs:
    r"""Return k extreme eigenpairs by Lanczos with thick restart and two-pass reorthogonalisation.

    The stop rule is a bound on each value's error, not the change between iterations: with the Ritz pair
    :math:`(\theta, v)` and residual :math:`r = \|Hv - \theta v\|` an eigenvalue lies within r of :math:`\theta`, and
    within :math:`r^2 / \text{gap}` when the gap to the rest of the spectrum is as the Ritz values show it. Each value
    must meet ``tol`` by the better of the two, and r must be below 10 ``tol`` and 1e-3 (relative) as well.

    What is not proved is that no eigenvalue was skipped: a start vector that hardly contains an eigenvector may miss it
    for a while, and one vector of each eigenspace is all that a Krylov space from one start vector holds, so an exactly
    repeated eigenvalue may be counted once.

    Args:
        operator: Anything with ``shape``, ``dtype``, ``device`` and ``@``; a symmetric tensor also works.
        k: How many, 1 <= k <= n.
        which: ``LA`` largest (descending), ``SA`` smallest (ascending), ``LM`` largest modulus (descending by modulus,
            sign kept), ``BE`` half from each end, descending.
        tol: Error allowed relative to each ``|value|``, with floor ``20 eps max|value|``.
        v0: Start vector ``(n,)``; the default is random from ``seed``, the same on every device.
        subspace: Basis vectors held at most, default ``max(2 k + 20, 60)``.
        max_products: Stop after this many products, default ``100 k + 500``.
        seed: Seed of the start vector.
        show: Called after each product with the number of products and the worst error relative to its tolerance;
            an exception raised there ends the run.

    Cost: ``products`` says how many it took, a few times k on trained networks; memory ``subspace`` vectors.

    Raises:
        InputError: k out of range, unknown ``which``, an asymmetric tensor, a zero or mismatched ``v0``.
        NumericalError: A product is not finite.

    Warns:
        ConvergenceWarning: The limit was reached first; what was found is returned with ``converged=False``.

    References:
        Wu and Simon, Thick-restart Lanczos method, SIAM J. Matrix Anal. Appl. 22 (2000); Parlett, The Symmetric
        Eigenvalue Problem, chapters 10 to 13.

    Example:
        >>> pairs = eigsh(torch.diag(torch.arange(100.0)), k=3)
        >>> [round(x, 2) for x in pairs.values.tolist()], pairs.converged
        ([99.0, 98.0, 97.0], True)
    """
    H = _operator(operator)
    n = H.shape[0]
    _check(n, k, which, tol)
    width = min(n, subspace or max(2 * k + 20, 60))
    if width < min(n, k + 2):
        raise InputError(f"subspace={width} is too small for k={k}; use at least {min(n, k + 2)}.")
    limit = max_products or 100 * k + 500
    resolution = min(10 * tol, RESOLUTION)
    basis = Basis(n, width, H.dtype, H.device)
    generator = torch.Generator().manual_seed(seed)
    basis.start(_start_vector(v0, n, generator))
    T = np.zeros((width, width))
    products, size, fresh = 0, 0, -AFTER_BREAKDOWN
    while True:
        w = (H @ basis.column(size)).double()
        products += 1
        if not bool(torch.isfinite(w).all()):
            raise NumericalError(f"Product {products} of the Lanczos run is not finite.")
        coefficients, beta = basis.orthogonalise(w, size + 1)
        T[: size + 1, size] = T[size, : size + 1] = coefficients
        size += 1
        theta, Y = np.linalg.eigh(T[:size, :size])
        scale = float(np.abs(theta).max())
        if beta <= 10 * torch.finfo(H.dtype).eps * scale:
            beta = 0.0
        ritz = _Ritz(theta, beta * np.abs(Y[size - 1]))
        chosen = _choose(theta, k, which)
        size_of = np.abs(theta[chosen])
        floor = max(20 * torch.finfo(H.dtype).eps * scale, np.finfo(float).tiny)
        bounds = ritz.bounds(chosen)
        worst = max(_worst(bounds, tol * size_of, floor), _worst(ritz.residuals[chosen], resolution * size_of, floor))
        if show is not None:
            show(products, worst if len(chosen) == k else math.inf)
        fresh = size if beta == 0.0 else fresh
        done = len(chosen) == k and worst <= 1.0 and size - fresh >= AFTER_BREAKDOWN
        if done or size == n or products >= limit:
            break
        if size < width:
            basis.extend(beta, generator)
            continue
        keep = _kept(theta, k, which, width)
        coupling = beta * Y[size - 1, keep]
        basis.restart(Y[:, keep], beta, generator)
        fresh = min(fresh, -AFTER_BREAKDOWN + len(keep))
        size = len(keep)
        T[:] = 0.0
        T[np.arange(size), np.arange(size)] = theta[keep]
        T[size, :size] = T[:size, size] = coupling
    converged = len(chosen) == k and worst <= 1.0
    if not converged:
        warnings.warn(
            f"eigsh stopped after {products} products with the worst error bound {worst:.3g} times its tolerance. "
            "Raise max_products or subspace, or loosen tol.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return Eigenpairs(
        values=torch.from_numpy(theta[chosen].copy()),
        vectors=basis.combine(Y[:, chosen]),
        residuals=torch.from_numpy(ritz.residuals[chosen].copy()),
        bounds=torch.from_numpy(bounds),
        products=products,
        converged=converged,
        space=getattr(operator, "space", None),
    )


def power_iteration(
    operator: SymmetricOperator | Tensor,
    k: int = 1,
    *,
    tol: float = 1e-4,
    max_products: int = 10_000,
    seed: int = 0,
) -> Eigenpairs:
    """Return k eigenpairs by deflated power iteration, as the paper does (section 2): for comparison.

    Each vector is iterated on the complement of those found before until the relative change of its Rayleigh quotient
    falls below ``tol``. A small change is no bound: neighbours whose moduli differ by less than the change per step
    are mixed or skipped. ``bounds`` and ``converged`` say what the residuals prove.

    Raises:
        InputError: k out of range.

    Example:
        >>> power_iteration(torch.diag(torch.tensor([1.0, -4.0, 2.0]))).values.round(decimals=3)
        tensor([-4.], dtype=torch.float64)
    """
    H = _operator(operator)
    n = H.shape[0]
    _check(n, k, "LM", tol)
    basis = Basis(n, k + 1, H.dtype, H.device)
    generator = torch.Generator().manual_seed(seed)
    values, residuals, products = [], [], 0
    for found in range(k):
        basis.replace(found, torch.randn(n, generator=generator, dtype=torch.float64))
        value = math.nan
        while True:
            v = basis.column(found)
            w = (H @ v).double()
            products += 1
            previous, value = value, float(v.double() @ w)
            residual = float((w - value * v.double()).square().sum().sqrt())
            settled = abs(value - previous) <= tol * max(abs(value), np.finfo(float).tiny)
            if settled or residual == 0.0 or products >= max_products:
                break
            basis.replace(found, w)
        values.append(value)
        residuals.append(residual)
    r = torch.tensor(residuals, dtype=torch.float64)
    exact = torch.tensor(values, dtype=torch.float64)
    return Eigenpairs(
        values=exact,
        vectors=basis.leading(k),
        residuals=r,
        bounds=r,
        products=products,
        converged=bool((r <= tol * exact.abs()).all()),
        space=getattr(operator, "space", None),
    )


class _Ritz:
    """Ritz values with residual norms; the residual vectors are all parallel to the next basis vector."""

    def __init__(self, theta: np.ndarray, residuals: np.ndarray) -> None:
        self.theta, self.residuals = theta, residuals

    def bounds(self, chosen: np.ndarray) -> np.ndarray:
        """Return for each chosen value the best of r and rho^2 / gap over the clusters that hold it.

        A cluster of neighbouring Ritz values with joint residual rho and gap delta to the rest of the spectrum has its
        values within rho^2 / delta (Parlett, theorem 11.7.1). The rest is taken as the other Ritz values widened by
        their residuals.
        """
        theta, r = self.theta, self.residuals
        size = len(theta)
        best = r.copy()
        low, high = theta - r, theta + r
        below = np.concatenate([[-np.inf], np.maximum.accumulate(high)[:-1]])
        above = np.concatenate([np.minimum.accumulate(low[::-1])[::-1][1:], [np.inf]])
        for first in range(size):
            for last in range(first, min(size, first + 4)):
                delta = min(theta[first] - below[first], above[last] - theta[last])
                rho2 = float((r[first : last + 1] ** 2).sum())
                if 0 < delta < np.inf and rho2 < delta * delta:
                    inside = slice(first, last + 1)
                    best[inside] = np.minimum(best[inside], rho2 / delta)
        return best[chosen]


class _Dense:
    """A symmetric tensor behind the operator protocol."""

    def __init__(self, matrix: Tensor) -> None:
        scale = matrix.abs().max()
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"A square matrix is needed; given shape {tuple(matrix.shape)}.")
        if (matrix - matrix.T).abs().max() > 100 * torch.finfo(matrix.dtype).eps * scale:
            raise InputError("The matrix is not symmetric (to rounding); use (A + A.T) / 2 if that is meant.")
        self.matrix, self.dtype, self.device = matrix, matrix.dtype, matrix.device
        self.shape = (matrix.shape[0], matrix.shape[1])

    def __matmul__(self, other: Tensor) -> Tensor:
        return self.matrix @ other


def _operator(operator: SymmetricOperator | Tensor) -> SymmetricOperator:
    return _Dense(operator) if isinstance(operator, Tensor) else operator


def _check(n: int, k: int, which: str, tol: float) -> None:
    if which not in WHICH:
        raise unknown_name("end of the spectrum which=", which, WHICH)
    if not 1 <= k <= n:
        raise InputError(f"k must lie in 1..{n} (the size of the operator); given {k}.")
    if not 0 < tol < 1:
        raise InputError(f"tol is a relative error between 0 and 1; given {tol}.")


def _worst(errors: np.ndarray, allowed: np.ndarray, floor: float) -> float:
    return float((errors / np.maximum(allowed, floor)).max())


def _start_vector(v0: Tensor | None, n: int, generator: torch.Generator) -> Tensor:
    if v0 is None:
        return torch.randn(n, generator=generator, dtype=torch.float64)
    if v0.shape != (n,) or not bool(v0.any()):
        raise InputError(f"v0 must be a non-zero vector of shape ({n},); given {tuple(v0.shape)}.")
    return v0


def _order(theta: np.ndarray, which: str) -> np.ndarray:
    keys = {"LA": -theta, "SA": theta, "LM": -np.abs(theta)}
    return np.argsort(keys[which], kind="stable")


def _choose(theta: np.ndarray, k: int, which: str) -> np.ndarray:
    if which != "BE":
        return _order(theta, which)[:k]
    high = (k + 1) // 2
    top, bottom = _order(theta, "LA")[:high], _order(theta, "SA")[: k - high]
    if len(theta) < k:
        return _order(theta, "LA")
    return np.concatenate([top, bottom[::-1]])


def _kept(theta: np.ndarray, k: int, which: str, width: int) -> np.ndarray:
    """The Ritz vectors that survive a restart: the wanted ones and half of the remaining room."""
    return np.sort(_choose(theta, min(k + (width - k) // 2, width - 1), which))
