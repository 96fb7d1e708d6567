r"""The spectrum from the samples that carry it: below the cost of any Krylov method on the full data.

The curvature of a sample under cross-entropy scales with :math:`1 - p_y`. In a trained network few samples have much
of it left, so the Hessian is split by them, :math:`H = H_h + H_m + H_l`: heavy, medium and light samples.

1. Lanczos finds the leading eigenvectors V of :math:`H_h` alone, at the cost of the heavy samples.
2. One Rayleigh-Ritz step with V on :math:`H_h + H_m`. It needs the products of the medium samples with V only, since
   those of the heavy ones are known. The error of the Ritz values is of second order in the residual
   :math:`R = (I - VV^T) H_m V`, which is small.
3. Where a value still misses its tolerance, the directions of R that matter most are added to V, one product each.
4. The light samples are left out. By Weyl's inequality no eigenvalue moves by more than :math:`\|H_l\|`, which a few
   products with random start bound from above; it is added to the bounds.

Whether an eigenvalue is missing is settled without a product of the full data: a probe bounds the complement of V in
the heavy part, another one in the medium part, and the sum of the two bounds holds for their sum.

References:
    Relatives are optimisers, none of which gives eigenvalues with bounds: Xu, Yang, Roosta-Khorasani, Re and Mahoney,
    Sub-sampled Newton methods with non-uniform sampling, NeurIPS 2016; Rajmohan and Roosta, Importance sampling for
    nonlinear models, 2025.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from hbanalysis.eigen.gauges import Blocks, beyond, coarse_gauge, directions, focus, gauge_of, worst_of
from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.eigen.lanczos import FAILURE, Outcome, Show, run
from hbanalysis.eigen.pairs import Completeness
from hbanalysis.eigen.probe import Probe
from hbanalysis.eigen.ritz import Ritz, Wanted
from hbanalysis.eigen.split import GUARD, NORM_PRODUCTS, WORTHWHILE, plan
from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian

SAFETY = 4  # times share times largest eigenvalue: more than the norm of a part
REACH = 8  # products of refinement that a confirmation is worth
NEAR = 5  # times its tolerance: errors that one product or two of refinement take away
PATIENCE = 3  # products of refinement after which a complement that was only guessed is looked at
CLOSE = 0.3  # of the gap between wanted and other values: where the look at the complement ends
LOOK = 24  # products of the look at the complement in the heavy part
CERTIFIED_GUARD = 6  # the same where the complement is to be bounded
COARSE = 0.3  # times sqrt(tol): tolerance of the Krylov part, whose errors enter squared
LOOSE = 1e-3  # tolerance that the heavy samples are chosen for at least: fewer leave too much to refinement
WEYL = 0.2  # share of the tolerance that the light part may take


def applicable(operator: Any) -> bool:
    """Return whether an operator knows the weights of its samples: a Hessian of the cross-entropy of labels."""
    return isinstance(operator, WeightHessian) and operator.label_relative


def weighted(operator: Any) -> WeightHessian:
    """Return the operator, known to be `applicable`.

    Raises:
        InputError: It is not.
    """
    if not applicable(operator):
        raise InputError(
            "method='screened' needs a WeightHessian of the cross-entropy of labels, whose samples have weights "
            "1 - p_y. Use method='lanczos', or 'auto' to choose by the operator."
        )
    return operator


def screened(
    H: WeightHessian,
    wanted: Wanted,
    width: int,
    check: bool,
    start: Callable[[KrylovSpace], Tensor | None],
    limit: int,
    seed: int,
    show: Show,
) -> tuple[KrylovSpace, Outcome, float, dict[str, float]] | None:
    """Find eigenpairs by screening; None if the weights are so flat that Lanczos is expected to be cheaper.

    Returns the space, where the run stopped, the products in passes over the full data, and notes: the shares of the
    samples (``heavy``, ``used``), the predicted cost and the bound on the light part's norm.
    """
    weights = H.doubts()
    split = plan(weights, wanted.k, min(wanted.tol, LOOSE))
    if not split.worthwhile:
        return None
    stages = _Stages(H, wanted, check, limit, seed, show, weights, max(1, round(split.heavy * len(weights))))
    stages.heavy(width, start)
    stages.light()
    stages.medium()
    outcome = stages.refine()
    n = len(weights)
    notes = {"heavy": stages.first / n, "used": stages.last / n, "predicted": split.cost, "left_out_norm": stages.norm}
    return stages.space, outcome, stages.count.spent, notes


class _Stages:
    """The four steps of the module's text, one method each, in the order in which they run.

    Attributes:
        first: How many samples are heavy; ``order`` numbers them first.
        last: How many are used; the others are light.
        norm: Bound on the norm of the light part.
        rest: Bounds on the complement of the kept vectors, proven if ``check``.
        likely: The same, estimated.
        beyond: That of the heavy part alone, estimated.
        guessed: Whether what the medium samples add to ``likely`` was guessed.
    """

    def __init__(
        self,
        H: WeightHessian,
        wanted: Wanted,
        check: bool,
        limit: int,
        seed: int,
        show: Show,
        weights: Tensor,
        first: int,
    ) -> None:
        self.H, self.wanted, self.check, self.first, self.last = H, wanted, check, first, first
        self._limit, self._seed, self._show, self._weights = limit, seed, show, weights
        self.order = weights.argsort(descending=True)
        self.k = min(wanted.k + (CERTIFIED_GUARD if check else GUARD), H.shape[0])
        self.count = _Count(len(weights))
        self.norm = self._looks = 0.0
        self.guessed = False

    def heavy(self, width: int, start: Callable[[KrylovSpace], Tensor | None]) -> None:
        """Lanczos on the heavy samples; keep the wanted vectors and some guards, and bound what lies beyond them."""
        wanted = self.wanted
        heavy = self.H.part(self.order[: self.first], total=self.H.total)
        self.space = space = KrylovSpace(heavy, width, self.k + wanted.k + 2, self._seed)
        space.push(start(space))
        coarse = Wanted(wanted.k, wanted.which, COARSE * math.sqrt(min(wanted.tol, LOOSE)))
        found = run(space, coarse, self._limit, False, self._show, lambda: None, gauge=coarse_gauge(coarse, self.k))
        self.count.add(space.steps, self.first)
        kept = Wanted(self.k, wanted.which, wanted.tol).choose(found.ritz.theta)
        self._values = np.abs(found.ritz.theta[wanted.choose(found.ritz.theta)])
        self.rest = self.likely = self.beyond = beyond(found.ritz, kept)
        if self.check:
            self.rest, taken = _look(space, found.ritz, kept, wanted)
            self._looks += self.count.add(taken, self.first)
        space.restart(found.ritz, kept)

    def light(self) -> None:
        """Choose the light samples so that the norm of their Hessian stays within its share of the tolerance.

        That norm is about the samples' share of the weights times the largest eigenvalue; `SAFETY` covers the rest, and
        a few products bound it: where they bound it by too much, every sample is used.
        """
        n, weights = len(self.order), self._weights[self.order]
        allowed, largest = WEYL * self.wanted.tol * self._values.min(), self._values.max()
        lighter = weights.flip(0).cumsum(0).flip(0) / weights.sum()
        self.last = max(self.first, int((lighter > allowed / (SAFETY * largest)).sum()))
        if self.last < WORTHWHILE * n:
            part = self.H.part(self.order[self.last :], total=self.H.total)
            rest, taken = _range(KrylovSpace(part, 0, 0, self._seed), part, enough=allowed)
            self.count.add(taken, n - self.last)
            self.norm = _norm(rest)
            if self.norm <= allowed:
                return
        self.last, self.norm = n, 0.0

    def medium(self) -> None:
        """Add the medium samples: their products with the kept vectors make a Rayleigh-Ritz step.

        What they add to the complement is taken to be no more than what they add to the kept vectors. That is free and
        far too much; where it would cost more products of refinement than a look costs, they are looked at.
        """
        if self.first == self.last:
            return
        space, size = self.space, self.last - self.first
        medium = self._medium()
        if self.check:
            (low, high), taken = _range(space, medium)
            self.rest = self.rest[0] + low, self.rest[1] + high
            self._looks += self.count.add(taken, size)
        products = medium @ space.basis.leading(space.size)
        self.count.add(space.size, size)
        reach = float(np.linalg.norm(space.basis.project(products, space.size), 2))
        space.absorb(self.H.part(self.order[: self.last], total=self.H.total), products)
        coarse = self.likely[0] - reach, self.likely[1] + reach
        if self.check or self._refinable(coarse, NORM_PRODUCTS * size / len(self.order)):
            self.likely, self.guessed = coarse, not self.check
        else:
            self._look_at(medium)

    def _medium(self) -> WeightHessian:
        return self.H.part(self.order[self.first : self.last], total=self.H.total)

    def _look_at(self, medium: WeightHessian) -> None:
        """Bound what the medium samples add on the complement of the space as it is now."""
        (low, high), taken = _range(self.space, medium)
        self.count.add(taken, self.last - self.first)
        self.likely, self.guessed = (self.beyond[0] + low, self.beyond[1] + high), False

    def _refinable(self, rest: tuple[float, float], look: float) -> bool:
        """Return whether refinement that relies on ``rest`` is expected to take about the products of a ``look``."""
        few = directions(self.space, self.wanted, rest) <= 1 + look
        return self.space.agree(few and worst_of(self.space.ritz(), rest, self.wanted) <= NEAR)

    def refine(self) -> Outcome:
        """Add directions of the residuals until every value is within its tolerance; say what is certain."""
        space, wanted = self.space, self.wanted
        strict = replace(wanted, tol=(1 - WEYL) * wanted.tol)
        certain = self.check and space.agree(directions(space, strict, self.rest) <= REACH)
        patience = min(self._limit, space.steps + PATIENCE) if self.guessed else self._limit
        outcome, rest = self._grow(strict, certain, patience)
        if patience < self._limit and not outcome.converged:
            self._look_at(self._medium())
            outcome, rest = self._grow(strict, certain, self._limit)
        if self.check and outcome.complete.method != "whole space":
            confirmed = certain and outcome.rest is not None
            outcome.complete = Completeness("probe", confirmed, self._looks, FAILURE, rest)
        return outcome

    def _grow(self, strict: Wanted, certain: bool, limit: int) -> tuple[Outcome, tuple[float, float]]:
        """Let the space grow until it is done or ``limit`` products are taken; return bounds on its complement too."""
        space, rest, before = self.space, self.rest if certain else self.likely, self.space.steps
        blocks = Blocks(space, replace(strict, k=self.k), rest)
        gauge, prepare = gauge_of(strict, blocks, certain), partial(focus, space, strict, rest)
        outcome = run(space, strict, limit, False, self._show, lambda: None, gauge=gauge, prepare=prepare)
        self.count.add(space.steps - before, self.last)
        if outcome.complete.method == "whole space":
            return outcome, rest
        settled = blocks.settled(outcome.ritz, strict)
        if settled is not None:
            outcome.ritz, outcome.rest = settled
            rest = settled[1]
        return outcome, rest


class _Count:
    """Products in passes over the full data."""

    def __init__(self, samples: int) -> None:
        self.samples, self.spent = samples, 0.0

    def add(self, products: float, samples: int) -> float:
        """Add products with some of the samples; return what they cost."""
        cost = products * samples / self.samples
        self.spent += cost
        return cost


def _range(space: KrylovSpace, operator: WeightHessian, enough: float = 0.0) -> tuple[tuple[float, float], int]:
    """Bound the eigenvalues of ``operator`` on the complement of the accepted vectors, with a few products.

    Fewer are taken where the bound falls below ``enough``: what may fail is the random start, the same for each bound.
    """
    own, space.operator = space.operator, operator
    probe = Probe(space, FAILURE / 6)
    for _ in range(NORM_PRODUCTS):
        probe.step()
        rest = probe.rest()
        if probe.done or _norm(rest) <= enough:
            break
    probe.close()
    space.operator = own
    return rest, probe.products


def _norm(rest: tuple[float, float]) -> float:
    """Return the largest modulus between two bounds."""
    return float(max(abs(rest[0]), abs(rest[1])))


def _look(space: KrylovSpace, ritz: Ritz, kept: np.ndarray, wanted: Wanted) -> tuple[tuple[float, float], int]:
    """Bound the operator's eigenvalues on the complement of the Ritz vectors ``kept``, by a probe."""
    best, hopes = ritz.without(kept, None), ritz.theta[wanted.choose(ritz.theta)]
    probe = Probe(space, FAILURE / 6)
    while not probe.done and probe.products < LOOK:
        probe.step()
        rest = ritz.without(kept, probe.rest())
        # A bound this close to what it can come to leaves the rest of the gap for the medium samples.
        top, bottom = best[1] + CLOSE * (hopes.min() - best[1]), best[0] + CLOSE * (hopes.max() - best[0])
        if space.agree(bool({"LA": rest[1] <= top, "SA": rest[0] >= bottom}.get(wanted.which))):
            break
    probe.close()
    return rest, probe.products
