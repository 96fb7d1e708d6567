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
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hbanalysis.errors import InputError
from hbanalysis.krylov import KrylovSpace
from hbanalysis.lanczos import FAILURE, Outcome, Show, run
from hbanalysis.operators import WeightHessian
from hbanalysis.pairs import Completeness
from hbanalysis.probe import Probe
from hbanalysis.ritz import Ritz, Wanted

LIGHT = 3e-7  # share of the weights that can be left out, roughly: for the prediction
SAFETY = 4  # times share times largest eigenvalue: more than the norm of a part
CLOSE = 0.3  # of the gap between wanted and other values: where the look at the complement ends
REACH = 8  # products of refinement that a confirmation is worth
LOOK = 24  # products of the look at the complement in the heavy part
GUARD = 4  # vectors carried beyond those wanted: their gap to the rest keeps the last wanted values apart
CERTIFIED_GUARD = 6  # the same where the complement is to be bounded
SHARE = 0.5  # times sqrt(tol): what the medium samples may hold for the Rayleigh-Ritz step to suffice
COARSE = 0.3  # times sqrt(tol): tolerance of the Krylov part, whose errors enter squared
RESOLVED = 0.1  # of a value: residual up to which a guard counts as found
NORM_PRODUCTS = 5  # products that bound the range of a part's eigenvalues
WORTHWHILE = 0.9  # of Lanczos' cost: more is expected to save nothing
WEYL = 0.2  # share of the tolerance that the light part may take


@dataclass(frozen=True)
class Plan:
    """How to split the samples.

    Attributes:
        heavy: Share of the samples in the Krylov part.
        used: Share of the samples in the Rayleigh-Ritz step; the others are left out.
        cost: Predicted cost in products with the full data.
        plain: The same for Lanczos.
    """

    heavy: float
    used: float
    cost: float
    plain: float

    @property
    def worthwhile(self) -> bool:
        """Whether screening is expected to save enough."""
        return self.cost <= WORTHWHILE * self.plain


def plan(weights: Float[Tensor, " n"], k: int, tol: float) -> Plan:
    """Choose the split for which the predicted cost is smallest.

    The prediction: Lanczos takes some 2 k + 8 products; the relative residual after the Rayleigh-Ritz step is about the
    share S of the weights that the medium samples hold, and errors go with its square, so up to ``SHARE sqrt(tol)``
    nothing is left to refine, and beyond that a share ``1 - SHARE sqrt(tol) / S`` of the k vectors is, and a share S of
    a whole run.

    Args:
        weights: 1 - p_y of every sample.
        k: Eigenvalues wanted.
        tol: Their tolerance.

    Example:
        >>> found = plan(torch.tensor([10.0 ** -(i / 10) for i in range(100)], dtype=torch.float64), 20, 1e-4)
        >>> round(found.heavy, 2), round(found.used, 2), found.worthwhile
        (0.23, 0.66, True)
    """
    ordered = weights.double().sort(descending=True).values
    total = float(ordered.sum())
    # Summed from the light end, so that the smallest weights are not lost in the sum of the largest.
    beyond = torch.cat([ordered.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64, device=ordered.device)])
    shares = (beyond / total if total > 0 else beyond).cpu().numpy()
    n, plain = len(ordered), 2.0 * k + 8
    used = int(np.argmax(shares <= LIGHT)) / n
    heavy = np.arange(1, 101) / 100
    heavy = np.append(heavy[heavy < used], used)
    left = np.maximum(shares[np.floor(heavy * n).astype(int)], np.finfo(float).tiny)
    refined = k * np.maximum(0.0, 1 - SHARE * math.sqrt(tol) / left) + plain * left
    costs = plain * heavy + (used - heavy) * (k + GUARD) + used * refined + NORM_PRODUCTS * (1 - used)
    best = int(np.argmin(costs))
    return Plan(float(heavy[best]), used, float(costs[best]), plain)


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
    split = plan(weights, wanted.k, wanted.tol)
    if not split.worthwhile:
        return None
    order, n = weights.argsort(descending=True), len(weights)
    first = max(1, round(split.heavy * n))
    count = _Count(n)

    heavy = H.part(order[:first], total=H.total)
    k = min(wanted.k + (CERTIFIED_GUARD if check else GUARD), H.shape[0])
    space = KrylovSpace(heavy, width, k + wanted.k + 2, seed)
    space.push(start(space))
    coarse = Wanted(wanted.k, wanted.which, min(0.1, COARSE * math.sqrt(wanted.tol)))
    found = run(space, coarse, limit, False, show, lambda: None, gauge=_coarse_gauge(coarse))
    count.add(space.steps, first)
    kept = Wanted(k, wanted.which, wanted.tol).choose(found.ritz.theta)
    values = np.abs(found.ritz.theta[wanted.choose(found.ritz.theta)])
    resolved = kept[found.ritz.residuals[kept] <= RESOLVED * np.abs(found.ritz.theta[kept])]
    rest = likely = found.ritz.without(resolved, None)
    looks = 0.0
    if check:
        rest, taken = _look(space, found.ritz, kept, wanted)
        looks += count.add(taken, first)
    space.restart(found.ritz, kept)

    last, norm = _leave_out(H, order, weights, first, values, wanted.tol, count, seed)
    V = space.basis.leading(space.size)
    if first < last:
        medium = H.part(order[first:last], total=H.total)
        if check:
            (low, high), taken = _range(space, medium)
            rest = rest[0] + low, rest[1] + high
            looks += count.add(taken, last - first)
        products = medium @ V
        count.add(space.size, last - first)
        reach = float(np.linalg.norm(space.basis.project(products, space.size), 2))
        likely = likely[0] - reach, likely[1] + reach
        del heavy, medium
        space.absorb(H.part(order[:last], total=H.total), products)

    strict = replace(wanted, tol=(1 - WEYL) * wanted.tol)
    certain = check and space.agree(_within_reach(space, strict, rest))
    rest = rest if certain else likely
    before, restarts = space.steps, space.restarts
    block = partial(_block, space, space.size, Wanted(k, wanted.which, wanted.tol), rest)
    prepare = partial(_focus, space, strict, rest)
    outcome = run(
        space, strict, limit, False, show, lambda: None, gauge=_gauge(strict, block, certain), prepare=prepare
    )
    count.add(space.steps - before, last)
    leading, rest = block(outcome.ritz)
    whole = outcome.complete.method == "whole space"
    if not whole and leading.settled(strict, rest):
        outcome.ritz, outcome.rest = leading, rest
    if check and not whole:
        confirmed = certain and outcome.rest is not None and space.restarts == restarts
        outcome.complete = Completeness("probe", confirmed, looks, FAILURE, rest)
    notes = {"heavy": first / n, "used": last / n, "predicted": split.cost, "left_out_norm": norm}
    return space, outcome, count.spent, notes


class _Count:
    """Products in passes over the full data."""

    def __init__(self, samples: int) -> None:
        self.samples, self.spent = samples, 0.0

    def add(self, products: float, samples: int) -> float:
        """Add products with some of the samples; return what they cost."""
        cost = products * samples / self.samples
        self.spent += cost
        return cost


def _leave_out(
    H: WeightHessian,
    order: Tensor,
    weights: Tensor,
    first: int,
    values: np.ndarray,
    tol: float,
    count: _Count,
    seed: int,
) -> tuple[int, float]:
    """Return how many of the samples to use, ``first`` at least, and the norm of the others' Hessian.

    That norm is to stay within its share of the tolerance. It is about the others' share of the weights times the
    largest eigenvalue; `SAFETY` covers the rest, and a few products bound it: where they bound it by too much, every
    sample is used.
    """
    allowed, largest = WEYL * tol * values.min(), values.max()
    beyond = weights[order].flip(0).cumsum(0).flip(0) / weights.sum()
    last = max(first, int((beyond > allowed / (SAFETY * largest)).sum()))
    if last >= WORTHWHILE * len(order):
        return len(order), 0.0
    light = H.part(order[last:], total=H.total)
    (low, high), taken = _range(KrylovSpace(light, 0, 0, seed), light)
    count.add(taken, len(order) - last)
    norm = float(max(abs(low), abs(high)))
    return (last, norm) if norm <= allowed else (len(order), 0.0)


def _range(space: KrylovSpace, operator: WeightHessian) -> tuple[tuple[float, float], int]:
    """Bound the eigenvalues of ``operator`` on the complement of the accepted vectors, with a few products."""
    own, space.operator = space.operator, operator
    probe = Probe(space, FAILURE / 6)
    for _ in range(NORM_PRODUCTS):
        probe.step()
        if probe.done:
            break
    rest = probe.rest()
    probe.close()
    space.operator = own
    return rest, probe.products


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


def _within_reach(space: KrylovSpace, wanted: Wanted, rest: tuple[float, float]) -> bool:
    """Return whether bounds that rely on ``rest`` can meet the tolerance with a few more products."""
    ritz = space.ritz()
    below, above = wanted.ends(ritz.theta)
    if (above and rest[1] >= ritz.theta[-above]) or (below and rest[0] <= ritz.theta[below - 1]):
        return False
    return int((_focus(space, wanted, rest, ritz) > 1).sum()) <= REACH


def _coarse_gauge(wanted: Wanted) -> Callable[[Ritz], float]:
    """Residuals alone: what the Krylov part has to come down to."""

    def gauge(ritz: Ritz) -> float:
        if len(ritz.theta) <= wanted.k + GUARD:
            return math.inf
        chosen = wanted.choose(ritz.theta)
        return float((ritz.residuals[chosen] / ritz.allowed(wanted)[chosen]).max())

    return gauge


def _block(
    space: KrylovSpace, anchor: int, kept: Wanted, rest: tuple[float, float], ritz: Ritz
) -> tuple[Ritz, tuple[float, float]]:
    """Return the leading Ritz vectors alone, and bounds on their complement, from those on the first columns'."""
    chosen = kept.choose(ritz.theta)
    wider = space.drift(anchor, ritz, chosen)
    return ritz.only(chosen), (rest[0] - wider, rest[1] + wider)


def _gauge(
    wanted: Wanted, block: Callable[[Ritz], tuple[Ritz, tuple[float, float]]], certain: bool
) -> Callable[[Ritz], float]:
    """Error bounds given the rest that ``block`` returns; unless that is ``certain``, those of Lanczos do as well."""

    def gauge(ritz: Ritz) -> float:
        leading, rest = block(ritz)
        if leading.settled(wanted, rest):
            return 1.0
        ratios = leading.bounds(wanted, rest) / leading.allowed(wanted)[wanted.choose(leading.theta)]
        ratio = max(float(ratios.max()), math.nextafter(1.0, 2.0))
        return ratio if certain else min(ratio, ritz.worst(wanted))

    return gauge


def _focus(space: KrylovSpace, wanted: Wanted, rest: tuple[float, float], ritz: Ritz) -> np.ndarray:
    """Turn the pending directions so that the next product takes away most of the error that is too much.

    Returns the weight of each direction, descending; those above 1 keep a value from its tolerance.
    """
    weights, allowed = np.zeros(len(ritz.theta)), ritz.allowed(wanted)
    below, above = wanted.ends(ritz.theta)
    for chosen, nu, sign in ((np.arange(len(ritz.theta))[::-1][:above], rest[1], 1), (range(below), rest[0], -1)):
        for j in chosen:
            gap = max(sign * (ritz.theta[j] - nu), allowed[j])
            weights[j] = 1 / math.sqrt(allowed[j] * gap)
    return space.focus(weights, ritz)
