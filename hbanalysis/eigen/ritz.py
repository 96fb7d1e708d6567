r"""What a subspace says about eigenvalues: which Ritz values are wanted, and how far each can be from the truth.

With an orthonormal basis V, :math:`M = V^T H V` and the residual :math:`R = HV - VM`, the eigenvalues of H above the
largest eigenvalue :math:`\nu` of the rest (H restricted to the complement of V) are pinned index by index:

.. math:: \theta_j \;\le\; \lambda_j \;\le\; \lambda_j\!\Bigl(M + \tfrac{1}{\theta_j - \nu} R^T R\Bigr)

The left side is the minimax principle. For the right side eliminate the complement: an eigenvalue :math:`\lambda > \nu`
of H is one of :math:`M + R^T(\lambda - N)^{-1}R`, and :math:`(\lambda - N)^{-1} \preceq (\theta_j - \nu)^{-1}`. The
distance to *neighbours inside V* does not enter, only that to the complement, so clusters cost nothing.

References:
    Mathias, Quadratic residual bounds for the Hermitian eigenvalue problem, SIAM J. Matrix Anal. Appl. 19 (1998);
    Li and Li, A note on eigenvalues of perturbed Hermitian matrices, Linear Algebra Appl. 395 (2005).
"""

from dataclasses import dataclass

import numpy as np

from hbanalysis.errors import InputError, unknown_name

WHICH = ("LA", "SA", "LM", "BE")
RESOLUTION = 1e-3  # of a value: residuals allowed where nothing but them tells close neighbours apart
CLUSTER = 4  # neighbouring Ritz values taken together at most


@dataclass(frozen=True)
class Wanted:
    """The eigenvalues asked for: how many, at which end, how exact."""

    k: int
    which: str
    tol: float

    def check(self, n: int) -> None:
        """Raise InputError unless k, which and tol make sense for an operator of size ``n``."""
        if self.which not in WHICH:
            raise unknown_name("end of the spectrum which=", self.which, WHICH)
        if isinstance(self.k, bool) or not isinstance(self.k, int) or not 1 <= self.k <= n:
            raise InputError(f"k must be a whole number in 1..{n} (the size of the operator); given {self.k!r}.")
        if not 0 < self.tol < 1:
            raise InputError(f"tol is a relative error between 0 and 1; given {self.tol}.")

    def choose(self, theta: np.ndarray, k: int | None = None) -> np.ndarray:
        """Return the indices of the wanted among the ascending ``theta``, in the order in which they are reported."""
        k = min(self.k if k is None else k, len(theta))
        if self.which == "BE":
            top = np.arange(len(theta))[::-1][: (k + 1) // 2]
            bottom = np.arange(len(theta))[: k - len(top)]
            return np.concatenate([top, bottom[::-1]])
        keys = {"LA": -theta, "SA": theta, "LM": -np.abs(theta)}
        return np.argsort(keys[self.which], kind="stable")[:k]

    def ends(self, theta: np.ndarray) -> tuple[int, int]:
        """Return how many of the wanted are counted from the bottom and from the top of ``theta``."""
        chosen = self.choose(theta)
        if self.which in ("LA", "SA"):
            return (0, len(chosen)) if self.which == "LA" else (len(chosen), 0)
        if self.which == "BE":
            return len(chosen) - (self.k + 1) // 2, (self.k + 1) // 2
        below = int((theta[chosen] < 0).sum())
        return below, len(chosen) - below


@dataclass(frozen=True)
class Ritz:
    """Ritz values of a subspace with their vectors in its basis and their residuals.

    Attributes:
        theta: ``(m,)`` ascending.
        Y: ``(m, m)`` vectors in the basis.
        G: ``(m, r)`` residual of each Ritz vector as coefficients on orthonormal directions outside the space.
        eps: Rounding unit of the operator.
    """

    theta: np.ndarray
    Y: np.ndarray
    G: np.ndarray
    eps: float

    @property
    def residuals(self) -> np.ndarray:
        """Norms of the residuals, ``(m,)``."""
        return np.sqrt((self.G**2).sum(1))

    @property
    def scale(self) -> float:
        """The largest modulus."""
        return float(np.abs(self.theta).max())

    def allowed(self, wanted: Wanted) -> np.ndarray:
        """Return the error allowed for every Ritz value: relative, but not below rounding."""
        floor = max(20 * self.eps * self.scale, np.finfo(float).tiny)
        return np.maximum(wanted.tol * np.abs(self.theta), floor)

    def bounds(self, wanted: Wanted, rest: tuple[float, float] | None = None) -> np.ndarray:
        """Return the error bound of every wanted value, in the order of `Wanted.choose`.

        Args:
            wanted: What is asked for.
            rest: Bounds ``(low, high)`` on the eigenvalues of the complement of the whole space. Then each bound pins
                the eigenvalue of its index; inf where the rest reaches beyond the value. Without them the bounds of
                `_local_bounds`, which are conditional on the gaps being as the Ritz values show them.
        """
        if rest is None:
            return _local_bounds(self.theta, self.G)[wanted.choose(self.theta)]
        errors = np.zeros(len(self.theta))
        below, above = wanted.ends(self.theta)
        m = len(self.theta)
        errors[::-1][:above] = _shifts(self.theta[::-1], self.G[::-1], above, m, rest[1])
        errors[:below] = _shifts(-self.theta, self.G, below, m, -rest[0])
        return errors[wanted.choose(self.theta)]

    def unresolved(self, wanted: Wanted) -> float:
        """Return the largest residual among the wanted relative to what resolves close neighbours.

        Two eigenvalues closer than the residual look like one, and then every gap looks wide. Without a look at the
        complement the residuals themselves must come down, to 10 ``tol`` or `RESOLUTION` of the value.
        """
        if len(self.theta) < wanted.k:
            return np.inf
        coarse = Wanted(wanted.k, wanted.which, min(10 * wanted.tol, RESOLUTION))
        chosen = wanted.choose(self.theta)
        return float((self.residuals[chosen] / self.allowed(coarse)[chosen]).max())

    def only(self, indices: np.ndarray) -> "Ritz":
        """Return the Ritz vectors ``indices`` as a space of their own."""
        chosen = np.sort(indices)
        return Ritz(self.theta[chosen], self.Y[:, chosen], self.G[chosen], self.eps)

    def without(self, kept: np.ndarray, rest: tuple[float, float] | None) -> tuple[float, float]:
        """Return bounds on the operator's eigenvalues on the complement of the Ritz vectors ``kept``.

        That complement holds the other Ritz vectors and what lies outside of the space, whose eigenvalues ``rest``
        bounds; the residuals couple the two. Without ``rest`` the other Ritz values widened by their residuals are
        returned, which is an estimate.
        """
        others = np.setdiff1d(np.arange(len(self.theta)), kept)
        theta, G = self.theta[others], self.G[others]
        if rest is None:
            r = self.residuals[others]
            return (float((theta - r).min()), float((theta + r).max())) if others.size else (0.0, 0.0)
        return -_coupled(-theta, G, -rest[0]), _coupled(theta, G, rest[1])

    def settled(self, wanted: Wanted, rest: tuple[float, float]) -> bool:
        """Return whether ``rest`` proves every wanted value to be the one of its index, within its tolerance."""
        allowed = self.allowed(wanted)
        below, above = wanted.ends(self.theta)
        high, low = self.theta + allowed, self.theta - allowed
        # The innermost values first: they are the hardest, and each costs the eigenvalues of a matrix.
        top = all(self._beyond(high[-1 - j], rest[1], 1) <= j for j in reversed(range(above)))
        bottom = top and all(self._beyond(-low[j], -rest[0], -1) <= j for j in reversed(range(below)))
        if not (top and bottom) or wanted.which != "LM":
            return top and bottom
        # The largest by modulus: neither end may hold one more beyond the smallest modulus that was found.
        last = wanted.choose(self.theta)[-1]
        edge = abs(self.theta[last]) + allowed[last]
        return self._beyond(edge, rest[1], 1) <= above and self._beyond(edge, -rest[0], -1) <= below

    def _beyond(self, edge: float, nu: float, sign: int) -> int:
        """Return a bound on the number of eigenvalues of ``sign * H`` above ``edge``, ``nu`` bounding the rest."""
        if edge <= nu:
            return len(self.theta) + 1
        shifted = np.diag(sign * self.theta) + self.G @ self.G.T / (edge - nu)
        return int((np.linalg.eigvalsh(shifted) > edge).sum())

    def worst(self, wanted: Wanted) -> float:
        """Return the largest error bound among the wanted relative to what is allowed; inf while values are missing."""
        if len(self.theta) < wanted.k:
            return np.inf
        chosen = wanted.choose(self.theta)
        return max(float((self.bounds(wanted) / self.allowed(wanted)[chosen]).max()), self.unresolved(wanted))


def _local_bounds(theta: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Return for each of the ascending ``theta`` the best of its residual r and rho^2 / gap over clusters that hold it.

    A cluster of neighbouring Ritz values with joint residual rho and gap delta to the rest of the spectrum has its
    values within rho^2 / delta (Parlett, theorem 11.7.1). The rest is taken as the other Ritz values widened by their
    residuals.
    """
    r = np.sqrt((G**2).sum(1))
    size, best = len(theta), r.copy()
    below = np.concatenate([[-np.inf], np.maximum.accumulate(theta + r)[:-1]])
    above = np.concatenate([np.minimum.accumulate((theta - r)[::-1])[::-1][1:], [np.inf]])
    for first in range(size):
        for last in range(first, min(size, first + CLUSTER)):
            delta = min(theta[first] - below[first], above[last] - theta[last])
            rho2 = float((r[first : last + 1] ** 2).sum())
            if 0 < delta < np.inf and rho2 < delta * delta:
                inside = slice(first, last + 1)
                best[inside] = np.minimum(best[inside], rho2 / delta)
    return best


def _shifts(theta: np.ndarray, G: np.ndarray, count: int, block: int, nu: float) -> np.ndarray:
    """Return ``lambda_j(diag(theta) + G G' / (theta_j - nu)) - theta_j`` over the leading ``block``, for each j."""
    out = np.full(count, np.inf)
    gram = G[:block] @ G[:block].T
    for j in range(count):
        if theta[j] > nu:
            shifted = np.linalg.eigvalsh(np.diag(theta[:block]) + gram / (theta[j] - nu))[::-1]
            out[j] = max(shifted[j] - theta[j], 0.0)
    return out


def _coupled(theta: np.ndarray, G: np.ndarray, nu: float) -> float:
    """Return a bound on the largest eigenvalue of ``[[diag(theta), G], [G', N]]`` with ``N`` at most ``nu``."""
    if not theta.size:
        return nu
    gram = G @ G.T
    near, far = 0.0, 1.0
    unit = max(float(np.sqrt(np.trace(gram))), abs(nu), float(np.abs(theta).max()), np.finfo(float).tiny)

    def exceeds(step: float) -> bool:
        edge = nu + step * unit
        return bool(np.linalg.eigvalsh(np.diag(theta) + gram / (step * unit))[-1] > edge)

    while exceeds(far):
        near, far = far, 2 * far
    for _ in range(40):
        middle = (near + far) / 2
        near, far = (middle, far) if exceeds(middle) else (near, middle)
    return nu + far * unit
