r"""A growing subspace with its Rayleigh quotient: band Lanczos with thick restart.

The state is :math:`HV = VM + PF^T`: accepted vectors V, whose products are known, and orthonormal pending directions P
that carry the residual. A step multiplies one pending direction and accepts it; what its product holds beyond V and P
becomes a new pending direction. With one pending direction this is Lanczos, with b of them band Lanczos.

References:
    Wu and Simon, Thick-restart Lanczos method, SIAM J. Matrix Anal. Appl. 22 (2000); Ruhe, Implementation aspects of
    band Lanczos algorithms, Math. Comp. 33 (1979); Parlett, The Symmetric Eigenvalue Problem, chapters 10 to 13.
"""

import numpy as np
import torch
from torch import Tensor

from hbanalysis import distributed
from hbanalysis.eigen.basis import Basis
from hbanalysis.eigen.ritz import Ritz
from hbanalysis.errors import NumericalError
from hbanalysis.operators import SymmetricOperator

PROBE_ROOM = 25  # vectors that a look at the complement may take behind the accepted ones


class KrylovSpace:
    """Accepted and pending directions of an operator.

    Args:
        operator: The operator; it may be exchanged for a larger one with `absorb`.
        width: Accepted vectors held at most.
        spare: Pending directions held at most.
        seed: Seed of random directions.

    Attributes:
        size: Accepted vectors.
        steps: Products taken.
        restarts: How often vectors were forgotten.
        shared: Whether several processes share the operator's samples; then they take the same decisions.
        asymmetry: Largest deviation from symmetry that the products showed: the rounding of the operator.
    """

    def __init__(self, operator: SymmetricOperator, width: int, spare: int, seed: int) -> None:
        n = operator.shape[0]
        self.operator = operator
        self.n = n
        self.width = min(width, n)
        self.spare = spare
        self.basis = Basis(n, self.width + PROBE_ROOM + spare, operator.dtype, operator.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.eps = torch.finfo(operator.dtype).eps
        self.shared = getattr(operator, "shared", False)
        self.size = self.steps = self.restarts = 0
        self.asymmetry = 0.0
        self._M = np.zeros((0, 0))
        self._F = np.zeros((0, 0))

    @property
    def pending(self) -> int:
        """Directions whose product is not known yet."""
        return self._F.shape[1]

    @property
    def exhausted(self) -> bool:
        """Whether the accepted vectors span everything."""
        return self.size == self.n

    def push(self, vector: Tensor | None = None) -> None:
        """Add a direction (random if None) to the pending ones."""
        self.basis.size = self.size + self.pending
        self.basis.append(self.basis.random(self.generator) if vector is None else vector)
        self._F = np.hstack([self._F, np.zeros((self.size, 1))])

    def step(self) -> None:
        """Multiply the first pending direction and accept it.

        Raises:
            NumericalError: The product is not finite.
        """
        m, others = self.size, self.pending - 1
        self.basis.size = m + self.pending
        w = (self.operator @ self.basis.column(m)).double()
        self.steps += 1
        if not bool(torch.isfinite(w).all()):
            raise NumericalError(f"Product {self.steps} is not finite; check the operator.")
        coefficients, beta = self.orthogonalise(w)
        self.asymmetry = max(self.asymmetry, float(np.linalg.norm(coefficients[:m] - self._F[:, 0])))
        M = np.zeros((m + 1, m + 1))
        M[:m, :m] = self._M
        M[: m + 1, m] = M[m, : m + 1] = coefficients[: m + 1]
        self._M = M
        self._F = np.vstack([self._F[:, 1:], coefficients[None, m + 1 : m + 1 + others]])
        self.size = m + 1
        scale = float(np.abs(np.linalg.eigvalsh(M)[[0, -1]]).max())
        if beta > 10 * self.eps * scale and self.size + others < self.n:
            self._grow(beta)

    def orthogonalise(self, w: Tensor) -> tuple[np.ndarray, float]:
        """Return what `Basis.orthogonalise` does, the same in every process that shares the operator's samples."""
        coefficients, beta = self.basis.orthogonalise(w)
        if self.shared:
            both = self._from_first(np.append(coefficients, beta))
            coefficients, beta = both[:-1], float(both[-1])
        return coefficients, beta

    def agree(self, flag: bool) -> bool:
        """Return the first process's decision where several share the operator's samples."""
        return distributed.agree(flag) if self.shared else flag

    def absorb(self, operator: SymmetricOperator, products: Tensor) -> None:
        """Exchange the operator for ``operator``, the old one plus a part whose products with V are ``products``."""
        self.operator = operator
        products = products.double()
        for j in range(self.size):
            self.basis.size = self.size + self.pending
            coefficients, beta = self.orthogonalise(products[:, j])
            self._M[:, j] += coefficients[: self.size]
            self._F[j] += coefficients[self.size :]
            if beta > 10 * self.eps * float(np.abs(self._M).max()):
                self._grow(beta, j)
        self._M = (self._M + self._M.T) / 2

    def adopt(self, T: np.ndarray, beta: float, pending: list[Tensor]) -> None:
        """Accept the vectors of a Lanczos run in the complement, which stand in the basis behind the accepted ones.

        Args:
            T: Their tridiagonal matrix ``(t, t)``.
            beta: Norm of what their last product left; its direction stands behind them unless it is 0.
            pending: The pending directions, which may overlap with them.
        """
        m, t, r = self.size, T.shape[0], self.pending
        old, more = self._F, int(beta > 0)
        F = np.zeros((m + t, more))
        if more:
            F[-1, 0] = beta
        M = np.zeros((m + t, m + t))
        M[:m, :m], M[m:, m:] = self._M, T
        self.basis.size = m + t + more
        for i in range(r):
            coefficients, left = self.basis.orthogonalise(pending[i].double())
            M[:m, m:] += np.outer(old[:, i], coefficients[m : m + t])
            F[:m] += np.outer(old[:, i], coefficients[m + t :])
            if left > 10 * self.eps:
                self.basis.extend(left, self.generator)
                F = np.hstack([F, np.concatenate([left * old[:, i], np.zeros(t)])[:, None]])
        M[m:, :m] = M[:m, m:].T
        self.size, self._M, self._F = m + t, M, F

    def focus(self, weights: np.ndarray, ritz: Ritz) -> np.ndarray:
        """Turn the pending directions so that the first carry most of the residuals scaled by ``weights``.

        Returns the weighted size of each direction, descending: how much of the (scaled) residual goes away with it.
        """
        _, sizes, right = np.linalg.svd(weights[:, None] * ritz.G, full_matrices=True)
        self._rotate(right.T)
        return np.concatenate([sizes, np.zeros(self.pending - len(sizes))])

    def drift(self, anchor: int, ritz: Ritz, block: np.ndarray) -> float:
        """Return by how much bounds on the complement of the first ``anchor`` columns V must be widened.

        The widened bounds hold on the complement of the Ritz vectors ``block``. A unit vector there is a + b with b in
        V, and :math:`x^T H x = a^T H a + 2 a^T H b + b^T H b`, whose last two terms are small if the Ritz vectors are
        V but for a small turn.
        """
        others = np.setdiff1d(np.arange(self.size), block)
        turned = ritz.Y[:anchor, others]
        if not turned.size:
            return 0.0
        coupling = np.vstack([self._M[anchor:, :anchor], self._F[:anchor].T])
        inside = turned.T @ self._M[:anchor, :anchor] @ turned
        return float(2 * np.linalg.norm(coupling @ turned, 2) + np.linalg.norm(inside, 2))

    def ritz(self) -> Ritz:
        """Return the Ritz values, vectors and residuals of the accepted space."""
        theta, Y = np.linalg.eigh(self._M)
        if self.shared:
            both = self._from_first(np.vstack([theta, Y]))
            theta, Y = both[0], both[1:]
        return Ritz(theta, Y, Y.T @ self._F, self.eps)

    def restart(self, ritz: Ritz, keep: np.ndarray) -> None:
        """Keep the Ritz vectors ``keep`` and the pending directions; forget the rest of the accepted space."""
        kept = np.sort(keep)
        vectors = self.basis.combine(ritz.Y[:, kept])
        self.basis.move(self.size, self.pending, len(kept))
        end = self.basis.size
        self.basis.replace(0, vectors)
        self.basis.size = end
        self.size = len(kept)
        self.restarts += 1
        self._M = np.diag(ritz.theta[kept])
        self._F = ritz.G[kept]

    def vectors(self, ritz: Ritz, chosen: np.ndarray) -> Tensor:
        """Return Ritz vectors as columns ``(n, b)``."""
        return self.basis.combine(ritz.Y[:, chosen])

    def state(self) -> dict[str, Tensor]:
        """Return everything that `load` needs to go on."""
        columns = [self.basis.column(j) for j in range(self.size + self.pending)]
        return {
            "columns": torch.stack(columns),
            "M": torch.from_numpy(self._M.copy()),
            "F": torch.from_numpy(np.ascontiguousarray(self._F)),
            "steps": torch.tensor(self.steps),
            "asymmetry": torch.tensor(self.asymmetry, dtype=torch.float64),
            "generator": self.generator.get_state(),
        }

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`."""
        self._M, self._F = state["M"].numpy().copy(), state["F"].numpy().copy()
        self.size, self.steps = self._M.shape[0], int(state["steps"])
        self.asymmetry = float(state["asymmetry"])
        self.basis.replace(0, state["columns"].T.to(self.operator.device))
        self.generator.set_state(state["generator"])

    def _from_first(self, values: np.ndarray) -> np.ndarray:
        return distributed.broadcast(torch.from_numpy(np.ascontiguousarray(values, dtype=float))).numpy()

    def _grow(self, beta: float, row: int = -1) -> None:
        self.basis.extend(beta, self.generator)
        column = np.zeros((self._F.shape[0], 1))
        column[row] = beta
        self._F = np.hstack([self._F, column])

    def _rotate(self, Q: np.ndarray) -> None:
        turned = self.basis.combine(Q, first=self.size)
        self.basis.replace(self.size, turned)
        self._F = self._F @ Q
