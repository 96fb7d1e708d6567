"""The small decisions of a run, each by itself: what is wanted, what belongs, what is kept, what is shown."""

import math

import numpy as np
import pytest
import torch

from hbanalysis.eigen import eigsh
from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.eigen.lanczos import AFTER_BREAKDOWN, _belonging, _make_room
from hbanalysis.eigen.progress import Line
from hbanalysis.eigen.ritz import Ritz, Wanted, _local_bounds
from hbanalysis.errors import InputError
from hbanalysis.operators import as_operator


def ritz(*theta):
    return Ritz(np.array(theta), np.eye(len(theta)), np.zeros((len(theta), 1)), 1e-16)


def space(n=30, width=8, spare=2, accepted=0):
    found = KrylovSpace(as_operator(torch.diag(torch.linspace(-1, 2, n, dtype=torch.float64))), width, spare, 0)
    found.push()
    for _ in range(accepted):
        found.step()
    return found


@pytest.mark.parametrize(
    ("which", "values", "count"),
    [
        # Wanted are 3 and 4 of 1, 2, 3, 4; a tenth of 3 is allowed.
        ("LA", [2.65, 2.75, 3.2, 9.0], 3),
        ("LA", [2.65, -9.0], 0),
        # Wanted are 1 and 2; a tenth of 2 is allowed.
        ("SA", [2.25, 2.15, 1.9, -5.0], 3),
        ("LM", [-2.65, -2.75, 2.75, 0.0], 2),
        # Wanted are 4 and 1, with .4 and .1 allowed.
        ("BE", [3.5, 3.7, 1.15, 1.05, -2.0], 3),
    ],
)
def test_what_a_probe_found_belongs_if_it_reaches_the_last_wanted_value(which, values, count):
    assert _belonging(np.array(values), ritz(1.0, 2.0, 3.0, 4.0), Wanted(2, which, 0.1)) == count


def test_without_a_neighbour_the_residual_is_the_bound():
    """Nothing is known of a gap to what is not there; with one, rho^2 over the gap is less."""
    assert _local_bounds(np.array([1.0]), np.array([[0.3, 0.4]])).tolist() == [0.5]
    apart = _local_bounds(np.array([0.0, 10.0]), np.array([[0.0], [0.5]]))
    assert apart.tolist() == pytest.approx([0.0, 0.025])
    wide = _local_bounds(np.array([0.0, 1.0]), np.array([[0.5], [0.1]]))  # the other one may be as near as 0.5
    assert wide.tolist() == pytest.approx([0.25 / 0.9, 0.01 / 0.5])
    close = _local_bounds(np.array([0.0, 0.1, 10.0]), np.array([[0.3], [0.4], [0.0]]))
    assert close.tolist() == pytest.approx([0.25 / 9.9, 0.25 / 9.9, 0.0])


def test_equal_moduli_keep_their_order():
    theta = np.concatenate([-np.ones(30), np.zeros(5), np.ones(30)])
    chosen = Wanted(60, "LM", 0.1).choose(theta)
    assert chosen.tolist() == [*range(30), *range(35, 65)]
    assert Wanted(3, "SA", 0.1).choose(np.zeros(40)).tolist() == [0, 1, 2]
    assert Wanted(3, "LA", 0.1).choose(np.zeros(40)).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("k", "kept"), [(2, 5), (7, 7), (4, 6)])
def test_a_full_space_keeps_the_wanted_and_half_of_the_rest(k, kept):
    full = space(accepted=8)
    before = full.ritz()
    assert _make_room(full, before, Wanted(k, "LA", 0.1))
    assert full.size == kept and full.pending == 1 and full.restarts == 1
    assert np.allclose(full.ritz().theta, before.theta[-kept:], atol=1e-12)
    small = space(accepted=7)
    assert not _make_room(small, small.ritz(), Wanted(k, "LA", 0.1)) and small.size == 7


def test_a_state_is_kept_to_the_last_bit():
    first = space(accepted=5)
    first.asymmetry = 0.1
    second = space()
    second.load({name: value.clone() for name, value in first.state().items()})
    assert (second.size, second.steps, second.asymmetry, second.pending) == (5, 5, 0.1, 1)
    for both in (first, second):
        both.step()
        both.push()
        both.step()
    assert np.array_equal(first.ritz().theta, second.ritz().theta)
    assert np.array_equal(first.ritz().G, second.ritz().G)


def test_products_count_up_to_the_whole_space():
    small = space(n=4, width=4, accepted=4)
    assert small.exhausted and small.pending == 0 and small.steps == 4
    assert np.allclose(small.ritz().theta, np.linspace(-1, 2, 4), atol=1e-12)
    assert np.allclose(small.ritz().residuals, 0.0)
    assert small.asymmetry < 1e-14


def test_asymmetry_is_what_the_products_show():
    A = torch.diag(torch.linspace(-1, 2, 12, dtype=torch.float64))
    A[0, 1] += 1e-7
    operator = as_operator(torch.eye(12, dtype=torch.float64))
    operator.matrix = A
    found = KrylovSpace(operator, 8, 2, 0)
    found.push()
    for _ in range(6):
        found.step()
    assert 1e-9 < found.asymmetry < 1e-6


def test_settled_values_and_single_steps_forecast_nothing():
    line = Line()
    for bound in (10.0, 10.0, 0.5, math.inf, math.nan):
        line(1, bound)
        assert line._forecast() == ""
    fresh = Line()
    fresh(1, math.inf)
    fresh(2, 5.0)
    assert fresh._forecast() == ""


def test_unknown_methods_are_named():
    with pytest.raises(InputError, match="Unknown method 'lancsoz'. Did you mean 'lanczos'"):
        eigsh(torch.eye(3), 1, method="lancsoz")


def test_restarts_are_counted():
    full = space(accepted=8)
    for count in (1, 2, 3):
        full.restart(full.ritz(), np.arange(full.size - 2, full.size))
        assert full.restarts == count


def test_an_exhausted_space_gets_some_fresh_directions():
    """The Krylov space of a start in one eigenspace ends after a product; some more show what it did not hold."""
    assert eigsh(torch.eye(60, dtype=torch.float64), 2, check=False).products == 1 + AFTER_BREAKDOWN
    spectrum, v0 = torch.zeros(2, 60, dtype=torch.float64)
    spectrum[:3] = torch.tensor([5.0, 3.0, 2.0])
    v0[1] = 1.0
    pairs = eigsh(torch.diag(spectrum), 2, v0=v0, check=False)
    assert pairs.values.tolist() == pytest.approx([5.0, 3.0])
