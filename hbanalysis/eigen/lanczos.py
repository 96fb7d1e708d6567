"""Grow a `KrylovSpace` until every wanted value is within its tolerance, then look for missing ones."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from hbanalysis.eigen.krylov import PROBE_ROOM, KrylovSpace
from hbanalysis.eigen.pairs import Completeness
from hbanalysis.eigen.probe import Probe
from hbanalysis.eigen.ritz import Ritz, Wanted

Show = Callable[[float, float], None]
AFTER_BREAKDOWN = 8  # steps that a fresh random direction gets to show what an exhausted space did not hold
PROBE_PRODUCTS = PROBE_ROOM - 1  # a probe that has not settled the question by then will not soon
GLANCE = 4  # products after which a first probe knows whether it can settle anything
GROWTH = 6  # products of the space itself between two probes
FAILURE = 1e-2  # probability that a probe's statement is wrong, both ends together


@dataclass
class Outcome:
    """Where a run stopped."""

    ritz: Ritz
    worst: float
    complete: Completeness
    rest: tuple[float, float] | None = None

    @property
    def converged(self) -> bool:
        """Whether every wanted value is within its tolerance."""
        return self.worst <= 1.0


def run(
    space: KrylovSpace,
    wanted: Wanted,
    limit: int,
    check: bool,
    show: Show,
    after: Callable[[], None],
    gauge: Callable[[Ritz], float] | None = None,
    prepare: Callable[[Ritz], object] | None = None,
) -> Outcome:
    """Grow ``space`` until the wanted values are found or ``limit`` products are taken.

    Args:
        space: Where to start from; at least one direction is pending or random ones are drawn.
        wanted: What is asked for.
        limit: Products allowed, those of the check included.
        check: Whether to look for missing eigenvalues with `Probe`.
        show: Told the products and the worst bound after every step.
        after: Called after every step (to keep the state).
        gauge: The worst error relative to what is allowed; `Ritz.worst` by default.
        prepare: Called before every step (to choose the next direction).
    """
    search = _Search(space, wanted, limit, show)
    broken: int | None = None  # products taken when the space first stopped to grow by itself
    while True:
        ritz = space.ritz()
        worst = (gauge or partial(Ritz.worst, wanted=wanted))(ritz) if space.size else math.inf
        settled = space.agree(bool(worst <= 1.0))
        if space.size:
            show(space.steps, worst)
        if space.exhausted:
            return Outcome(ritz, ritz.worst(wanted), Completeness("whole space", True))
        if settled and check:
            if search.look(ritz):
                continue
            if search.confirms(ritz):
                return Outcome(ritz, worst, search.verdict(True), search.rest)
        rests = broken is not None and space.steps - broken < AFTER_BREAKDOWN
        if space.steps >= limit or (settled and not (search.open if check else rests)):
            return Outcome(ritz, worst, search.verdict(False) if check else Completeness("none", False))
        if _make_room(space, ritz, wanted):
            search.rest = None
            ritz = space.ritz()
        if not space.pending:
            broken = space.steps if broken is None else broken
            space.push()
        elif prepare is not None:
            prepare(ritz)
        space.step()
        after()


class _Search:
    """Looks for missing eigenvalues in the complement of a space whose wanted values have converged.

    At most two probes that find nothing: the first gives up early if the space is too small for it to settle anything,
    the second, some products of the space later, does not.

    Attributes:
        rest: Bounds on the complement from the last probe. They stay valid while the space grows.
    """

    def __init__(self, space: KrylovSpace, wanted: Wanted, limit: int, show: Show) -> None:
        self._space, self._wanted, self._limit, self._show = space, wanted, limit, show
        self._products = self._copies = self._fruitless = 0
        self._next = 0
        self.rest: tuple[float, float] | None = None

    @property
    def open(self) -> bool:
        """Whether more products may still lead to a confirmation."""
        return self._fruitless < 2

    def look(self, ritz: Ritz) -> bool:
        """Probe the complement if it is time; return whether what was found enlarged the space."""
        space, wanted = self._space, self._wanted
        if not self.open or space.steps < self._next or space.steps >= self._limit:
            return False
        probe = Probe(space, FAILURE / 2)
        for _ in range(min(PROBE_PRODUCTS, self._limit - space.steps)):
            probe.step()
            self._show(space.steps, math.nan)
            self.rest = probe.rest()
            # If even the best that the probe can come to settles nothing, the space itself must grow.
            early = self._fruitless == 0 and probe.products >= GLANCE and not ritz.settled(wanted, probe.range())
            if space.agree(bool(probe.done or early or ritz.settled(wanted, self.rest))):
                break
        self._products += probe.products
        found = 0 if self.confirms(ritz) else _belonging(probe.ritz(), ritz, wanted)
        self._copies += found
        if space.agree(found > 0 and space.pending < space.spare):
            self.rest = None
            probe.adopt()
            _make_room(space, space.ritz(), wanted)
            return True
        self._fruitless += 1
        self._next = space.steps + GROWTH
        probe.close()
        return False

    def confirms(self, ritz: Ritz) -> bool:
        """Return whether the last probe proves that nothing is missing in the space as it is now."""
        return self.rest is not None and self._space.agree(bool(ritz.settled(self._wanted, self.rest)))

    def verdict(self, confirmed: bool) -> Completeness:
        """Return what is known now."""
        return Completeness("probe", confirmed, self._products, FAILURE, self.rest, self._copies)


def _belonging(theta: np.ndarray, ritz: Ritz, wanted: Wanted) -> int:
    """Return how many of the probe's Ritz values belong among the wanted."""
    chosen, allowed = wanted.choose(ritz.theta), ritz.allowed(wanted)
    below, above = wanted.ends(ritz.theta)
    if wanted.which == "LM":
        return int((np.abs(theta) >= np.abs(ritz.theta[chosen[-1]]) - allowed[chosen[-1]]).sum())
    high = (theta >= ritz.theta[-above] - allowed[-above]).sum() if above else 0
    low = (theta <= ritz.theta[below - 1] + allowed[below - 1]).sum() if below else 0
    return int(high + low)


def _make_room(space: KrylovSpace, ritz: Ritz, wanted: Wanted) -> bool:
    """Restart with the wanted Ritz vectors and half of the remaining room if the space is full; return whether so."""
    if space.size < space.width:
        return False
    keep = min(wanted.k + (space.width - wanted.k) // 2, space.width - 1)
    space.restart(ritz, wanted.choose(ritz.theta, keep))
    return True
