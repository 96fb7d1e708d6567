"""The look at the complement: what it must find, and how often its bounds may be wrong."""

import numpy as np
import pytest
import torch

from hbanalysis.eigen import eigsh
from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.eigen.probe import Probe
from hbanalysis.operators import as_operator


def test_bounds_hold_as_often_as_they_say():
    """At a failure probability of 0.2, 400 probes fail in some 40 to 120 cases if the bound is exact, never in more."""
    spectrum = np.concatenate([[1.0], np.linspace(-0.2, 0.5, 59)])
    H = as_operator(torch.diag(torch.from_numpy(spectrum)))
    failed = 0
    for seed in range(400):
        probe = Probe(KrylovSpace(H, 10, 2, seed), 0.2)
        for _ in range(3):
            probe.step()
        failed += probe.rest()[1] < 1.0
    assert 10 <= failed <= 105  # 80 expected at most, 8 is the standard deviation


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [2, 3, 5])
def test_every_copy_of_a_repeated_eigenvalue_is_found(copies, dtype):
    spectrum = np.concatenate([[4.0] * copies, [3.0] * copies, np.linspace(-0.5, 1, 300)])
    for seed in range(5):
        pairs = eigsh(torch.diag(torch.from_numpy(spectrum)).to(dtype), 2 * copies, seed=seed)
        assert pairs.complete
        assert np.allclose(pairs.values.numpy(), [4.0] * copies + [3.0] * copies, rtol=1e-4)
        V = pairs.vectors.double()
        assert (V.T @ V - torch.eye(2 * copies)).abs().max() < 1e-5


def test_an_eigenvector_missing_from_the_start_is_found():
    """Without the check the largest eigenvalue is missed, and the result says that nobody looked."""
    spectrum = np.concatenate([[5.0, 3.0, 2.0], np.linspace(0, 1, 200)])
    A = torch.diag(torch.from_numpy(spectrum))
    v0 = torch.ones(203, dtype=torch.float64)
    v0[0] = 0.0
    blind = eigsh(A, 2, v0=v0, check=False)
    assert blind.values[0].item() == pytest.approx(3.0)
    assert not blind.complete
    assert "not checked" in str(blind.complete)
    seeing = eigsh(A, 2, v0=v0)
    assert seeing.values.tolist() == pytest.approx([5.0, 3.0])
    assert seeing.complete
    assert "complete with probability 0.99" in str(seeing.complete)


def test_bounds_pin_every_index_when_complete():
    """100 random matrices, clustered, repeated and float32 ones among them: each confirmed bound holds by its index."""
    ratios, confirmed = [], 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(60, 260))
        bulk = 0.3 * rng.normal(size=n)
        top = [
            rng.exponential(2, size=8) + 1.5,
            5 + 1e-3 * np.arange(8),
            np.repeat(rng.uniform(2, 6, size=4), 2),
            10.0 ** np.linspace(2, 0.3, 8),
        ][seed % 4]
        spectrum = np.sort(np.concatenate([top, bulk]))[::-1]
        dtype = torch.float32 if seed % 3 == 0 else torch.float64
        pairs = eigsh(torch.diag(torch.from_numpy(spectrum.copy())).to(dtype), 6, seed=seed)
        error = np.abs(pairs.values.numpy() - spectrum[:6])
        rounding = 20 * torch.finfo(dtype).eps * spectrum[0]
        assert pairs.converged
        assert np.all(error <= 1e-4 * spectrum[:6] + rounding)
        if pairs.complete:
            confirmed += 1
            assert np.all(error <= pairs.bounds.numpy() + rounding)
            ratios += list((pairs.bounds.numpy() + rounding) / (error + rounding))
    assert confirmed >= 90
    assert np.median(ratios) <= 100


def test_whole_space_needs_no_probe():
    pairs = eigsh(torch.diag(torch.arange(1.0, 7.0)), 6)
    assert pairs.complete.method == "whole space"
    assert pairs.complete.failure_probability == 0
    assert "whole space" in str(pairs.complete)


def test_an_undecided_check_says_so():
    """A dense spectrum: the wanted values have neighbours everywhere, and no short probe can tell."""
    spectrum = np.linspace(0, 1, 400)
    pairs = eigsh(torch.diag(torch.from_numpy(spectrum)), 5, tol=1e-3)
    assert pairs.converged
    assert not pairs.complete
    assert "not confirmed" in str(pairs.complete)
    assert np.allclose(pairs.values.numpy(), spectrum[::-1][:5], rtol=1e-3)


def test_products_of_the_check_are_counted_and_limited():
    calls = []

    class Counting:
        shape, dtype, device = (200, 200), torch.float64, torch.device("cpu")
        diagonal = torch.from_numpy(np.concatenate([[9.0, 7.0, 5.0], np.linspace(0, 1, 197)]))

        def __matmul__(self, v):
            calls.append(1)
            return self.diagonal * v

    pairs = eigsh(Counting(), 3)
    assert len(calls) == pairs.products
    assert 0 < pairs.complete.products < pairs.products
    calls.clear()
    few = eigsh(Counting(), 3, max_products=int(pairs.products - pairs.complete.products) + 1)
    assert len(calls) == few.products <= pairs.products - pairs.complete.products + 1
    assert not few.complete


def test_its_polynomials_are_the_characteristic_ones():
    """p_t(x) is det(x - T) over the product of the betas: of norm one after t products."""
    H = as_operator(torch.diag(torch.linspace(-1, 2, 40, dtype=torch.float64)))
    probe = Probe(KrylovSpace(H, 10, 2, 0), 0.01)
    for steps in range(1, 7):
        probe.step()
        for x in (-1.7, -0.9, 0.1, 0.62, 1.9, 2.5, 40.0):
            expected = np.log(np.abs(x - probe.ritz())).sum() - np.log(probe._betas).sum()
            assert probe._log_polynomial(x) == pytest.approx(expected, rel=1e-10), (steps, x)
    low, high = probe.rest()
    for edge in (low, high):
        assert probe._log_polynomial(edge) == pytest.approx(probe._limit, abs=1e-6)
    assert low < probe.range()[0] < probe.range()[1] < high
