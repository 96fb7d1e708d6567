"""Leading eigenpairs of many small symmetric operators at once: one Lanczos run a sample, in step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_EVERY = 2  # steps between two looks at the Ritz values
_FLOOR = 20  # rounding units of the largest value that a residual cannot fall below

Multiply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LeadingPairs:
    """Eigenpairs of n operators.

    Attributes:
        values: ``(n, k)``, float64.
        vectors: ``(n, k, d)``, float64, orthonormal for each operator.
        residuals: ``|H v - value v|``, ``(n, k)``; an eigenvalue lies within that of each value.
        converged: Whether every residual of an operator met the tolerance, ``(n,)``.
        products: Products taken.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    products: int


def leading_pairs(
    multiply: Multiply, like: Tensor, k: int, which: str, tol: float, max_products: int, rounding: float, seed: int
) -> LeadingPairs:
    r"""Return the k leading eigenpairs of every operator.

    Lanczos with full reorthogonalisation in two passes, float64. All operators start from the same random vector, and
    what is returned for one is what it had when its own residuals met the tolerance, so nothing depends on the others.
    Where a Krylov space is exhausted the run goes on with a random vector orthogonal to it.

    Args:
        multiply: Maps ``(n, d)`` float64 to the products ``(n, d)``.
        like: A tensor ``(n, d)`` on the device.
        k: How many, at most d.
        which: ``LA`` largest, descending; ``SA`` smallest, ascending; ``LM`` largest modulus, descending by modulus.
        tol: Residual allowed relative to each ``|value|``, with a floor of 20 rounding units of the largest.
        max_products: Steps at most.
        rounding: The rounding unit of the products.
        seed: Seed of the start vector.

    Cost: one product a step. Memory: a vector of all operators for each step.
    """
    n, d = like.shape
    limit = max(min(max_products, d), k)
    run = _Run(n, d, k, like.device, seed)
    for step in range(1, limit + 1):
        run.advance(multiply)
        if step == limit or (step >= k and (step - k) % _EVERY == 0):
            run.look(which, tol, _FLOOR * rounding, final=step == limit)
            if bool(run.converged.all()):
                break
    return LeadingPairs(run.values, run.vectors, run.residuals, run.converged, run.steps)


class _Run:
    """Bases, coefficients and what has been found so far."""

    def __init__(self, n: int, d: int, k: int, device: torch.device, seed: int) -> None:
        self._k, self._generator = k, torch.Generator().manual_seed(seed)
        self._shape, self._device = (n, d), device
        self._next = self._random()
        self._columns = torch.empty(n, min(2 * k + 16, d), d, dtype=torch.float64, device=device)
        self._alphas: list[Tensor] = []
        self._betas: list[Tensor] = []
        self._size = torch.zeros(n, dtype=torch.float64, device=device)  # of the operator, as far as it is known
        self.steps = 0
        self.values = torch.zeros(n, k, dtype=torch.float64, device=device)
        self.residuals = torch.full_like(self.values, torch.inf)
        self.vectors = torch.zeros(n, k, d, dtype=torch.float64, device=device)
        self.converged = torch.zeros(n, dtype=torch.bool, device=device)

    def _random(self) -> Tensor:
        """The same unit vector for every operator."""
        vector = torch.randn(self._shape[1], generator=self._generator, dtype=torch.float64).to(self._device)
        return (vector / vector.norm()).expand(self._shape)

    def advance(self, multiply: Multiply) -> None:
        """Take one step: a column of the basis and of the tridiagonal matrix."""
        current = self._next
        self._store(current)
        product = multiply(current)
        alpha = (current * product).sum(1)
        rest = self._orthogonal(product)
        beta = rest.norm(dim=1)
        self._size = torch.maximum(self._size, product.norm(dim=1))
        self._alphas.append(alpha)
        ended = beta <= 4 * torch.finfo(torch.float64).eps * self._size
        beta = torch.where(ended, 0.0, beta)
        self._betas.append(beta)
        following = rest / torch.where(ended, 1.0, beta)[:, None]
        if bool(ended.any()) and self.steps < self._shape[1]:
            fresh = self._orthogonal(self._random())
            fresh = fresh / fresh.norm(dim=1, keepdim=True)
            following = torch.where(ended[:, None], self._orthogonal(fresh), following)
        self._next = following

    @property
    def _basis(self) -> Tensor:
        return self._columns[:, : self.steps]

    def _store(self, vectors: Tensor) -> None:
        if self.steps == self._columns.shape[1]:
            more = min(self.steps, self._shape[1] - self.steps)
            room = torch.empty(len(vectors), more, self._shape[1], dtype=torch.float64, device=self._device)
            self._columns = torch.cat([self._columns, room], 1)
        self._columns[:, self.steps] = vectors
        self.steps += 1

    def _orthogonal(self, vectors: Tensor) -> Tensor:
        basis = self._basis
        for _ in range(2):
            vectors = vectors - (basis.mT @ (basis @ vectors[:, :, None]))[:, :, 0]
        return vectors

    def look(self, which: str, tol: float, floor: float, final: bool) -> None:
        """Take over the Ritz pairs of the operators that have converged now; at the end those of all others too."""
        matrix = torch.diag_embed(torch.stack(self._alphas, 1))
        if self.steps > 1:
            off = torch.stack(self._betas[:-1], 1)
            matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
        theta, coordinates = torch.linalg.eigh(matrix)
        order = _order(theta, which)[:, : self._k]
        values = theta.gather(1, order)
        chosen = coordinates.gather(2, order[:, None, :].expand(-1, self.steps, -1))
        complete = self.steps == self._shape[1]  # then nothing is left outside the basis
        residuals = chosen[:, -1, :].abs() * (0.0 if complete else self._betas[-1][:, None])
        allowed = torch.maximum(tol * values.abs(), floor * theta.abs().amax(1, keepdim=True))
        met = (residuals <= allowed).all(1)
        taken = (~self.converged & (met | final)).nonzero().flatten()
        self.converged |= met
        self.values[taken], self.residuals[taken] = values[taken], residuals[taken]
        self.vectors[taken] = chosen[taken].mT @ self._basis[taken]


def _order(theta: Tensor, which: str) -> Tensor:
    keys = {"LA": -theta, "SA": theta, "LM": -theta.abs()}
    return keys[which].argsort(dim=1, stable=True)
