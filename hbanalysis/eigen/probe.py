r"""Is an eigenvalue missing? A random look at the complement of a subspace, with a stated failure probability.

A Krylov space holds one vector of each eigenspace, and may hardly touch an eigenvector that its start hardly touches.
So the complement of the space found is searched from a fresh random vector x: Lanczos on H restricted to it gives
polynomials with :math:`q_{t+1} = p_t(H_\perp) x` of norm one, hence :math:`1 \ge |u^T x|\,|p_t(\lambda)|` for its
largest eigenvalue :math:`\lambda` with eigenvector u. A random x has :math:`|u^T x| \ge c` except with a probability
that is known exactly; then :math:`\lambda` lies below the point where :math:`|p_t|` passes 1/c, and :math:`p_t` grows
fast beyond its zeros. Copies of a repeated eigenvalue are found like any other.

References:
    van Dorsselaer, Hochstenbach and van der Vorst, Computing probabilistic bounds for extreme eigenvalues of symmetric
    matrices with the Lanczos method, SIAM J. Matrix Anal. Appl. 22 (2000).
"""

import math

import numpy as np
from scipy.special import betaincinv

from hbanalysis.eigen.krylov import KrylovSpace


class Probe:
    """Lanczos from a random start in the complement of the accepted vectors of a space.

    Args:
        space: The space; its accepted vectors stay, its basis lends the room behind them.
        failure: Probability with which a bound may be wrong.
    """

    def __init__(self, space: KrylovSpace, failure: float) -> None:
        self._space = space
        self._first = space.size
        # Pending directions wait behind the room that the probe uses: they belong to the complement too.
        self._pending = [space.basis.column(space.size + j).clone() for j in range(space.pending)]
        space.basis.size = space.size
        space.basis.append(space.basis.random(space.generator))
        dimension = space.n - space.size
        square = betaincinv(0.5, (dimension - 1) / 2, failure) if dimension > 1 else 1.0
        self._limit = -0.5 * math.log(max(float(square), np.finfo(float).tiny))
        self._alphas: list[float] = []
        self._betas: list[float] = []
        self.products = 0
        self.done = False

    def step(self) -> None:
        """Take one product."""
        space, basis = self._space, self._space.basis
        column = self._first + self.products
        w = (space.operator @ basis.column(column)).double()
        space.steps += 1
        self.products += 1
        coefficients, beta = space.orthogonalise(w)
        self._alphas.append(float(coefficients[-1]))
        scale = max(map(abs, [*self._alphas, *self._betas, np.finfo(float).tiny]))
        self.done = beta <= 10 * space.eps * scale or self._first + self.products == space.n
        self._betas.append(0.0 if self.done else beta)
        if not self.done:
            basis.extend(beta, space.generator)

    def ritz(self) -> np.ndarray:
        """Return the Ritz values of the complement, ascending."""
        return np.linalg.eigvalsh(self._matrix())

    def range(self) -> tuple[float, float]:
        """Return the smallest and the largest Ritz value: the complement's spectrum reaches at least so far."""
        theta = self.ritz()
        return float(theta[0]), float(theta[-1])

    def rest(self) -> tuple[float, float]:
        """Return bounds ``(low, high)`` on the complement's eigenvalues, each valid but for ``failure``."""
        theta = self.ritz()
        if self._betas[-1] == 0.0:  # an invariant space: nothing random remains to be bounded beyond it
            return float(theta[0]), float(theta[-1])
        spread = max(theta[-1] - theta[0], abs(theta[0]), abs(theta[-1]), self._betas[-1])
        return self._edge(float(theta[0]), -spread), self._edge(float(theta[-1]), spread)

    def adopt(self) -> None:
        """Let the space accept the probe's vectors: no product is wasted."""
        self._space.adopt(self._matrix(), self._betas[-1], self._pending)

    def close(self) -> None:
        """Give the room back to the space's pending directions."""
        basis = self._space.basis
        basis.size = self._first
        for vector in self._pending:
            basis.replace(basis.size, vector[:, None])

    def _matrix(self) -> np.ndarray:
        off = self._betas[: self.products - 1]
        return np.diag(self._alphas) + np.diag(off, 1) + np.diag(off, -1)

    def _edge(self, start: float, spread: float) -> float:
        """Return the point beyond ``start`` (on the side of ``spread``) where log |p_t| passes the limit."""
        near, far = 0.0, 1.0
        while self._log_polynomial(start + far * spread) < self._limit:
            near, far = far, 2 * far
            if far > 1e12:
                return math.copysign(math.inf, spread)
        for _ in range(60):
            middle = (near + far) / 2
            if self._log_polynomial(start + middle * spread) < self._limit:
                near = middle
            else:
                far = middle
        return start + far * spread

    def _log_polynomial(self, x: float) -> float:
        """Return log |p_t(x)| by the three-term recurrence, rescaled as it goes."""
        previous, current, shift, last = 0.0, 1.0, 0.0, 0.0
        for alpha, beta in zip(self._alphas, self._betas, strict=True):
            previous, current, last = current, ((x - alpha) * current - last * previous) / beta, beta
            size = max(abs(current), abs(previous))
            previous, current, shift = previous / size, current / size, shift + math.log(size)
        return shift + math.log(max(abs(current), np.finfo(float).tiny))
