"""Bounds from a subspace against the eigenvalues of the matrix that it is a part of."""

import numpy as np
import pytest

from hbanalysis.eigen.gauges import _gap
from hbanalysis.eigen.ritz import Ritz, Wanted, _coupled


def split(spectrum, size, seed, mixing=0.05):
    """A random matrix with ``spectrum``, seen from ``size`` nearly invariant leading directions."""
    rng = np.random.default_rng(seed)
    n = len(spectrum)
    Q, _ = np.linalg.qr(np.eye(n) + mixing * rng.normal(size=(n, n)) / np.sqrt(n))
    A = Q @ np.diag(np.sort(spectrum)[::-1]) @ Q.T
    M, C, N = A[:size, :size], A[size:, :size], A[size:, size:]
    theta, Y = np.linalg.eigh((M + M.T) / 2)
    return Ritz(theta, Y, Y.T @ C.T, 1e-16), np.linalg.eigvalsh(N), np.linalg.eigvalsh(A)


@pytest.mark.parametrize("seed", range(20))
def test_bounds_given_the_rest_hold_by_index(seed):
    rng = np.random.default_rng(seed)
    spectrum = np.concatenate([rng.uniform(2, 4, size=6), 0.5 * rng.normal(size=30)])
    ritz, rest, truth = split(spectrum, 6, seed)
    wanted = Wanted(6, "LA", 0.5)
    bounds = ritz.bounds(wanted, (rest[0], rest[-1]))
    values = ritz.theta[::-1]
    assert np.all(values <= truth[::-1][:6] + 1e-12)  # minimax: Ritz values never overshoot from above
    assert np.all(truth[::-1][:6] <= values + bounds + 1e-12)
    assert np.median(bounds / (truth[::-1][:6] - values)) < 10


@pytest.mark.parametrize("which", ["SA", "LM", "BE"])
def test_both_ends(which):
    spectrum = np.concatenate([[5, 4, 3], [-6, -4.5, -3.5], 0.5 * np.sin(np.arange(30))])
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(np.eye(36) + 0.01 * rng.normal(size=(36, 36)))
    A = Q @ np.diag(spectrum) @ Q.T
    M, C, N = A[:6, :6], A[6:, :6], A[6:, 6:]
    theta, Y = np.linalg.eigh((M + M.T) / 2)
    ritz, rest = Ritz(theta, Y, Y.T @ C.T, 1e-16), np.linalg.eigvalsh(N)
    wanted = Wanted(3, which, 0.1)
    truth = np.linalg.eigvalsh(A)
    chosen = wanted.choose(truth)
    error = np.abs(theta[wanted.choose(theta)] - truth[chosen])
    assert np.all(error <= ritz.bounds(wanted, (rest[0], rest[-1])) + 1e-12)
    assert ritz.settled(wanted, (rest[0], rest[-1]))
    assert not ritz.settled(wanted, (-20.0, 20.0))


def test_settled_counts_what_the_rest_may_hide():
    ritz = Ritz(np.array([1.0, 2.0, 3.0]), np.eye(3), np.zeros((3, 1)), 1e-16)
    assert ritz.settled(Wanted(2, "LA", 1e-3), (-1.0, 1.9))
    assert ritz.settled(Wanted(2, "LA", 1e-3), (-9.0, 2.0))  # a copy of a wanted value changes nothing
    assert not ritz.settled(Wanted(2, "LA", 1e-3), (-1.0, 2.1))
    assert not ritz.settled(Wanted(2, "LM", 1e-3), (-2.5, 1.0))


@pytest.mark.parametrize(
    ("which", "ends", "gap"), [("LA", (0, 3), 0.5), ("SA", (3, 0), -1.5), ("LM", (2, 1), 1.5), ("BE", (1, 2), 0.75)]
)
def test_wanted_values_are_counted_from_both_ends(which, ends, gap):
    """And their distance from a rest in -0.5 .. 0.5 is that of the nearest, at whichever end it lies."""
    theta, wanted = np.array([-4.0, -2.0, 1.0, 1.25, 3.0]), Wanted(3, which, 0.1)
    assert wanted.ends(theta) == ends
    assert _gap(theta, wanted, (-0.5, 0.5)) == gap


@pytest.mark.parametrize("seed", range(10))
def test_complement_of_some_ritz_vectors(seed):
    rng = np.random.default_rng(seed)
    spectrum = np.concatenate([rng.uniform(2, 4, size=6), 0.5 * rng.normal(size=30)])
    ritz, rest, _ = split(spectrum, 10, seed, mixing=0.3)
    kept = Wanted(6, "LA", 0.1).choose(ritz.theta)
    low, high = ritz.without(kept, (rest[0], rest[-1]))
    others = np.setdiff1d(np.arange(10), kept)
    G = ritz.G[others]
    n = G.shape[1]
    # The least favourable rest within its bounds is the constant one at either end.
    for nu in (rest[0], rest[-1]):
        B = np.block([[np.diag(ritz.theta[others]), G], [G.T, nu * np.eye(n)]])
        spectrum = np.linalg.eigvalsh(B)
        assert spectrum[-1] <= high + 1e-9
        assert spectrum[0] >= low - 1e-9
    estimate = ritz.without(kept, None)
    assert estimate[0] <= ritz.theta[others].min()
    assert estimate[1] >= ritz.theta[others].max()


@pytest.mark.parametrize("nu", [-3.0, 0.0, 0.4])
@pytest.mark.parametrize("size", [1e-6, 0.3, 2.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_bound_on_a_coupled_matrix_is_attained_where_the_rest_is_as_large_as_it_may_be(seed, size, nu):
    rng = np.random.default_rng(seed)
    theta, G = np.sort(rng.normal(size=5)), size * rng.normal(size=(5, 3))
    largest = np.linalg.eigvalsh(np.block([[np.diag(theta), G], [G.T, nu * np.eye(3)]]))[-1]
    assert _coupled(theta, G, nu) == pytest.approx(largest, rel=1e-9, abs=1e-9)
    assert _coupled(theta[:0], G[:0], nu) == nu
