"""An orthonormal basis of long vectors whose dot products and norms are accumulated in float64.

PyTorch's float32 reductions on a CPU lose up to four digits at millions of entries, and a residual test built on the
same norms does not see it; so every reduction here runs in float64, over blocks of rows that bound the extra memory.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

ROWS = {"cpu": 1 << 12}  # rows converted to float64 at once: on a CPU a block stays in the second-level cache


class Basis:
    """At most ``width + 1`` orthonormal columns of length ``n``, stored in the operator's dtype."""

    def __init__(self, n: int, width: int, dtype: torch.dtype, device: torch.device) -> None:
        self._columns = torch.zeros(min(width + 1, n), n, dtype=dtype, device=device)
        self._next: Tensor | None = None
        self._size = 0

    def column(self, index: int) -> Tensor:
        """Return basis vector ``index`` in the operator's dtype."""
        return self._columns[index]

    def start(self, vector: Tensor) -> None:
        """Make the normalised ``vector`` the first column."""
        self._size = 0
        self._append(vector.to(self._columns.device, torch.float64))

    def orthogonalise(self, w: Tensor, size: int) -> tuple[np.ndarray, float]:
        """Remove from ``w`` (float64) its part in the first ``size`` columns, in two passes.

        Returns the coefficients ``(size,)`` and the norm of what is left, which is kept as the next direction.
        """
        coefficients = torch.zeros(size, dtype=torch.float64, device=w.device)
        for _ in range(2):
            part = self._project(w, size)
            w = w - self._expand(part, size)
            coefficients += part
        self._next = w
        return coefficients.cpu().numpy(), float(w.square().sum().sqrt())

    def extend(self, beta: float, generator: torch.Generator) -> None:
        """Append the direction left by `orthogonalise`; after a breakdown (``beta == 0``) a random one."""
        if beta > 0.0 and self._next is not None:
            self._append(self._next)
        else:
            self._append(self._random(generator))

    def restart(self, Y: np.ndarray, beta: float, generator: torch.Generator) -> None:
        """Replace the columns by their combinations ``Y`` and append the direction left over."""
        combined = self.combine(Y).T
        kept = combined.shape[0]
        self._columns[:kept] = combined
        self._size = kept
        self.extend(beta, generator)

    def combine(self, Y: np.ndarray) -> Tensor:
        """Return the combinations ``(n, Y.shape[1])`` of the first ``Y.shape[0]`` columns."""
        weights = torch.from_numpy(np.ascontiguousarray(Y)).to(self._columns.device)
        size = Y.shape[0]
        out = torch.empty(self._columns.shape[1], Y.shape[1], dtype=self._columns.dtype, device=self._columns.device)
        for rows in self._blocks():
            out[rows] = (self._columns[:size, rows].T.double() @ weights).to(out.dtype)
        return out

    def replace(self, index: int, vector: Tensor) -> None:
        """Set column ``index`` to ``vector`` made orthogonal to the columns before it."""
        self._size = index
        self._append(vector.to(self._columns.device, torch.float64))

    def leading(self, count: int) -> Tensor:
        """Return the first ``count`` columns as ``(n, count)`` (a copy)."""
        return self._columns[:count].T.clone()

    def _append(self, vector: Tensor) -> None:
        # Scaling first keeps the squares of a tiny leftover direction away from underflow.
        vector = vector / vector.abs().max()
        for _ in range(2):
            vector = vector - self._expand(self._project(vector, self._size), self._size)
            vector = vector / vector.square().sum().sqrt()
        self._columns[self._size] = vector.to(self._columns.dtype)
        self._size += 1

    def _random(self, generator: torch.Generator) -> Tensor:
        vector = torch.randn(self._columns.shape[1], generator=generator, dtype=torch.float64)
        return vector.to(self._columns.device)

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
