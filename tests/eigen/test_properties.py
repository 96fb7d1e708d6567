"""Eigenpairs of spectra that nobody chose, by every method and end of the spectrum, for every kind of operator."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.sparse.linalg import aslinearoperator
from torch import nn

from hbanalysis.eigen import eigsh
from hbanalysis.errors import ConvergenceWarning
from hbanalysis.operators import DenseOperator, WeightHessian
from tests.oracles import dense_oracle, seeded
from tests.prescribed import Counting, matrix

SEARCH = settings(max_examples=20, deadline=None)
OPERATORS = {
    "tensor": lambda A: A,
    "our own": DenseOperator,
    "sum of two": lambda A: DenseOperator(0.25 * A) + 0.75 * A,
    "protocol": Counting,
    "SciPy operator": lambda A: aslinearoperator(A.numpy()),
    "SciPy sparse": lambda A: csr_array(A.numpy()),
}
ENDS = ("LA", "SA", "LM", "BE")


@st.composite
def spectra(draw: st.DrawFn) -> np.ndarray:
    """Some eigenvalues: spread, in clusters, repeated, with zeros, of one sign or two, at any scale."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n = draw(st.integers(1, 36))
    spread = rng.normal(size=n) ** draw(st.sampled_from([1, 3]))
    kind = draw(st.sampled_from(["spread", "repeated", "zeros", "cluster", "positive"]))
    values = {
        "spread": spread,
        "repeated": np.round(spread),
        "zeros": np.where(rng.random(n) < 0.5, 0.0, spread),
        "cluster": np.where(rng.random(n) < 0.5, 2 + 1e-3 * spread, spread),
        "positive": np.abs(spread),
    }[kind]
    return values * 10.0 ** draw(st.integers(-9, 9))


def wanted(values: np.ndarray, k: int, which: str) -> np.ndarray:
    falling = np.sort(values)[::-1]
    high = (k + 1) // 2
    return {
        "LA": falling[:k],
        "SA": falling[::-1][:k],
        "LM": np.abs(falling)[np.argsort(-np.abs(falling), kind="stable")][:k],
        "BE": np.concatenate([falling[:high], falling[len(falling) - (k - high) :]]),
    }[which]


def holds(pairs, A: torch.Tensor, values: np.ndarray, which: str, tol: float) -> None:
    """The wanted values in their order to the tolerance, vectors that are orthonormal, residuals that are theirs."""
    k, size = len(pairs.values), np.abs(values).max()
    unit = 60 * torch.finfo(A.dtype).eps * size
    found = pairs.values.numpy()
    truth = wanted(values, k, which)
    assert np.all(np.abs((np.abs(found) if which == "LM" else found) - truth) <= tol * np.abs(truth) + unit)
    V = pairs.vectors.double()
    assert (V.T @ V - torch.eye(k)).abs().max() < 1e-5
    residuals = (A.double() @ V - V * pairs.values).norm(dim=0)
    assert (residuals - pairs.residuals).abs().max() <= unit + 1e-6 * size


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("which", ENDS)
@SEARCH
@given(data=st.data())
@pytest.mark.survives("Input that nobody chose")
def test_eigenpairs(operator, which, data):
    """`eigsh` at every end of random spectra (spread, clustered, repeated, half of them zero, of any scale and size, k
    from 1 to n, any room for vectors) of tensors, SciPy's operators and sparse matrices, and operators of our own: the
    wanted values to the tolerance, orthonormal vectors, residuals that are theirs."""
    values = data.draw(spectra())
    n = len(values)
    k = data.draw(st.integers(1, n))
    room = data.draw(st.one_of(st.none(), st.integers(min(n, 2 * k + 8), n)))
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32]))
    A = matrix(values, seed=n, dtype=dtype)
    truth = np.linalg.eigvalsh(A.double().numpy())  # what the entries, once rounded, are the matrix of
    method = data.draw(st.sampled_from(["lanczos", "auto"]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pairs = eigsh(OPERATORS[operator](A), k, which=which, method=method, tol=1e-3, subspace=room)
    assert pairs.method == "lanczos"
    assert pairs.converged or room is not None  # with little room, neighbours may take more products than allowed
    if pairs.converged:
        holds(pairs, A, truth, which, 1e-3)


@SEARCH
@given(steps=st.lists(st.floats(1.5, 4.0), min_size=1, max_size=8), seed=st.integers(0, 99), data=st.data())
def test_power_iteration_where_moduli_are_apart(steps, seed, data):
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(steps))
    values = signs * np.cumprod(steps)
    A = matrix(values, seed)
    pairs = eigsh(A, data.draw(st.integers(1, len(values))), which="LM", method="power", tol=1e-10, max_products=4000)
    holds(pairs, A, values, "LM", 1e-6)


@SEARCH
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(2, 4), st.integers(1, 30)),
    sure=st.sampled_from([1.0, 5.0, 20.0]),
    which=st.sampled_from(ENDS),
    method=st.sampled_from(["screened", "auto", "lanczos"]),
    data=st.data(),
)
def test_eigenpairs_of_networks(shape, sure, which, method, data):
    """Screening leaves samples out by bounds, so that it may need more room than a tiny set has: it may not converge,
    says so, and whatever it calls converged is right."""
    inputs, hidden, classes, samples = shape

    def make():
        model = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, classes)).double()
        return model, torch.randn(samples, inputs, dtype=torch.float64), torch.randint(0, classes, (samples,))

    model, x, y = seeded(make, data.draw(st.integers(0, 10**6)))
    with torch.no_grad():
        model[-1].weight *= sure
    H = dense_oracle(model, x, y)
    k = data.draw(st.integers(1, min(6, len(H))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pairs = eigsh(WeightHessian(model, x, y), k, which=which, method=method, tol=1e-3)
    assert pairs.converged or method != "lanczos"
    if pairs.converged:
        values = np.linalg.eigvalsh(H.numpy())
        truth, found = wanted(values, k, which), pairs.values.numpy()
        error = np.abs((np.abs(found) if which == "LM" else found) - truth)
        assert np.all(error <= 1e-3 * np.abs(truth) + 1e-10 * np.abs(values).max())
