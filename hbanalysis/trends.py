"""Statistics with the seed as the unit: intervals over seeds, rank trends within seeds.

Everything here follows the rules of `paper_data/criteria.toml`: t-intervals of seed-level effects, the mean
over seeds of Spearman's rho within a seed, and a permutation test that shuffles the labels within each
seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from scipy import stats

from hbanalysis.errors import InputError

# Up to here all orders of a seed are enumerated (8! = 40,320); beyond, they are drawn.
LARGEST_EXACT = 8
_DRAWS = 100_000
# Sums of rho that are equal in exact arithmetic may differ by rounding.
_TIE = 1e-9


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its t-interval.

    Attributes:
        mean: the mean of the seed-level values.
        low: lower end, `None` with fewer than two seeds.
        high: upper end, `None` with fewer than two seeds.
        n: number of seeds.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    def above(self, value: float) -> bool:
        """Tell whether the whole interval lies above a value; without an interval, no."""
        return self.low is not None and self.low > value

    def below(self, value: float) -> bool:
        """Tell whether the whole interval lies below a value; without an interval, no."""
        return self.high is not None and self.high < value

    def contains(self, value: float) -> bool:
        """Tell whether a value lies in the interval; without an interval nothing is excluded."""
        return self.low is None or self.high is None or self.low <= value <= self.high

    def text(self, form: str = ".3g") -> str:
        """Return the mean with the interval's ends.

        Example:
            >>> Interval(2.0, 1.5, 2.5, 3).text(), Interval(2.0, None, None, 1).text(".2f")
            ('2 (1.5 to 2.5)', '2.00 (one seed)')
        """
        if self.low is None or self.high is None:
            return f"{self.mean:{form}} (one seed)"
        return f"{self.mean:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True)
class Trend:
    """A rank trend over batch sizes, seed by seed.

    Attributes:
        rho: mean over seeds of Spearman's rho within a seed.
        rhos: the rho of each seed.
        p_value: one-sided permutation p-value.
        exact: whether every order was enumerated.
    """

    rho: float
    rhos: tuple[float, ...]
    p_value: float
    exact: bool


def t_interval(values: Sequence[int | float], confidence: float = 0.95) -> Interval:
    r"""The mean of seed-level values with its Student interval.

    .. math:: \bar e \pm t_{(1 + c) / 2,\, n - 1}\; s / \sqrt n

    Args:
        values: one value a seed.
        confidence: the coverage c, between 0 and 1.

    Raises:
        InputError: no value, a value that is not finite, or a confidence outside (0, 1).

    Example:
        Three seeds 1, 2, 3 have s = 1 and t = 4.303:

        >>> interval = t_interval([1.0, 2.0, 3.0])
        >>> round(interval.low, 3), interval.mean, round(interval.high, 3)
        (-0.484, 2.0, 4.484)
    """
    if not 0 < confidence < 1:
        raise InputError(f"A confidence lies between 0 and 1; given {confidence}. Try 0.95.")
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise InputError(f"An interval needs finite seed-level values; given {list(values)}.")
    mean = float(numbers.mean())
    if numbers.size < 2:
        return Interval(mean, None, None, int(numbers.size))
    half = stats.t.ppf((1 + confidence) / 2, numbers.size - 1) * numbers.std(ddof=1) / math.sqrt(numbers.size)
    return Interval(mean, mean - float(half), mean + float(half), int(numbers.size))


def spearman(x: Sequence[int | float], y: Sequence[int | float]) -> float:
    """Spearman's rank correlation with average ranks for ties; 0 where one side is constant.

    Raises:
        InputError: fewer than two pairs, or lengths that differ.

    Example:
        >>> spearman([16, 64, 256], [0.3, 2.0, 9.0])
        1.0
    """
    if len(x) != len(y) or len(x) < 2:
        raise InputError(f"A rank correlation needs at least two pairs; given {len(x)} and {len(y)} values.")
    return _correlation(_centred_ranks(x), _centred_ranks(y))


def rank_trend(
    groups: Sequence[tuple[Sequence[int | float], Sequence[int | float]]], *, increasing: bool = True
) -> Trend:
    """The mean rho within seeds, with a one-sided test that shuffles labels within each seed.

    The p-value is the share of all ways to reorder the values within every seed whose mean rho is at least
    as large (at most as small, for a falling trend) as the one observed. Up to 8 batch sizes the
    distribution is exact: each seed's is enumerated and the seeds' are convolved. Beyond, 100,000 orders
    are drawn from a fixed seed, and the observed one counts as one of them.

    Args:
        groups: for each seed the batch sizes and the values.
        increasing: the direction of the alternative.

    Raises:
        InputError: no seed, or a seed with fewer than two batch sizes.

    Example:
        Two seeds that both rise over three batch sizes: one of 6 x 6 orders is as extreme.

        >>> rank_trend([([16, 64, 256], [1, 2, 3]), ([16, 64, 256], [4, 6, 9])]).p_value * 36
        1.0
    """
    if not groups:
        raise InputError("A trend needs at least one seed; given none.")
    rhos = tuple(spearman(x, y) for x, y in groups)
    sign = 1.0 if increasing else -1.0
    observed = sign * sum(rhos)
    exact = all(len(x) <= LARGEST_EXACT for x, _ in groups)
    if exact:
        values, weights = np.zeros(1), np.ones(1)
        for x, y in groups:
            values, weights = _convolve(values, weights, sign * _all_orders(x, y))
        p_value = float(weights[values >= observed - _TIE].sum())
    else:
        generator = np.random.default_rng(0)
        drawn = sum(sign * _drawn_orders(x, y, generator) for x, y in groups)
        p_value = float((1 + np.count_nonzero(drawn >= observed - _TIE)) / (1 + _DRAWS))
    return Trend(sum(rhos) / len(rhos), rhos, p_value, exact)


def log_slope(x: Sequence[int | float], y: Sequence[int | float]) -> float:
    """The least-squares slope of log y on log x.

    Raises:
        InputError: a value that is not positive, or fewer than two distinct x.

    Example:
        >>> round(log_slope([1, 10, 100], [3, 30, 300]), 12)
        1.0
    """
    if len(set(x)) < 2 or min(*x, *y) <= 0:
        raise InputError(f"A slope of logarithms needs positive values at two or more x; given {x} and {y}.")
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _centred_ranks(values: Sequence[int | float]) -> np.ndarray:
    ranks = stats.rankdata(values)
    return ranks - ranks.mean()


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm else 0.0


def _all_orders(x: Sequence[int | float], y: Sequence[int | float]) -> np.ndarray:
    a, b = _centred_ranks(x), _centred_ranks(y)
    norm = math.sqrt(float(a @ a) * float(b @ b))
    orders = np.array(list(permutations(range(len(b)))))
    return (b[orders] @ a) / norm if norm else np.zeros(len(orders))


def _drawn_orders(x: Sequence[int | float], y: Sequence[int | float], generator: np.random.Generator) -> np.ndarray:
    a, b = _centred_ranks(x), _centred_ranks(y)
    norm = math.sqrt(float(a @ a) * float(b @ b))
    orders = generator.permuted(np.broadcast_to(b, (_DRAWS, len(b))), axis=1)
    return (orders @ a) / norm if norm else np.zeros(_DRAWS)


def _convolve(values: np.ndarray, weights: np.ndarray, more: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distribution of a sum of two independent discrete variables, equal sums merged."""
    new, counts = np.unique(np.round(more, 12), return_counts=True)
    sums = np.round(np.add.outer(values, new), 12).ravel()
    shares = np.multiply.outer(weights, counts / len(more)).ravel()
    merged, where = np.unique(sums, return_inverse=True)
    return merged, np.bincount(where, weights=shares)
