"""An orthonormal basis of long vectors whose dot products and norms are accumulated in float64.

PyTorch's float32 reductions on a CPU lose up to four digits at millions of entries, and a residual test built on the
same norms does not see it; so every reduction here runs in float64, over blocks of rows that bound the extra memory.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

ROWS = {"cpu": 1 << 12}  # rows converted to float64 at once: on a CPU a block stays in the second-level cache
LOST = 1e-8  # of a vector's norm: what is left below this share after two passes is rounding, and gets two more


class Basis:
    """Room for ``capacity`` orthonormal columns of length ``n``, stored in the operator's dtype.

    Columns 0 to ``size - 1`` are in use. ``orthogonalise`` leaves a direction that ``extend`` appends.
    """

    def __init__(self, n: int, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        self._columns = torch.zeros(min(capacity, n), n, dtype=dtype, device=device)
        self._next: Tensor | None = None
        self.size = 0

    def column(self, index: int) -> Tensor:
        """Return basis vector ``index`` in the operator's dtype (a view)."""
        return self._columns[index]

    def start(self, vector: Tensor) -> None:
        """Make the normalised ``vector`` the only column."""
        self.size = 0
        self.append(vector)

    def orthogonalise(self, w: Tensor, size: int | None = None) -> tuple[np.ndarray, float]:
        """Remove from ``w`` (float64) its part in the first ``size`` columns (all of them), in two passes.

        Returns the coefficients ``(size,)`` and the norm of what is left, which is kept as the next direction.
        """
        size = self.size if size is None else size
        coefficients = torch.zeros(size, dtype=torch.float64, device=w.device)
        before = norm(w)
        for passes in (2, 2):
            for _ in range(passes):
                part = self._project(w, size)
                w = w - self._expand(part, size)
                coefficients += part
            beta = norm(w)
            if beta > LOST * before or beta == 0.0:
                break
            before = beta
        self._next = w
        return coefficients.cpu().numpy(), beta

    def extend(self, beta: float, generator: torch.Generator) -> None:
        """Append the direction left by `orthogonalise`, of norm ``beta``; a random one if ``beta`` is 0."""
        if beta > 0.0 and self._next is not None:
            self._store(self._next / beta)
            self._next = None
        else:
            self.append(self.random(generator))

    def append(self, vector: Tensor) -> float:
        """Append ``vector`` made orthogonal to the columns in use; return the norm of its part outside of them."""
        vector = vector.to(self._columns.device, torch.float64)
        scale = float(vector.abs().max())  # keeps the squares of a tiny direction away from underflow
        _, beta = self.orthogonalise(vector / scale)
        assert self._next is not None
        self._store(self._next / beta)
        return beta * scale

    def random(self, generator: torch.Generator) -> Tensor:
        """Return a Gaussian vector, the same on every device."""
        vector = torch.randn(self._columns.shape[1], generator=generator, dtype=torch.float64)
        return vector.to(self._columns.device)

    def combine(self, Y: np.ndarray, first: int = 0) -> Tensor:
        """Return the combinations ``(n, Y.shape[1])`` of ``Y.shape[0]`` columns from ``first`` on."""
        weights = torch.from_numpy(np.ascontiguousarray(Y)).to(self._columns.device)
        used = slice(first, first + Y.shape[0])
        out = torch.empty(self._columns.shape[1], Y.shape[1], dtype=self._columns.dtype, device=self._columns.device)
        for rows in self._blocks():
            out[rows] = (self._columns[used, rows].T.double() @ weights).to(out.dtype)
        return out

    def replace(self, first: int, vectors: Tensor) -> None:
        """Write orthonormal ``vectors`` ``(n, b)`` over the columns from ``first`` on; later ones are dropped."""
        self.size = first + vectors.shape[1]
        self._columns[first : self.size] = vectors.T

    def move(self, first: int, count: int, to: int) -> None:
        """Move ``count`` columns from ``first`` on to ``to``; the columns behind them are dropped."""
        self._columns[to : to + count] = self._columns[first : first + count].clone()
        self.size = to + count

    def leading(self, count: int) -> Tensor:
        """Return the first ``count`` columns as ``(n, count)`` (a copy)."""
        return self._columns[:count].T.clone()

    def project(self, vectors: Tensor, size: int) -> np.ndarray:
        """Return the coefficients ``(size, b)`` of ``vectors`` ``(n, b)`` on the first columns."""
        parts = [self._project(vectors[:, j].double(), size) for j in range(vectors.shape[1])]
        return torch.stack(parts, 1).cpu().numpy()

    def _store(self, vector: Tensor) -> None:
        self._columns[self.size] = vector.to(self._columns.dtype)
        self.size += 1

    def _project(self, vector: Tensor, size: int) -> Tensor:
        total = torch.zeros(size, dtype=torch.float64, device=vector.device)
        for rows in self._blocks():
            total += self._columns[:size, rows].double() @ vector[rows]
        return total

    def _expand(self, coefficients: Tensor, size: int) -> Tensor:
        out = torch.empty(self._columns.shape[1], dtype=torch.float64, device=self._columns.device)
        for rows in self._blocks():
            out[rows] = self._columns[:size, rows].double().T @ coefficients
        return out

    def _blocks(self) -> Iterator[slice]:
        n = self._columns.shape[1]
        rows = ROWS.get(self._columns.device.type, 1 << 20)
        for start in range(0, n, rows):
            yield slice(start, min(start + rows, n))


def norm(vector: Tensor) -> float:
    """Return the Euclidean norm of a vector, accumulated in float64."""
    return float(vector.double().square().sum().sqrt())
