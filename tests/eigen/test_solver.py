"""Lanczos against matrices with a prescribed spectrum, SciPy's dense solver and a trained network's dense Hessian."""

import copy

import numpy as np
import pytest
import torch

from hbanalysis.eigen import eigsh, power_iteration, solver
from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.errors import ConvergenceWarning, InputError, NumericalError, OutOfTimeError
from hbanalysis.operators import WeightHessian, as_operator
from tests.oracles import seeded
from tests.prescribed import Counting
from tests.small_nets import trained_on_digits


def matrix(spectrum, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.normal(size=(len(spectrum), len(spectrum))))
    A = (Q * np.asarray(spectrum)) @ Q.T
    return torch.from_numpy((A + A.T) / 2).to(dtype)


def expected(spectrum, k, which):
    s = np.sort(np.asarray(spectrum))[::-1]
    high = (k + 1) // 2
    return {
        "LA": s[:k],
        "SA": s[::-1][:k],
        "LM": s[np.argsort(-np.abs(s), kind="stable")][:k],
        "BE": np.concatenate([s[:high], s[len(s) - (k - high) :]]),
    }[which]


def spectrum_of(kind, n, rng):
    return {
        "normal": rng.normal(size=n),
        "network": np.concatenate([10.0 ** np.linspace(2, -1, 20), 1e-2 * rng.normal(size=n - 20)]),
        "clustered": np.concatenate([5 + 0.01 * np.arange(6), rng.normal(size=n - 6)]),
        "low rank": np.concatenate([rng.exponential(size=30), np.zeros(n - 30)]),
        "negative": -rng.exponential(size=n),
    }[kind]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
@pytest.mark.parametrize("kind", ["normal", "network", "clustered", "negative"])
def test_prescribed_spectrum(kind, which, dtype):
    rng = np.random.default_rng(7)
    spectrum = spectrum_of(kind, 150, rng)
    pairs = eigsh(matrix(spectrum, dtype=dtype), 8, which=which)
    truth = expected(spectrum, 8, which)
    assert pairs.converged
    rounding = 40 * torch.finfo(dtype).eps * np.abs(spectrum).max()
    assert np.all(np.abs(pairs.values.numpy() - truth) <= 1e-4 * np.abs(truth) + rounding)
    V = pairs.vectors.double()
    assert (V.T @ V - torch.eye(8)).abs().max() < 1e-5


def test_low_rank_after_breakdown():
    spectrum = spectrum_of("low rank", 120, np.random.default_rng(3))
    pairs = eigsh(matrix(spectrum), 20)
    assert np.allclose(pairs.values.numpy(), expected(spectrum, 20, "LA"), rtol=1e-4)


def test_what_residuals_and_bounds_promise():
    """On 60 random matrices every value is right to tol, an eigenvalue lies within each residual (no condition),
    and the gap-sharpened bounds, which hold on condition that nothing hides in the gap, right for 99 % of the values.
    """
    held = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(30, 150))
        spectrum = np.sort(rng.normal(size=n) ** 3)[::-1]
        pairs = eigsh(torch.diag(torch.from_numpy(spectrum.copy())), 6, tol=1e-3, seed=seed)
        values, rounding = pairs.values.numpy(), 1e-12 * np.abs(spectrum).max()
        error = np.abs(values - spectrum[:6])
        assert np.all(error <= 1e-3 * np.abs(spectrum[:6]))
        nearest = np.abs(spectrum[None] - values[:, None]).min(1)
        assert np.all(nearest <= pairs.residuals.numpy() + rounding)
        held += list(error <= pairs.bounds.numpy() + rounding)
    assert np.mean(held) >= 0.99


def test_residuals_are_the_residuals():
    A = matrix(np.linspace(0, 3, 90) ** 3)
    pairs = eigsh(A, 5, tol=1e-2)
    true = (A @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    assert torch.allclose(true, pairs.residuals, atol=1e-10)


def test_no_ghosts_in_a_long_run():
    """Two hundred products without a lost digit of orthogonality: lambda1 appears once."""
    spectrum = np.concatenate([[10.0, 9.0, 8.0], np.linspace(0, 1, 297)])
    pairs = eigsh(matrix(spectrum), 20, tol=1e-9, subspace=60)
    assert pairs.products > 100
    assert np.allclose(pairs.values.numpy(), expected(spectrum, 20, "LA"), rtol=1e-8)


def test_all_zero_and_full_spectrum_and_one_by_one():
    assert eigsh(torch.zeros(12, 12), 4).values.abs().max() == 0
    spectrum = np.arange(1.0, 9.0)
    assert np.allclose(eigsh(matrix(spectrum), 8).values.numpy(), spectrum[::-1], rtol=1e-10)
    assert eigsh(torch.tensor([[3.0]]), 1).values.tolist() == [3.0]


def test_loss_scaled_by_1e6_scales_the_spectrum():
    A = matrix(np.linspace(0, 2, 60) ** 4, dtype=torch.float32)
    small, large = eigsh(A * 1e-6, 5), eigsh(A, 5)
    assert torch.allclose(small.values * 1e6, large.values, rtol=1e-4)
    assert small.converged


@pytest.fixture(scope="module")
def trained():
    return trained_on_digits(samples=300, hidden=12, steps=300)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("which", ["LA", "LM"])
def test_top_twenty_of_a_trained_net_against_the_dense_float64_hessian(trained, which, dtype):
    model, x, y = copy.deepcopy(trained)
    truth = torch.linalg.eigvalsh(WeightHessian(model, x, y).dense()).numpy()
    floor = 20 * torch.finfo(dtype).eps * truth.max()  # what products in this dtype can resolve
    for seed in range(5):
        H = WeightHessian(model.to(dtype), x.to(dtype), y, chunk_size=70)
        pairs = eigsh(H, 20, which=which, tol=1e-4, seed=seed)
        reference = expected(truth, 20, which)
        assert pairs.converged
        assert np.all(np.abs(pairs.values.numpy() - reference) <= 1e-4 * np.abs(reference) + floor)
        assert pairs.products == H.products


def test_power_iteration_finds_the_dominant_values_and_admits_what_it_cannot_prove():
    A = matrix([-8.0, 4.0, 2.0, 1.0, 0.5, 0.1])
    pairs = power_iteration(A, 3, tol=1e-8)
    assert torch.allclose(pairs.values, torch.tensor([-8.0, 4.0, 2.0], dtype=torch.float64), rtol=1e-5)
    close = power_iteration(matrix(np.concatenate([[1.0, 0.999], np.linspace(0, 0.9, 60)])), 1, tol=1e-2)
    assert not close.converged


def test_named_vectors(trained):
    model, x, y = trained
    H = WeightHessian(model, x, y)
    pairs = eigsh(H, 2)
    named = pairs.vector(1)
    assert {n: t.shape for n, t in named.items()} == {n: p.shape for n, p in model.named_parameters()}
    assert torch.equal(torch.cat([t.reshape(-1) for t in named.values()]), pairs.vectors[:, 1])
    with pytest.raises(InputError, match="no named parameters"):
        eigsh(torch.eye(3), 1).vector(0)


def test_not_converged_is_loud_and_keeps_the_partial_result():
    with pytest.warns(ConvergenceWarning, match="after 12 products"):
        pairs = eigsh(matrix(np.linspace(0, 1, 200)), 5, tol=1e-8, max_products=12)
    assert not pairs.converged
    assert len(pairs.values) == 5


def test_show_sees_every_product_and_may_stop_the_run():
    seen = []
    eigsh(matrix(np.linspace(0, 1, 50) ** 5), 3, show=lambda done, worst: seen.append((done, worst)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert min(worst for _, worst in seen) <= 1.0
    assert np.isnan(seen[-1][1])  # the look for missing eigenvalues comes last

    def stop(done, worst):
        raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        eigsh(torch.eye(5), 2, show=stop)


def test_pairs_print_as_a_table():
    lines = repr(eigsh(torch.diag(torch.tensor([-3.0, 1.0, 2.0])), 2, which="LM")).splitlines()
    assert lines[0].startswith("2 eigenvalues by lanczos in 3 products, converged; complete")
    assert [line.split()[:2] for line in lines[1:]] == [["index", "value"], ["0", "-3"], ["1", "2"]]


def test_bad_input_is_named():
    A = torch.eye(5)
    cases = [
        (lambda: eigsh(A, 6), "1..5.*given 6"),
        (lambda: eigsh(A, 0), "1..5"),
        (lambda: eigsh(A, 2, which="AL"), "Did you mean .*'LA'"),
        (lambda: eigsh(A, 2, tol=2.0), "tol is a relative error between 0 and 1; given 2.0"),
        (lambda: eigsh(A, 2, tol=0.0), "given 0.0"),
        (lambda: eigsh(A, 2, tol=1.0), "given 1.0"),
        (lambda: eigsh(A, 2, method="power"), "Power iteration finds the largest moduli, which='LM'; given which='LA'"),
        (lambda: eigsh(A, 2, v0=torch.zeros(5)), "not zero"),
        (lambda: eigsh(A, 2, v0=torch.ones(4)), r"shape \(5,\)"),
        (lambda: eigsh(torch.tensor([[0.0, 1.0], [0.0, 0.0]]), 1), "not symmetric"),
        (lambda: eigsh(torch.ones(2, 3), 1), "square"),
        (lambda: eigsh(torch.eye(99), 10, subspace=10), "subspace=10 is too small"),
        (lambda: eigsh(A, 2, subspace=0), "subspace=0 is too small"),
        (lambda: eigsh(A, 2, max_products=0), "at least 1.*given 0"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message):
            call()


def test_vectors_that_do_not_fit_are_refused_before_the_first_product(monkeypatch):
    vectors = 60 + 25 + 3 + 2  # the subspace, the room for a check, k + 2
    H = solver.as_operator(torch.diag(torch.arange(500.0)))
    monkeypatch.setattr(solver, "available", lambda device: vectors * 500 * 4 - 1)
    with pytest.raises(
        InputError, match=r"Up to 90 vectors of 500 entries take 180 kB.*subspace \(given 60, at least 5\)"
    ):
        eigsh(H, k=3)
    assert H.products == 0
    assert eigsh(H, k=3, subspace=59).converged


def test_a_product_that_is_not_finite_stops_the_run():
    class Broken:
        shape, dtype, device = (4, 4), torch.float64, torch.device("cpu")

        def __matmul__(self, other):
            return other * float("inf")

    with pytest.raises(NumericalError, match="Product 1"):
        eigsh(Broken(), 2)


def test_norms_hold_at_eleven_million_entries():
    """Float32 reductions of PyTorch on a CPU are off by 1e-4 here; the basis must not be."""
    from hbanalysis.eigen.basis import Basis

    n = 11_000_000
    basis = Basis(n, 2, torch.float32, torch.device("cpu"))
    basis.start(torch.randn(n, generator=torch.Generator().manual_seed(0)).pow(3))
    assert basis.column(0).double().square().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_the_power_method_returns_as_many_as_asked_for_with_their_residuals():
    A = torch.diag(torch.tensor([5.0, -3.0, 1.0, 0.1, 0.0], dtype=torch.float64))
    pairs = eigsh(A, 3, which="LM", method="power", tol=1e-9)
    assert pairs.values.tolist() == pytest.approx([5.0, -3.0, 1.0], rel=1e-6)
    true = (A @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    assert pairs.residuals.dtype == torch.float64 and torch.allclose(pairs.residuals, true, rtol=1e-6, atol=1e-15)


def test_a_run_that_starts_from_old_pairs_repeats_to_the_last_bit():
    A = seeded(lambda: torch.randn(40, 40, dtype=torch.float64))
    old = eigsh(A + A.T, 3)
    first, again = (eigsh(A + A.T, 3, v0=old) for _ in range(2))
    assert torch.equal(first.values, again.values) and torch.equal(first.vectors, again.vectors)


def test_old_pairs_start_as_a_sum_of_random_signs_and_a_random_part():
    A = seeded(lambda: torch.randn(200, 200, dtype=torch.float64))
    old = eigsh(A + A.T, 12, check=False)
    space = KrylovSpace(as_operator(A + A.T), 20, 2, 0)
    start = solver._start_vector(old, 200, space)
    inside = old.vectors.T @ start * np.sqrt(12)
    assert ((inside.abs() - 1).abs() < 0.2).all() and set(inside.sign().tolist()) == {-1.0, 1.0}
    rest = start - old.vectors @ (old.vectors.T @ start)
    assert 0.05 < rest.norm() < 0.15


def test_the_power_method_counts_its_products():
    H = Counting(torch.diag(torch.tensor([5.0, -3.0, 1.0, 0.0], dtype=torch.float64)))
    taken = power_iteration(H, 2).products
    assert taken == H.products > 4
    for size in (1e-6, 1e6):  # the change is relative
        assert power_iteration(size * H.A, 2).products == taken
    assert power_iteration(H, 2, tol=1e-12, max_products=7).products == 7 + 1  # the second vector is taken as it is
