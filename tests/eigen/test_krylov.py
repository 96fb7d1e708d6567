"""The relation of a space, H V = V M + P F^T, whatever was done to it; and the bounds that rest on it."""

import numpy as np
import pytest
import torch

from hbanalysis.eigen import lanczos, screening
from hbanalysis.eigen.gauges import focus
from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.eigen.lanczos import FAILURE, _make_room
from hbanalysis.eigen.probe import Probe
from hbanalysis.eigen.ritz import Wanted
from hbanalysis.eigen.solver import eigsh
from hbanalysis.operators import WeightHessian, as_operator

N = 24
WANTED = Wanted(3, "LA", 1e-3)


def matrix(seed):
    A = torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return A + A.T


def grown(A, pending=1, steps=6, width=14):
    space = KrylovSpace(as_operator(A), width, 5, 0)
    for _ in range(pending):
        space.push()
    for _ in range(steps):
        space.step()
    return space


def columns(space):
    """Accepted and pending directions."""
    space.basis.size = space.size + space.pending
    every = space.basis.leading(space.basis.size).numpy()
    return every[:, : space.size], every[:, space.size :]


def assert_relation(space, A):
    V, P = columns(space)
    both = np.hstack([V, P])
    assert np.allclose(both.T @ both, np.eye(both.shape[1]), atol=1e-12)
    assert np.allclose(A.numpy() @ V, V @ space._M + P @ space._F.T, atol=1e-10)
    assert np.allclose(space._M, space._M.T)


@pytest.mark.parametrize("pending", [1, 2, 4])
def test_steps_keep_the_relation_with_any_number_of_directions(pending):
    A = matrix(1)
    space = grown(A, pending)
    assert (space.size, space.pending, space.steps) == (6, pending, 6)
    assert_relation(space, A)
    ritz = space.ritz()
    _, P = columns(space)
    assert np.allclose(np.linalg.norm(ritz.G, axis=1), ritz.residuals)
    X = columns(space)[0] @ ritz.Y
    assert np.allclose(A.numpy() @ X - X * ritz.theta, P @ ritz.G.T, atol=1e-10)


@pytest.mark.parametrize("pending", [1, 3])
@pytest.mark.parametrize("products", [1, 4])
def test_a_probe_that_is_adopted_keeps_it(pending, products):
    A = matrix(2)
    space = grown(A, pending)
    probe = Probe(space, 0.01)
    for _ in range(products):
        probe.step()
    probe.adopt()
    assert (space.size, space.steps) == (6 + products, 6 + products)
    assert_relation(space, A)
    space.step()
    assert_relation(space, A)


def test_a_probe_that_is_closed_leaves_no_trace():
    A = matrix(3)
    space = grown(A, 2)
    before = columns(space)
    probe = Probe(space, 0.01)
    for _ in range(3):
        probe.step()
    probe.close()
    assert (space.size, space.pending, space.steps) == (6, 2, 9)
    assert all(np.array_equal(a, b) for a, b in zip(before, columns(space), strict=True))
    assert_relation(space, A)


@pytest.mark.parametrize("pending", [1, 2])
def test_a_larger_operator_is_absorbed(pending):
    A, more = matrix(4), 0.1 * matrix(5)
    space = grown(A, pending)
    V = torch.from_numpy(columns(space)[0])
    space.absorb(as_operator(A + more), more @ V)
    assert_relation(space, A + more)


def test_a_restart_keeps_it():
    A = matrix(6)
    space = grown(A, 1, steps=12, width=12)
    assert _make_room(space, space.ritz(), WANTED)
    assert space.size < 12 and space.restarts == 1
    assert_relation(space, A)
    assert np.allclose(np.diag(space._M), np.diag(np.diag(space._M)).sum(0))


def test_directions_are_turned_to_what_is_too_much():
    """The weight of a direction is the residual along it over sqrt(allowed * gap), the largest first."""
    A = matrix(7)
    space = grown(A, 3)
    ritz, rest = space.ritz(), (-1.0, 0.5)
    allowed = ritz.allowed(WANTED)
    weights = np.zeros(6)
    for j in (5, 4, 3):
        weights[j] = 1 / np.sqrt(allowed[j] * max(ritz.theta[j] - 0.5, allowed[j]))
    expected = np.linalg.svd(weights[:, None] * ritz.G, compute_uv=False)
    assert np.allclose(focus(space, WANTED, rest, ritz), expected)
    assert_relation(space, A)
    turned = weights[:, None] * space.ritz().G
    assert np.allclose(np.linalg.norm(turned, axis=0), expected)


@pytest.mark.parametrize("seed", range(5))
def test_bounds_on_another_complement_are_widened_by_two_spectral_norms(seed):
    """Of the part of V outside the block: twice its coupling with the complement of V, and what H is on it."""
    A = matrix(10 + seed)
    space = grown(A, 1, steps=5)
    V = columns(space)[0]
    for _ in range(4):
        space.step()
    ritz, block = space.ritz(), np.arange(9)[-4:]
    H, X = A.numpy(), columns(space)[0] @ ritz.Y
    inner = V.T @ X[:, :5]
    outside = (np.eye(N) - V @ V.T) @ H @ V
    expected = 2 * np.linalg.norm(outside @ inner, 2) + np.linalg.norm(inner.T @ V.T @ H @ V @ inner, 2)
    assert space.drift(5, ritz, block) == pytest.approx(expected)
    assert space.drift(5, ritz, np.arange(9)) == 0.0


def recorded(monkeypatch, module):
    """Chances of failure of the probes that a module begins."""
    found = []

    class Recorded(Probe):
        def __init__(self, space, failure):
            found.append(failure)
            super().__init__(space, failure)

    monkeypatch.setattr(module, "Probe", Recorded)
    return found


def test_two_looks_share_the_chance_of_failure_and_no_third_is_taken(monkeypatch):
    found = recorded(monkeypatch, lanczos)
    pairs = eigsh(torch.diag(torch.linspace(0, 1, 400, dtype=torch.float64)), 5, tol=1e-3)
    assert found == [FAILURE / 2] * 2
    assert not pairs.complete and pairs.complete.method == "probe"
    assert pairs.complete.failure_probability == FAILURE


def test_the_norm_of_a_part_may_fail_with_a_sixth_of_it(monkeypatch):
    found, space = recorded(monkeypatch, screening), grown(matrix(8))
    part = WeightHessian(torch.nn.Linear(5, 4).double(), torch.rand(7, 5, dtype=torch.float64), torch.arange(7) % 4)
    (low, high), products = screening._range(space, part)
    outside = np.linalg.qr(np.hstack([columns(space)[0], np.eye(N)]))[0][:, 6:N]
    values = np.linalg.eigvalsh(outside.T @ part.dense().numpy() @ outside)
    assert found == [FAILURE / 6] and 1 <= products <= screening.NORM_PRODUCTS
    assert low <= values[0] and values[-1] <= high
    assert_relation(space, matrix(8))
