"""The spectral density of a symmetric operator by stochastic Lanczos quadrature.

Choose `spectral_density` for the shape of the whole spectrum or for (1/n) tr f(H) with any f, `hbanalysis.trace`
for tr H and tr H^2 alone (fewer products for the same error), and `hbanalysis.eigsh` for single eigenvalues at
the ends.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbanalysis.eigen.quadrature import Show, gauss_rules
from hbanalysis.errors import NumericalError, require
from hbanalysis.operators.matrices import SymmetricOperator, as_operator

STEPS = 80
# The standard deviation belonging to the variance 1e-5 that Ghorbani, Krishnan and Xiao's published code recommends as
# the smallest, for a spectrum of range one.
SMOOTHING = math.sqrt(1e-5)
MARGIN = 5.0  # bandwidths that the default grid reaches beyond the outermost nodes: 6e-7 of a Gaussian lies outside
# Eigenvalues that are zero come out of products in the operator's precision within a few eps times the largest one.
ROUNDING = 20


@dataclass(frozen=True)
class ProbeMean:
    """A mean over probe vectors.

    Attributes:
        value: The mean.
        standard_error_over_probes: Its standard error from the spread between probes. It covers the sampling of probe
            vectors only, not the truncation of the quadrature after finitely many steps, which may bias every probe
            alike.
    """

    value: float
    standard_error_over_probes: float


@dataclass(frozen=True)
class Share(ProbeMean):
    """A share of the eigenvalues, with bounds on what truncation did to it.

    Attributes:
        lowest: What the share in the directions probed is at least; the mean over probes of a bound on each.
        highest: What it is at most. The truth for the operator lies between the two but for the sampling error.
    """

    lowest: float
    highest: float


@dataclass(frozen=True)
class ProbeCurve:
    """A function of the eigenvalue as a mean over probe vectors.

    Attributes:
        x: ``(points,)`` eigenvalues.
        mean: ``(points,)`` the mean over probes there.
        standard_error_over_probes: ``(points,)``, pointwise. It covers the sampling of probe vectors only: neither the
            truncation of the quadrature nor the smoothing.
    """

    x: Tensor
    mean: Tensor
    standard_error_over_probes: Tensor


@dataclass(frozen=True)
class ShareCurve(ProbeCurve):
    """The share of the eigenvalues at or below each point, with bounds on the truncation as those of `Share`.

    Attributes:
        lowest: ``(points,)`` what the share in the directions probed is at least.
        highest: ``(points,)`` what it is at most.
    """

    lowest: Tensor
    highest: Tensor


@dataclass(frozen=True)
class SpectralDensity:
    r"""One quadrature rule for each probe: the distribution of the eigenvalues, normalised to mass one.

    .. math:: \frac1n \operatorname{tr} f(H) \approx \frac1p \sum_{i=1}^p \sum_{j=1}^m w_{ij} f(\theta_{ij})

    Two errors remain. The spread between probes shows the first, from taking p random vectors instead of all
    directions; every ``standard_error_over_probes`` covers it and nothing else. The second is the truncation after m
    steps: none for polynomials up to degree 2 m - 1, small for smooth f. For shares it can be many standard errors
    where eigenvalues crowd together, as a network's do at 0; ``lowest`` and ``highest`` bound it, since the share up to
    a node of a probe's rule is at least the weight before it and at most that with it (Chebyshev, Markov and
    Stieltjes).

    Attributes:
        nodes: ``(probes, steps)`` float64, ascending in each row. A probe whose Krylov space was exhausted earlier
            repeats its last node with weight 0.
        weights: ``(probes, steps)`` float64, non-negative, each row sums to 1.
        complete: ``(probes,)`` whether the Krylov space was exhausted, so that the rule has no truncation.
        grid: ``(points,)`` where `density` and `cdf` are evaluated by default.
        bandwidth: Standard deviation of the Gaussian that `density` smooths with by default.
        rounding: Eigenvalues nearer to 0 than this cannot be told from 0 in the operator's precision.
        products: Columns multiplied by the operator.
    """

    nodes: Tensor
    weights: Tensor
    complete: Tensor
    grid: Tensor
    bandwidth: float
    rounding: float
    products: int

    def expectation(self, f: Callable[[Tensor], Tensor]) -> ProbeMean:
        """Return (1/n) tr f(H), where ``f`` maps a tensor of eigenvalues elementwise.

        Raises:
            InputError: ``f`` changes the shape.
            NumericalError: ``f`` is not finite at a node, as the logarithm at a negative one.
        """
        values = f(self.nodes).double()
        require(
            values.shape == self.nodes.shape,
            f"f must map eigenvalues elementwise, {tuple(self.nodes.shape)} to the same shape; "
            f"it returned {tuple(values.shape)}.",
        )
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            raise NumericalError(f"f is not finite at the node {float(self.nodes[~finite][0]):.6g}.")
        mean, error = _over_probes((self.weights * values).sum(1))
        return ProbeMean(float(mean), float(error))

    def moment(self, order: int) -> ProbeMean:
        """Return (1/n) tr H^order; for orders up to 2 ``steps`` - 1 the sampling is the only error.

        Raises:
            InputError: A negative order.
        """
        require(order >= 0, f"The order of a moment is 0 or more; given {order}.")
        return self.expectation(lambda x: x**order)

    def share(self, low: float = -math.inf, high: float = math.inf) -> Share:
        """Return the share of the eigenvalues in the closed interval from ``low`` to ``high``.

        Raises:
            InputError: ``low`` lies above ``high``, or one is not a number.
        """
        require(low <= high, f"An interval needs low <= high; given {low} and {high}.")
        inside, least, most = self._below(torch.tensor([high], dtype=torch.float64), closed=True)
        outside, fewest, utmost = self._below(torch.tensor([low], dtype=torch.float64), closed=False)
        return _share(inside - outside, (least - utmost).clamp(min=0.0), (most - fewest).clamp(max=1.0))

    def negative_share(self, tolerance: float | None = None) -> Share:
        """Return the share of the eigenvalues below ``-tolerance``, by default below ``-rounding``.

        Where many eigenvalues are tiny, look at the bounds, and choose a tolerance that says which ones matter.
        """
        below = -(self.rounding if tolerance is None else tolerance)
        return _share(*self._below(torch.tensor([below], dtype=torch.float64), closed=False))

    def zero_share(self, tolerance: float | None = None) -> Share:
        """Return the share of the eigenvalues within ``tolerance`` of 0, by default within ``rounding``."""
        tolerance = self.rounding if tolerance is None else tolerance
        return self.share(-tolerance, tolerance)

    def density(self, grid: Tensor | None = None, *, bandwidth: float | None = None) -> ProbeCurve:
        r"""Return the density smoothed by a Gaussian of standard deviation ``bandwidth``, the mean over probes.

        .. math:: \rho(x) = \frac1p \sum_{ij} w_{ij} \frac{1}{\sigma\sqrt{2\pi}} e^{-(x - \theta_{ij})^2 / 2\sigma^2}

        A width below the spacing of the nodes shows the nodes of the quadrature rather than the spectrum; a larger one
        widens isolated eigenvalues and moves mass across 0. Units: one over those of the eigenvalue. Memory:
        ``points * steps`` numbers.

        Raises:
            InputError: The grid is not ascending and finite, or the bandwidth not positive.
        """
        x = self.grid if grid is None else _checked_grid(grid)
        width = self.bandwidth if bandwidth is None else _checked_bandwidth(bandwidth)
        curves = [
            torch.exp(-(((x[:, None] - nodes) / width) ** 2) / 2) @ weights / (width * math.sqrt(2 * math.pi))
            for nodes, weights in zip(self.nodes, self.weights, strict=True)
        ]
        return ProbeCurve(x, *_over_probes(torch.stack(curves)))

    def cdf(self, grid: Tensor | None = None) -> ShareCurve:
        """Return the share of the eigenvalues at or below each point, the mean over probes; not smoothed.

        Raises:
            InputError: The grid is not ascending and finite.
        """
        x = self.grid if grid is None else _checked_grid(grid)
        share, least, most = self._below(x, closed=True)
        return ShareCurve(x, *_over_probes(share), least.mean(0), most.mean(0))

    def _below(self, x: Tensor, closed: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return each probe's share below ``x`` (``closed``: or at it), and its bounds, all ``(probes, points)``."""
        probes, steps = self.nodes.shape
        summed = torch.cat([torch.zeros(probes, 1, dtype=torch.float64), self.weights.cumsum(1)], 1)
        places = torch.searchsorted(self.nodes, x.expand(probes, -1).contiguous(), right=closed)
        share = summed.gather(1, places)
        sure = self.complete[:, None] | torch.isinf(x)
        least = torch.where(sure, share, summed.gather(1, (places - 1).clamp(min=0)))
        most = torch.where(sure, share, summed.gather(1, (places + 1).clamp(max=steps)))
        return share, least, most


def spectral_density(
    operator: SymmetricOperator | Any,
    *,
    probes: int = 10,
    steps: int | None = None,
    grid: Tensor | None = None,
    points: int = 1000,
    bandwidth: float | None = None,
    seed: int = 0,
    block: int = 1,
    show: Show | None = None,
) -> SpectralDensity:
    r"""Return the distribution of the n eigenvalues by stochastic Lanczos quadrature.

    In each of ``probes`` random directions v, uniform on the unit sphere, ``steps`` Lanczos steps give a Gauss
    quadrature rule, :math:`v^\top f(H) v \approx \sum_j w_j f(\theta_j)` (`gauss_rules`), and the
    mean over v estimates :math:`\tfrac1n \operatorname{tr} f(H)`, since the mean of :math:`v v^\top` is I/n.

    Error bars of the result cover the sampling of probe vectors only. Shares carry bounds on the truncation; elsewhere
    compare two values of ``steps`` to see it, and two bandwidths to see the smoothing. An eigenvalue that is one of n
    has mass 1/n.

    Args:
        operator: Anything with ``shape``, ``dtype``, ``device`` and ``@``; a symmetric tensor or array; a SciPy sparse
            matrix or ``LinearOperator``.
        probes: Random directions, at least 2.
        steps: Lanczos steps a direction, at most n; the default is 80, or n if that is smaller.
        grid: ``(points,)`` ascending eigenvalues for `SpectralDensity.density` and `SpectralDensity.cdf`; by default
            ``points`` of them, evenly spaced over all nodes and five bandwidths beyond.
        points: Length of the default grid.
        bandwidth: Standard deviation of the smoothing; by default 0.0032 of the range of the nodes (the square root of
            1e-5).
        seed: Seed of the directions, the same on every device.
        block: Directions advanced together, each product then being ``(n, block)``; pays where the operator shares
            work between columns. The result depends on it by rounding only.
        show: Called after each product with the products so far and the most that there can be; an exception raised
            there ends the run.

    Cost: ``probes * steps`` products; memory ``block * steps`` vectors.

    Raises:
        InputError: Fewer than 2 probes, steps beyond n, a grid that is not ascending, a bandwidth that is not positive.
        NumericalError: A product is not finite.

    References:
        Lin, Saad and Yang, Approximating spectral densities of large matrices, SIAM Review 58 (2016); Ubaru, Chen and
        Saad, Fast estimation of tr(f(A)) via stochastic Lanczos quadrature, SIAM J. Matrix Anal. Appl. 38 (2017);
        Ghorbani, Krishnan and Xiao, An investigation into neural net optimization via Hessian eigenvalue density,
        ICML (2019).

    Example:
        Of 200 eigenvalues a tenth are 5 and the rest 0; two steps find both from any direction:

        >>> found = spectral_density(torch.diag(5.0 * (torch.arange(200) < 20).double()), probes=100)
        >>> zeros = found.zero_share()
        >>> round(zeros.value, 1), zeros.standard_error_over_probes < 0.01, found.products
        (0.9, True, 200)
    """
    H = as_operator(operator)
    n = H.shape[0]
    m = min(STEPS, n) if steps is None else steps
    require(probes >= 2, f"An error bar needs at least 2 probes; given {probes}. Ten are usual.")
    require(1 <= m <= n, f"steps must lie in 1..{n} (the size of the operator); given {m}. Leave it out for a default.")
    require(block >= 1, f"block is a number of directions, at least 1; given {block}.")
    require(points >= 2, f"A grid needs at least 2 points; given {points}.")
    given_grid = None if grid is None else _checked_grid(grid)
    given_width = None if bandwidth is None else _checked_bandwidth(bandwidth)
    rules = gauss_rules(H, probes, m, seed=seed, block=block, show=show)
    low, high = float(rules.nodes.min()), float(rules.nodes.max())
    largest = max(abs(low), abs(high))
    # Nodes that differ by rounding only have no range to smooth over; their size stands in for it.
    span = high - low if high - low > 1e-6 * largest else largest or 1.0
    width = given_width or SMOOTHING * span
    reach = MARGIN * width
    return SpectralDensity(
        nodes=torch.from_numpy(rules.nodes),
        weights=torch.from_numpy(rules.weights),
        complete=torch.from_numpy(rules.complete),
        grid=torch.linspace(low - reach, high + reach, points, dtype=torch.float64)
        if given_grid is None
        else given_grid,
        bandwidth=width,
        rounding=ROUNDING * torch.finfo(H.dtype).eps * largest,
        products=rules.products,
    )


def _over_probes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of ``values`` ``(probes, ...)`` over probes and its standard error."""
    return values.mean(0), values.std(0) / math.sqrt(len(values))


def _share(share: Tensor, least: Tensor, most: Tensor) -> Share:
    value, error = _over_probes(share)
    return Share(float(value), float(error), float(least.mean()), float(most.mean()))


def _checked_grid(grid: Tensor) -> Tensor:
    grid = grid.detach().to("cpu", torch.float64)
    ascending = grid.ndim == 1 and len(grid) > 0 and bool(torch.isfinite(grid).all()) and bool((grid.diff() > 0).all())
    require(
        ascending,
        f"A grid is a vector of finite, ascending eigenvalues; given shape {tuple(grid.shape)}. "
        "Try torch.linspace(low, high, 1000).",
    )
    return grid


def _checked_bandwidth(bandwidth: float) -> float:
    require(
        0 < bandwidth < math.inf,
        f"A bandwidth is a positive width in units of the eigenvalue; given {bandwidth}. Leave it out for a default.",
    )
    return bandwidth
