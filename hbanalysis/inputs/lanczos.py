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
    another one for each that is found, and then k products for a Rayleigh-Ritz step. Memory: a vector of all operators
    for each step.
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
    searched, turn = ~found.converged, 0  # of what has not converged nothing is claimed
    grown = torch.zeros_like(searched)
    # Room is kept for the products of `_mixed`.
    while not bool(searched.all()) and (left := max_products - found.products - k) > 0:
        turn += 1
        extra = _search(_Complement(multiply, found, which), like, 1, which, tol, left, floor, seed + turn, found.sizes)
        value, last = extra.values[:, 0], found.values[:, -1]
        ahead = {"LA": value - last, "SA": last - value, "LM": value.abs() - last.abs()}[which]
        joins = ~searched & extra.converged & (ahead > torch.maximum(tol * last.abs(), floor * found.sizes))
        searched, grown = searched | (extra.converged & ~joins), grown | joins
        found = _joined(replace(found, products=found.products + extra.products), joins, extra, which)
    found = replace(found, converged=found.converged & searched)
    return _mixed(found, grown, multiply, which, tol, floor) if bool(grown.any()) else found


def _joined(found: LeadingPairs, joins: Tensor, extra: LeadingPairs, which: str) -> LeadingPairs:
    """Return the pairs with that of ``extra`` in place of the last one, for the operators that ``joins`` names."""
    k = found.values.shape[1]
    values = torch.cat([found.values, extra.values], 1)
    order = torch.where(joins[:, None], _order(values, which)[:, :k], torch.arange(k, device=values.device))
    vectors = torch.cat([found.vectors, extra.vectors], 1)
    rows = order[:, :, None].expand(-1, -1, vectors.shape[2])
    return replace(found, values=values.gather(1, order), vectors=vectors.gather(1, rows))


def _mixed(
    found: LeadingPairs, grown: Tensor, multiply: Multiply, which: str, tol: float, floor: float
) -> LeadingPairs:
    """Take a Rayleigh-Ritz step with the pairs of the operators that have ``grown``.

    What the search found is an eigenvector but for its coupling with the pairs that were there before: of the size of
    their residuals, which may be too much for a smaller value. Inside their common span nothing of it is left.
    """
    V = found.vectors
    HV = torch.stack([multiply(V[:, column]) for column in range(V.shape[1])], 1)
    M = V @ HV.mT
    theta, coordinates = torch.linalg.eigh((M + M.mT) / 2)
    order = _order(theta, which)
    turn = coordinates.gather(2, order[:, None, :].expand_as(coordinates)).mT
    values = theta.gather(1, order)
    vectors = turn @ V
    residuals = (turn @ HV - values[:, :, None] * vectors).norm(dim=2)
    met = (residuals <= torch.maximum(tol * values.abs(), floor * found.sizes[:, None])).all(1)
    return replace(
        found,
        values=torch.where(grown[:, None], values, found.values),
        vectors=torch.where(grown[:, None, None], vectors, V),
        residuals=torch.where(grown[:, None], residuals, found.residuals),
        converged=found.converged & (met | ~grown),
        products=found.products + V.shape[1],
    )


class _Complement:
    """Operators without what was found: on its span they are moved to where nothing is wanted."""

    def __init__(self, multiply: Multiply, found: LeadingPairs, which: str) -> None:
        self._multiply, self._vectors = multiply, found.vectors
        self._moved = {"LA": -1.0, "SA": 1.0, "LM": 0.0}[which] * found.sizes[:, None]

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
