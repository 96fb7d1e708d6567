"""When a screened run is done: what its Krylov part comes down to, and which blocks of its space prove the values."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.eigen.ritz import Ritz, Wanted
from hbanalysis.eigen.split import GUARD

RESOLVED = 0.1  # of a value: residual up to which a guard counts as found
APART = 0.15  # of the last wanted value: distance of what lies beyond the guards at which the Krylov part is enough
SHARP = 0.02  # of the last wanted value: residual of the guards at which it is enough where they lie closer


def coarse_gauge(wanted: Wanted, k: int) -> Callable[[Ritz], float]:
    """What the Krylov part has to come down to: residuals of the wanted, and guards that keep them from the rest.

    Products with the heavy samples are the cheapest. A guard that is not found yet leaves the last wanted values
    without a gap, and then products with all samples have to make up for it.
    """
    leading = Wanted(k, wanted.which, wanted.tol)

    def gauge(ritz: Ritz) -> float:
        if len(ritz.theta) <= wanted.k + GUARD:
            return math.inf
        chosen, kept = wanted.choose(ritz.theta), leading.choose(ritz.theta)
        coarse = float((ritz.residuals[chosen] / ritz.allowed(wanted)[chosen]).max())
        guards = float(ritz.residuals[kept].max() / ritz.allowed(replace(wanted, tol=SHARP))[chosen].min())
        gap = _gap(ritz.theta, wanted, beyond(ritz, kept))
        apart = APART * float(np.abs(ritz.theta[chosen]).min()) / gap if gap > 0 else math.inf
        return max(coarse, min(guards, apart))

    return gauge


def beyond(ritz: Ritz, kept: np.ndarray) -> tuple[float, float]:
    """Estimate the range of the eigenvalues on the complement of those of the ``kept`` vectors that are found."""
    return ritz.without(kept[ritz.residuals[kept] <= RESOLVED * np.abs(ritz.theta[kept])], None)


class Blocks:
    """Leading Ritz vectors of a space that has grown, with bounds on their complement.

    Bounds on the complement of the first columns V hold on that of the whole space too, and, widened by what couples
    the two, on that of its leading Ritz vectors. The whole space has residuals that are large, the complement of a
    block of it may reach far, above all where the block ends between close Ritz values: so several are tried. Once the
    space has been restarted, V is gone and there are none.

    Args:
        space: The space; its accepted columns are V.
        kept: How many Ritz vectors the smallest block takes.
        rest: Bounds on the complement of V.
    """

    def __init__(self, space: KrylovSpace, kept: Wanted, rest: tuple[float, float]) -> None:
        self._space, self._kept, self._rest = space, kept, rest
        self._anchor, self._restarts = space.size, space.restarts

    @property
    def gone(self) -> bool:
        """Whether the space has been restarted."""
        return self._space.restarts != self._restarts

    def of(self, ritz: Ritz) -> Iterator[tuple[Ritz, tuple[float, float]]]:
        """Yield blocks with bounds on their complements, the smallest first."""
        if self.gone:
            return
        size, kept = len(ritz.theta), self._kept
        for count in sorted({min(n, size) for n in (kept.k, kept.k + 1, kept.k + 2, (kept.k + size) // 2, size)}):
            chosen = replace(kept, k=count).choose(ritz.theta)
            wider = self._space.drift(self._anchor, ritz, chosen)
            yield ritz.only(chosen), (self._rest[0] - wider, self._rest[1] + wider)

    def settled(self, ritz: Ritz, wanted: Wanted) -> tuple[Ritz, tuple[float, float]] | None:
        """Return the first block that proves every wanted value to be within its tolerance; None if there is none."""
        return next((block for block in self.of(ritz) if block[0].settled(wanted, block[1])), None)


def gauge_of(wanted: Wanted, blocks: Blocks, certain: bool) -> Callable[[Ritz], float]:
    """Error bounds given by ``blocks``; unless their rest is ``certain``, those of Lanczos do as well."""

    def gauge(ritz: Ritz) -> float:
        if blocks.settled(ritz, wanted) is not None:
            return 1.0
        least = min((worst_of(*block, wanted) for block in blocks.of(ritz)), default=math.inf)
        ratio = max(least, math.nextafter(1.0, 2.0))
        return ratio if certain and not blocks.gone else min(ratio, ritz.worst(wanted))

    return gauge


def worst_of(ritz: Ritz, rest: tuple[float, float], wanted: Wanted) -> float:
    """Return the largest error bound that ``rest`` gives, relative to what is allowed."""
    return float((ritz.bounds(wanted, rest) / ritz.allowed(wanted)[wanted.choose(ritz.theta)]).max())


def directions(space: KrylovSpace, wanted: Wanted, rest: tuple[float, float]) -> float:
    """Return how many directions keep a value from its tolerance if ``rest`` holds; inf if a value lies in ``rest``."""
    ritz = space.ritz()
    if _gap(ritz.theta, wanted, rest) <= 0:
        return math.inf
    return int((focus(space, wanted, rest, ritz) > 1).sum())


def focus(space: KrylovSpace, wanted: Wanted, rest: tuple[float, float], ritz: Ritz) -> np.ndarray:
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


def _gap(theta: np.ndarray, wanted: Wanted, rest: tuple[float, float]) -> float:
    """Return the distance of the wanted values from the range ``rest``; negative where they overlap."""
    below, above = wanted.ends(theta)
    top = theta[-above] - rest[1] if above else math.inf
    bottom = rest[0] - theta[below - 1] if below else math.inf
    return float(min(top, bottom))
