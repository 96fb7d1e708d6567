"""Traces against dense matrices with a prescribed spectrum: values, error bars and what Hutch++ is for."""

import numpy as np
import pytest
import torch

import hbanalysis as hb
from hbanalysis.eigen.traces import trace
from hbanalysis.errors import ConvergenceWarning, InputError, NumericalError
from hbanalysis.operators import WeightHessian
from tests.prescribed import Counting, matrix
from tests.small_nets import trained_on_digits

DECAYING = 100.0 * np.arange(1.0, 301.0) ** -2.0
FLAT = np.random.default_rng(1).normal(1.0, 1.0, 300)


def errors_in_standard_errors(spectrum, runs, **options):
    A = matrix(spectrum)
    found = [trace(A, seed=seed, **options) for seed in range(runs)]
    value = [(f.value - sum(spectrum)) / f.standard_error for f in found]
    square = [(f.frobenius_squared - sum(spectrum**2)) / f.frobenius_squared_standard_error for f in found]
    return np.array(value), np.array(square)


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
@pytest.mark.parametrize("spectrum", [DECAYING, FLAT, -DECAYING], ids=["decaying", "flat", "negative"])
def test_error_bars_cover_the_truth(spectrum, method, distribution):
    """About 95 % of runs lie within two standard errors; all within five, which 30 probes' own spread needs."""
    value, square = errors_in_standard_errors(spectrum, 60, products=90, method=method, distribution=distribution)
    for z in (value, square):
        assert 0.85 <= np.mean(np.abs(z) <= 2) <= 1.0
        assert np.abs(z).max() < 5
        assert abs(z.mean()) < 4 / np.sqrt(60) * max(z.std(), 1.0)
        assert z.std() > 0.5  # the bars are no wider than they need be


def test_hutch_plus_plus_beats_hutchinson_where_the_spectrum_decays():
    A, truth = matrix(DECAYING), DECAYING.sum()
    mean_error = {
        method: np.mean([abs(trace(A, products=60, method=method, seed=seed).value - truth) for seed in range(50)])
        for method in ("hutch++", "hutchinson")
    }
    assert mean_error["hutch++"] < 0.1 * mean_error["hutchinson"]


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_small_operators_are_summed_exactly(method):
    A = matrix(FLAT[:37])
    H = Counting(A)
    found = trace(H, products=37, method=method)
    assert found.value == pytest.approx(FLAT[:37].sum(), rel=1e-12)
    assert found.frobenius_squared == pytest.approx((FLAT[:37] ** 2).sum(), rel=1e-12)
    assert (found.standard_error, found.frobenius_squared_standard_error) == (0.0, 0.0)
    assert (found.method, found.products, H.products, found.converged) == ("exact", 37, 37, True)
    assert trace(torch.tensor([[3.0]])).value == 3.0


def test_low_rank_leaves_nothing_to_sample():
    spectrum = np.concatenate([np.linspace(-5, 5, 30), np.zeros(270)])
    found = trace(matrix(spectrum), products=120)
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.frobenius_squared == pytest.approx((spectrum**2).sum(), rel=1e-10)
    assert found.standard_error < 1e-9
    zero = trace(torch.zeros(200, 200))
    assert (zero.value, zero.standard_error, zero.frobenius_squared) == (0.0, 0.0, 0.0)


def test_diagonal_is_exact_under_rademacher_probes():
    found = trace(torch.diag(torch.arange(200.0).double()), products=10, method="hutchinson")
    assert found.value == pytest.approx(199 * 100) and found.standard_error < 1e-9


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
@pytest.mark.parametrize("products", [4, 5, 10, 47, 120])
def test_products_are_counted_and_spent(method, products):
    H, shown = Counting(matrix(FLAT)), []
    found = trace(H, products=products, method=method, show=lambda done, most: shown.append((done, most)))
    assert found.products == H.products == products
    assert shown[-1] == (products, products)
    assert H.widest <= 10


@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_same_seed_same_bits_other_seed_other_probes(method):
    A = matrix(FLAT)
    first = trace(A, seed=3, method=method)
    assert trace(A, seed=3, method=method) == first
    assert trace(A, seed=4, method=method).value != first.value


def test_tolerance_stops_early_or_warns():
    A = matrix(2 + FLAT)
    early = trace(A, products=250, tol=0.05, method="hutchinson")
    assert early.converged and early.products < 250
    assert early.standard_error <= 0.05 * early.value
    with pytest.warns(ConvergenceWarning, match="Raise products"):
        late = trace(A, products=40, tol=1e-6)
    assert not late.converged and late.products == 40


def test_float32_operator():
    for method in ("hutch++", "hutchinson"):
        double = trace(matrix(DECAYING), method=method)
        single = trace(matrix(DECAYING, dtype=torch.float32), method=method)
        assert single.value == pytest.approx(double.value, rel=1e-5)
        assert single.frobenius_squared == pytest.approx(double.frobenius_squared, rel=1e-5)


@pytest.mark.needs_cuda
@pytest.mark.parametrize("method", ["hutch++", "hutchinson"])
def test_cuda_takes_the_same_probes(method):
    A = matrix(FLAT)
    here, there = trace(A, method=method), trace(A.cuda(), method=method)
    assert there.value == pytest.approx(here.value, rel=1e-9)
    assert there.standard_error == pytest.approx(here.standard_error, rel=1e-6)


def test_weight_hessian_against_its_dense_matrix():
    model, x, y = trained_on_digits(samples=100, hidden=8, steps=100)
    H = WeightHessian(model, x, y)
    dense = H.dense()
    found = hb.trace(H, products=60)
    assert abs(found.value - float(dense.trace())) <= 4 * found.standard_error
    assert found.standard_error < 0.1 * found.value
    truth = float(dense.square().sum())
    assert abs(found.frobenius_squared - truth) <= 4 * found.frobenius_squared_standard_error
    assert isinstance(found, hb.TraceEstimate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hutch"}, "Did you mean 'hutch\\+\\+'"),
        ({"distribution": "normal"}, "Known: gaussian, rademacher"),
        ({"products": 3}, "at least 4 products.*given 3"),
        ({"products": 1, "method": "hutchinson"}, "at least 2 products.*given 1"),
        ({"tol": 0.0}, "between 0 and 1; given 0.0"),
    ],
)
def test_bad_input_is_said(options, message):
    with pytest.raises(InputError, match=message):
        trace(torch.eye(50), **options)


def test_what_is_no_operator_is_said():
    with pytest.raises(InputError, match="given NoneType"):
        trace(None)


def test_product_that_is_not_finite():
    broken = torch.eye(200)
    broken[7, 7] = torch.inf
    with pytest.raises(NumericalError, match="columns 1 to 10"):
        trace(Counting(broken))
