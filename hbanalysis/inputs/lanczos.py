"""Leading eigenpairs of many small symmetric operators at once: one Lanczos run a sample, in step.

A Krylov space holds one vector of each eigenspace. So what several wanted pairs leave over is searched again from a
fresh random vector, until nothing there belongs among them: copies of an eigenvalue are found like any other.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

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
        converged: Whether every residual of an operator met the tolerance and, with k > 1, the search of the complement
            came to its end, ``(n,)``.
        products: Products taken.
        sizes: About the norm of each operator, ``(n,)``: the largest of its products and Ritz values.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    converged: Tensor
    products: int
    sizes: Tensor


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

    Cost: one product a step. With k > 1 the complement is searched for what is missing: a run for one more eigenvalue,
    another one for each that is found, and then k products for a Rayleigh-Ritz step and one for each run. Memory: a
    vector of all operators for each step.
    """
    floor = _FLOOR * rounding
    found = _search(multiply, like, k, which, tol, max(max_products, k), floor, seed)
    if k in (1, like.shape[1]):
        return found
    return _with_copies(found, multiply, like, which, tol, max_products, floor, seed)


def _search(
    multiply: Multiply,
    like: Tensor,
    k: int,
    which: str,
    tol: float,
    max_products: int,
    floor: float,
    seed: int,
    sizes: Tensor | None = None,
) -> LeadingPairs:
    """Run Lanczos from one start vector; ``sizes`` are norms of the operators if they are known to be larger."""
    n, d = like.shape
    limit = min(max_products, d)
    run = _Run(n, d, k, like.device, seed, sizes)
    for step in range(1, limit + 1):
        run.advance(multiply)
        if step == limit or (step >= k and (step - k) % _EVERY == 0):
            run.look(which, tol, floor, final=step == limit)
            if bool(run.converged.all()):
                break
    return LeadingPairs(run.values, run.vectors, run.residuals, run.converged, run.steps, run.sizes)


def _with_copies(
    found: LeadingPairs,
    multiply: Multiply,
    like: Tensor,
    which: str,
    tol: float,
    max_products: int,
    floor: float,
    seed: int,
) -> LeadingPairs:
    """Search the complement of what was found, operator by operator, until nothing there belongs among it."""
    k = found.values.shape[1]
    searched = ~found.converged  # of what has not converged nothing is claimed
    gone: list[Tensor] = []  # vectors that gave way to others, zero for operators that had none in that turn
    # Room is kept for the products of `_mixed`.
    while not bool(searched.all()) and (left := max_products - found.products - k - len(gone) - 1) > 0:
        complement = _Complement(multiply, found, which)
        extra = _search(complement, like, 1, which, tol, left, floor, seed + len(gone) + 1, found.sizes)
        value, last = extra.values[:, 0], found.values[:, -1]
        ahead = {"LA": value - last, "SA": last - value, "LM": value.abs() - last.abs()}[which]
        joins = ~searched & extra.converged & (ahead > torch.maximum(tol * last.abs(), floor * found.sizes))
        searched = searched | (extra.converged & ~joins)
        gone.append(torch.where(joins[:, None], found.vectors[:, -1], 0.0))
        found = _joined(replace(found, products=found.products + extra.products), joins, extra, which)
    return _mixed(replace(found, converged=found.converged & searched), gone, multiply, which, tol, floor)


def _joined(found: LeadingPairs, joins: Tensor, extra: LeadingPairs, which: str) -> LeadingPairs:
    """Return the pairs with that of ``extra`` in place of the last one, for the operators that ``joins`` names."""
    k = found.values.shape[1]
    values = torch.cat([found.values[:, : k - 1], extra.values], 1)
    vectors = torch.cat([found.vectors[:, : k - 1], extra.vectors], 1)
    order = _order(values, which)
    return replace(
        found,
        values=torch.where(joins[:, None], values.gather(1, order), found.values),
        vectors=torch.where(joins[:, None, None], _rows(vectors, order), found.vectors),
        sizes=torch.maximum(found.sizes, extra.sizes),
    )


def _mixed(
    found: LeadingPairs, gone: list[Tensor], multiply: Multiply, which: str, tol: float, floor: float
) -> LeadingPairs:
    """Take a Rayleigh-Ritz step with the pairs of the operators for which some gave way to others.

    What the search found is an eigenvector but for its coupling with the pairs that were there before: of the size of
    their residuals, which may be too much for a smaller value. Inside their common span nothing of it is left.
    """
    grown = torch.stack(gone).any(0).any(1) if gone else torch.zeros_like(found.converged)
    if not bool(grown.any()):
        return found
    k, basis = found.values.shape[1], found.vectors
    for vectors in gone:
        rest = vectors[:, None]
        for _ in range(2):
            rest = rest - rest @ basis.mT @ basis
        size = rest.norm(dim=2, keepdim=True)
        basis = torch.cat([basis, torch.where(size > 0.5, rest / size, 0.0)], 1)
    products = torch.stack([multiply(basis[:, row]) for row in range(basis.shape[1])], 1)
    M = basis @ products.mT
    empty = torch.where((basis == 0).all(2), _unwanted(found, which)[:, None], 0.0)
    theta, coordinates = torch.linalg.eigh((M + M.mT) / 2 + torch.diag_embed(empty))
    order = _order(theta, which)[:, :k]
    turn = _rows(coordinates.mT, order)
    values, vectors = theta.gather(1, order), turn @ basis
    residuals = (turn @ products - values[:, :, None] * vectors).norm(dim=2)
    met = (residuals <= torch.maximum(tol * values.abs(), floor * found.sizes[:, None])).all(1)
    return replace(
        found,
        values=torch.where(grown[:, None], values, found.values),
        vectors=torch.where(grown[:, None, None], vectors, found.vectors),
        residuals=torch.where(grown[:, None], residuals, found.residuals),
        converged=found.converged & (met | ~grown),
        products=found.products + basis.shape[1],
    )


def _rows(vectors: Tensor, order: Tensor) -> Tensor:
    """Return rows ``(n, k, d)`` in another order, operator by operator."""
    return vectors.gather(1, order[:, :, None].expand(-1, -1, vectors.shape[2]))


def _unwanted(found: LeadingPairs, which: str) -> Tensor:
    """Return a value for each operator, at the end of its spectrum where nothing is wanted."""
    return {"LA": -1.0, "SA": 1.0, "LM": 0.0}[which] * found.sizes


class _Complement:
    """Operators without what was found: on its span they are moved to where nothing is wanted."""

    def __init__(self, multiply: Multiply, found: LeadingPairs, which: str) -> None:
        self._multiply, self._vectors = multiply, found.vectors
        self._moved = _unwanted(found, which)[:, None]

    def __call__(self, vectors: Tensor) -> Tensor:
        inside = self._inside(vectors)
        product = self._multiply(vectors - inside)
        return product - self._inside(product) + self._moved * inside

    def _inside(self, vectors: Tensor) -> Tensor:
        return (self._vectors.mT @ (self._vectors @ vectors[:, :, None]))[:, :, 0]


class _Run:
    """Bases, coefficients and what has been found so far."""

    def __init__(self, n: int, d: int, k: int, device: torch.device, seed: int, sizes: Tensor | None) -> None:
        self._k, self._generator = k, torch.Generator().manual_seed(seed)
        self._shape, self._device = (n, d), device
        self._next = self._random()
        self._columns = torch.empty(n, min(2 * k + 16, d), d, dtype=torch.float64, device=device)
        self._alphas: list[Tensor] = []
        self._betas: list[Tensor] = []
        self._size = torch.zeros(n, dtype=torch.float64, device=device) if sizes is None else sizes
        self.steps = 0
        self.values = torch.zeros(n, k, dtype=torch.float64, device=device)
        self.residuals, self.sizes = torch.full_like(self.values, torch.inf), torch.zeros_like(self.values[:, 0])
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
        self._size = torch.maximum(self._size, theta.abs().amax(1))
        allowed = torch.maximum(tol * values.abs(), floor * self._size[:, None])
        met = (residuals <= allowed).all(1)
        taken = (~self.converged & (met | final)).nonzero().flatten()
        self.converged |= met
        self.values[taken], self.residuals[taken], self.sizes[taken] = (
            values[taken],
            residuals[taken],
            self._size[taken],
        )
        self.vectors[taken] = chosen[taken].mT @ self._basis[taken]


def _order(theta: Tensor, which: str) -> Tensor:
    keys = {"LA": -theta, "SA": theta, "LM": -theta.abs()}
    return keys[which].argsort(dim=1, stable=True)
