"""Statistics against SciPy and against enumerations small enough to count by hand."""

import numpy as np
import pytest
from scipy import stats

from hbanalysis import trends
from hbanalysis.errors import InputError

SIZES = [16, 64, 256]


def test_interval_is_scipys() -> None:
    values = [0.3, 1.1, 0.7, 2.0, -0.4]
    ours = trends.t_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high))
    assert ours.contains(0.0) == (low <= 0 <= high)


def test_one_seed_has_no_interval_and_excludes_nothing() -> None:
    ours = trends.t_interval([2.0])
    assert (ours.low, ours.high, ours.n) == (None, None, 1)
    assert not ours.above(0.0) and not ours.below(9.0) and ours.contains(1e9)


def test_rho_is_scipys_with_ties() -> None:
    x, y = [1, 2, 3, 4, 5], [2.0, 2.0, 5.0, 1.0, 7.0]
    assert trends.spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
    assert trends.spearman(x, [3.0] * 5) == 0.0


@pytest.mark.parametrize(("seeds", "p_value"), [(1, 1 / 6), (2, 1 / 36), (3, 1 / 216), (5, 1 / 7776)])
def test_p_value_of_a_perfect_trend_is_one_order_in_all(seeds: int, p_value: float) -> None:
    trend = trends.rank_trend([(SIZES, [1, 2, 3])] * seeds)
    assert trend.exact and trend.rho == 1.0
    assert trend.p_value == pytest.approx(p_value, rel=1e-12)


def test_p_value_counts_orders_at_least_as_extreme() -> None:
    # Orders of three have rho 1, .5, .5, -.5, -.5, -1. With rhos 1 and .5 the mean is reached by
    # (1, 1), (1, .5) twice and (.5, 1) twice: 5 of 36.
    trend = trends.rank_trend([(SIZES, [1, 2, 3]), (SIZES, [1, 3, 2])])
    assert trend.rho == pytest.approx(0.75)
    assert trend.p_value == pytest.approx(5 / 36)


def test_falling_trend_is_the_mirror_image() -> None:
    values = [[1.0, 5.0, 2.0, 7.0], [3.0, 1.0, 4.0, 9.0]]
    rising = trends.rank_trend([([1, 2, 3, 4], y) for y in values])
    falling = trends.rank_trend([([1, 2, 3, 4], [-v for v in y]) for y in values], increasing=False)
    assert falling.p_value == pytest.approx(rising.p_value)
    assert falling.rho == pytest.approx(-rising.rho)


def test_convolution_is_the_brute_force_over_both_seeds() -> None:
    from itertools import permutations

    a, b = [0.1, 0.4, 0.3, 0.9], [2.0, 1.0, 4.0, 3.0]
    x = [1, 2, 3, 4]
    observed = trends.spearman(x, a) + trends.spearman(x, b)
    sums = [trends.spearman(x, p) + trends.spearman(x, q) for p in permutations(a) for q in permutations(b)]
    brute = np.mean(np.array(sums) >= observed - 1e-9)
    assert trends.rank_trend([(x, a), (x, b)]).p_value == pytest.approx(brute)


def test_drawn_p_value_is_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [([1, 2, 3, 4, 5], [1.0, 3.0, 2.0, 5.0, 4.0])] * 2
    exact = trends.rank_trend(groups)
    monkeypatch.setattr(trends, "LARGEST_EXACT", 4)
    drawn = trends.rank_trend(groups)
    assert not drawn.exact
    assert drawn.p_value == pytest.approx(exact.p_value, abs=4 * np.sqrt(exact.p_value / 1e5))


def test_slope_of_a_power_law() -> None:
    assert trends.log_slope(SIZES, [0.2 * b**1.3 for b in SIZES]) == pytest.approx(1.3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: trends.t_interval([]),
        lambda: trends.t_interval([1.0, float("nan")]),
        lambda: trends.t_interval([1.0], confidence=95.0),
        lambda: trends.spearman([1, 2], [1]),
        lambda: trends.rank_trend([]),
        lambda: trends.log_slope([1, 2], [0.0, 1.0]),
    ],
)
def test_bad_input_is_refused(wrong) -> None:
    with pytest.raises(InputError, match="given"):
        wrong()
