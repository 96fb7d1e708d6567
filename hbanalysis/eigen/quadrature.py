"""Gauss quadrature rules of a symmetric operator in random directions, by Lanczos."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from hbanalysis.eigen.basis import Basis
from hbanalysis.errors import NumericalError
from hbanalysis.operators.matrices import SymmetricOperator

Show = Callable[[int, int], None]
EXHAUSTED = 10  # a new direction below this many eps of the largest is a product's rounding: the rule is complete


@dataclass(frozen=True)
class Rules:
    r"""One quadrature rule for each direction v: :math:`v^\top f(H) v \approx \sum_j w_j f(\theta_j)`.

    Attributes:
        nodes: ``(probes, steps)`` float64, ascending in each row. A rule that was complete earlier repeats its last
            node with weight 0.
        weights: ``(probes, steps)`` float64, non-negative; each row sums to 1.
        complete: ``(probes,)`` the Krylov space was exhausted, so that the rule is exact for every f (to rounding).
        products: Columns multiplied by the operator.
    """

    nodes: np.ndarray
    weights: np.ndarray
    complete: np.ndarray
    products: int


def gauss_rules(
    H: SymmetricOperator, probes: int, steps: int, *, seed: int, block: int = 1, show: Show | None = None
) -> Rules:
    r"""Return the rules of ``probes`` directions drawn uniformly from the unit sphere.

    Lanczos from v builds a tridiagonal T with eigenpairs :math:`(\theta_j, y_j)` and :math:`w_j = (e_1^\top y_j)^2`
    (Golub and Welsch). Each rule is exact for polynomials up to degree ``2 steps - 1``. Every vector is made orthogonal
    to all before it, twice, so that no eigenvalue appears twice through rounding; sums are accumulated in float64.

    Args:
        H: The n x n operator.
        probes: How many directions.
        steps: Lanczos steps a direction, 1 to n.
        seed: Seed of the directions, the same on every device and whatever ``block`` is.
        block: Directions advanced together, with one product ``(n, block)`` a step.
        show: Called after each product with the products so far and the most that there can be.

    Cost: ``probes * steps`` products, fewer where a space is exhausted; memory ``block * steps`` vectors.

    Raises:
        NumericalError: A product is not finite.

    References:
        Golub and Welsch, Calculation of Gauss quadrature rules, Math. Comp. 23 (1969); Ubaru, Chen and Saad, Fast
        estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix Anal. Appl. 38 (2017).

    Example:
        >>> rules = gauss_rules(torch.diag(torch.tensor([1.0, 4.0, 4.0])), 1, 3, seed=0)
        >>> rules.nodes.round(4).tolist(), rules.complete.tolist(), rules.products
        ([[1.0, 4.0, 4.0]], [True], 2)
    """
    generator = torch.Generator().manual_seed(seed)
    nodes, weights, complete = np.empty((probes, steps)), np.zeros((probes, steps)), np.zeros(probes, dtype=bool)
    bases = [Basis(H.shape[0], steps, H.dtype, H.device) for _ in range(min(block, probes))]
    products = 0
    for first in range(0, probes, block):
        runs = [_Run(H, basis, generator) for basis in bases[: probes - first]]
        while active := [run for run in runs if not run.complete and len(run.alphas) < steps]:
            W = H @ torch.stack([run.vector() for run in active], 1)
            if not bool(torch.isfinite(W).all()):
                step = len(active[0].alphas) + 1
                raise NumericalError(f"A product is not finite in Lanczos step {step}; check the operator's values.")
            products += len(active)
            for j, run in enumerate(active):
                run.advance(W[:, j].double(), steps)
            if show is not None:
                show(products, probes * steps)
        for i, run in enumerate(runs, start=first):
            theta, shares = run.rule()
            nodes[i], nodes[i, : len(theta)] = theta[-1], theta
            weights[i, : len(theta)] = shares
            complete[i] = run.complete
    return Rules(nodes, weights, complete, products)


class _Run:
    """Lanczos from one random start, whose products the caller takes."""

    def __init__(self, H: SymmetricOperator, basis: Basis, generator: torch.Generator) -> None:
        self.basis, self.generator = basis, generator
        self.n, self.eps = H.shape[0], torch.finfo(H.dtype).eps
        self.alphas: list[float] = []
        self.betas: list[float] = []
        self.complete = False
        basis.start(torch.randn(self.n, generator=generator, dtype=torch.float64))

    def vector(self) -> torch.Tensor:
        """Return the vector to multiply next."""
        return self.basis.column(len(self.alphas))

    def advance(self, w: torch.Tensor, steps: int) -> None:
        """Take the product with the last vector, in float64."""
        size = len(self.alphas) + 1
        coefficients, beta = self.basis.orthogonalise(w, size)
        self.alphas.append(float(coefficients[-1]))
        scale = max(max(map(abs, self.alphas)), beta, *self.betas)
        self.complete = size == self.n or beta <= EXHAUSTED * self.eps * scale
        if size < steps and not self.complete:
            self.betas.append(beta)
            self.basis.extend(beta, self.generator)

    def rule(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the nodes, ascending, and their weights."""
        theta, Y = np.linalg.eigh(np.diag(self.alphas) + np.diag(self.betas, 1) + np.diag(self.betas, -1))
        shares = Y[0] ** 2
        return theta, shares / shares.sum()
