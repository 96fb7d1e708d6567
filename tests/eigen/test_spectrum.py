"""Stochastic Lanczos quadrature against prescribed spectra, a Wishart matrix and a small network's dense Hessian."""

import math

import numpy as np
import pytest
import torch

import hbanalysis as hb
from hbanalysis.eigen.spectrum import SpectralDensity, spectral_density
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import WeightHessian
from tests.prescribed import Counting, matrix
from tests.small_nets import trained_on_digits

RNG = np.random.default_rng(5)
SPECTRA = {
    "normal": RNG.normal(size=200),
    "clustered": np.repeat([-3.0, 0.5, 4.0], [20, 120, 60]) + 1e-3 * RNG.normal(size=200),
    "zero mass": np.concatenate([np.zeros(150), RNG.exponential(size=50)]),
    "negative": -RNG.exponential(size=200),
    "network": np.concatenate([10.0 ** np.linspace(2, 0, 10), 0.02 * RNG.normal(size=190)]),
}


def within(mean, truth, errors=4.0, rounding=1e-10):
    return abs(mean.value - truth) <= errors * mean.standard_error_over_probes + rounding


@pytest.mark.parametrize("kind", SPECTRA)
def test_expectations_of_prescribed_spectra(kind):
    spectrum = SPECTRA[kind]
    found = spectral_density(matrix(spectrum), probes=20, steps=60)
    for order in range(5):
        assert within(found.moment(order), np.mean(spectrum**order))
    assert within(found.expectation(lambda x: torch.exp(-x.abs() / 10)), np.mean(np.exp(-np.abs(spectrum) / 10)))
    assert found.moment(0).value == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize("kind", SPECTRA)
def test_shares_below_zero_and_at_zero(kind):
    spectrum = SPECTRA[kind]
    found = spectral_density(matrix(spectrum), probes=30)
    # The quadrature may put a node of the mass next to the step on its other side.
    truncation = 0.0 if kind in ("clustered", "zero mass", "negative") else 0.03
    assert within(found.negative_share(), np.mean(spectrum < 0), rounding=1e-10 + truncation)
    assert within(found.zero_share(), np.mean(spectrum == 0), rounding=1e-10 + truncation)
    assert found.share().value == pytest.approx(1.0, abs=1e-14)
    assert found.share(-10.0, 10.0).value <= 1.0 + 1e-14


def test_clusters_are_weighed_one_by_one():
    found = spectral_density(matrix(SPECTRA["clustered"]), probes=40)
    for centre, share in ((-3.0, 0.1), (0.5, 0.6), (4.0, 0.3)):
        assert within(found.share(centre - 0.1, centre + 0.1), share)


@pytest.mark.parametrize(
    ("f", "of_numpy"),
    [(lambda x: x, lambda x: x), (torch.square, np.square), (torch.exp, np.exp)],
    ids=["trace", "square", "exponential"],
)
def test_error_bars_cover_the_truth(f, of_numpy):
    """With ten probes t(9) puts 92 % of runs within two standard errors; bars are neither too short nor too long."""
    spectrum = SPECTRA["normal"]
    A, truth, scores = matrix(spectrum), np.mean(of_numpy(spectrum)), []
    for seed in range(60):
        mean = spectral_density(A, steps=12, seed=seed).expectation(f)
        scores.append((mean.value - truth) / mean.standard_error_over_probes)
    assert 0.85 <= np.mean(np.abs(scores) <= 2) <= 1.0
    assert 0.6 < np.std(scores) < 1.6
    assert abs(np.mean(scores)) < 4 * np.std(scores) / math.sqrt(60)


@pytest.fixture(scope="module")
def wishart():
    X = np.random.default_rng(2).normal(size=(900, 300))
    return X.T @ X / 900


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cdf_of_a_wishart_matrix(wishart, dtype):
    eigenvalues = np.linalg.eigvalsh(wishart)
    found = spectral_density(torch.from_numpy(wishart).to(dtype), probes=20)
    cdf = found.cdf()
    truth = np.searchsorted(eigenvalues, cdf.x.numpy(), side="right") / 300
    assert np.abs(cdf.mean.numpy() - truth).max() < 0.03
    assert bool((cdf.mean.diff() >= -1e-14).all())
    assert cdf.mean[0] == 0.0 and cdf.mean[-1] == pytest.approx(1.0)
    assert found.nodes.min() >= eigenvalues[0] - 1e-5 and found.nodes.max() <= eigenvalues[-1] + 1e-5


def test_cdf_steps_at_the_eigenvalues():
    found = spectral_density(torch.diag(torch.tensor([1.0, 1.0, 2.0, 2.0], dtype=torch.float64)), probes=500)
    cdf = found.cdf(torch.tensor([0.5, 1.0 + 1e-9, 1.5, 2.0 + 1e-9], dtype=torch.float64))
    assert cdf.mean[0] == 0.0 and cdf.mean[3] == pytest.approx(1.0)
    assert cdf.mean[1] == cdf.mean[2]
    assert abs(cdf.mean[1] - 0.5) <= 4 * cdf.standard_error_over_probes[1]


def directions(n, probes, seed):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(probes)], 1)
    return drawn / drawn.norm(dim=0)


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("steps", [3, 10, 40])
def test_bounds_hold_for_the_directions_probed(kind, steps):
    """In each direction v the measure is known: the eigenvector i of A weighs (q_i . v)^2."""
    A = matrix(SPECTRA[kind])
    eigenvalues, Q = torch.linalg.eigh(A)
    shares = (Q.T @ directions(200, 4, seed=6)).square().mean(1)
    found = spectral_density(A, probes=4, steps=steps, seed=6)
    grid = torch.linspace(-4.0, 4.0, 301, dtype=torch.float64) + 1e-7
    truth = (shares * (eigenvalues <= grid[:, None])).sum(1)
    cdf = found.cdf(grid)
    assert bool((cdf.lowest - 1e-9 <= truth).all()) and bool((truth <= cdf.highest + 1e-9).all())
    assert bool((cdf.lowest <= cdf.mean).all()) and bool((cdf.mean <= cdf.highest).all())
    for low, high in ((-0.5, 0.3), (-math.inf, 1.0), (-3.5, 0.1), (0.2, math.inf)):
        mass = float(shares[(eigenvalues >= low) & (eigenvalues <= high)].sum())
        share = found.share(low, high)
        assert share.lowest - 1e-9 <= mass <= share.highest + 1e-9
        assert share.lowest <= share.value + 1e-12 and share.value <= share.highest + 1e-12
    negative = found.negative_share(1e-7)
    assert negative.lowest - 1e-9 <= float(shares[eigenvalues < -1e-7].sum()) <= negative.highest + 1e-9


def test_bounds_narrow_with_the_steps_and_close_where_the_rule_is_complete():
    A = matrix(SPECTRA["normal"])
    few, many = (spectral_density(A, steps=steps).negative_share() for steps in (10, 80))
    assert many.highest - many.lowest < 0.25 * (few.highest - few.lowest)
    whole = spectral_density(A, steps=200).negative_share()
    assert whole.lowest == pytest.approx(whole.value) == pytest.approx(whole.highest)
    everything = spectral_density(A, steps=10).share()
    assert everything.lowest == pytest.approx(1.0) == pytest.approx(everything.highest)


def test_smoothed_density_of_a_wishart_matrix(wishart):
    eigenvalues = np.linalg.eigvalsh(wishart)
    curve = spectral_density(torch.from_numpy(wishart), probes=20, bandwidth=0.1).density()
    x = curve.x.numpy()
    kernel = np.exp(-(((x[:, None] - eigenvalues) / 0.1) ** 2) / 2) / (0.1 * math.sqrt(2 * math.pi))
    truth = kernel.mean(1)
    score = np.abs(curve.mean.numpy() - truth) / (curve.standard_error_over_probes.numpy() + 1e-6)
    assert np.mean(score <= 2) > 0.8
    assert score.max() < 5


@pytest.mark.parametrize("kind", SPECTRA)
@pytest.mark.parametrize("bandwidth", [None, 0.3])
def test_mass_integrates_to_one(kind, bandwidth):
    found = spectral_density(matrix(SPECTRA[kind]), bandwidth=bandwidth)
    curve = found.density()
    assert torch.trapezoid(curve.mean, curve.x).item() == pytest.approx(1.0, abs=2e-6)
    assert len(curve.x) == 1000 and bool((curve.standard_error_over_probes >= 0).all())
    assert torch.allclose(found.weights.sum(1), torch.ones(10, dtype=torch.float64), atol=1e-14)


def test_grid_and_bandwidth_can_be_chosen_before_and_after():
    grid = torch.linspace(-6, 6, 77, dtype=torch.float32)
    A = matrix(SPECTRA["normal"])
    before = spectral_density(A, grid=grid, bandwidth=0.5).density()
    after = spectral_density(A).density(grid, bandwidth=0.5)
    assert torch.equal(before.x, grid.double())
    assert torch.equal(before.mean, after.mean)


def test_full_steps_leave_the_sampling_alone():
    """With n steps the rule of a probe is the probe's own measure: f(H) in its direction, exactly."""
    spectrum = np.array([-2.0, -1.0, 0.0, 0.5, 3.0, 7.0])
    A = matrix(spectrum)
    found = spectral_density(A, probes=3, steps=6, seed=9)
    assert found.complete.all()
    for i, v in enumerate(directions(6, 3, seed=9).T):
        assert np.allclose(found.nodes[i].numpy(), spectrum, atol=1e-12)
        exact = float(v @ torch.linalg.matrix_exp(A) @ v)
        assert float(found.weights[i] @ found.nodes[i].exp()) == pytest.approx(exact, rel=1e-12)


def test_no_ghosts_after_many_steps():
    """An outlier converges early; without reorthogonalisation copies of it would appear."""
    spectrum = np.concatenate([[100.0], np.linspace(0, 1, 299)])
    found = spectral_density(matrix(spectrum, dtype=torch.float32), steps=150)
    assert ((found.nodes > 50).sum(1) == 1).all()


def test_exhausted_spaces_stop_early_and_keep_their_mass():
    H = Counting(torch.diag(torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64).repeat(40)))
    found = spectral_density(H, probes=4)
    assert found.products == H.products == 4 * 3
    assert found.complete.all()
    assert found.nodes.shape == (4, 80)
    assert torch.allclose(found.nodes[:, 2:], torch.tensor(5.0, dtype=torch.float64))
    assert (found.weights[:, 3:] == 0).all()
    for plain in (torch.zeros(12, 12), 7 * torch.eye(12)):
        trivial = spectral_density(plain)
        value = float(plain[0, 0])
        assert trivial.moment(1).value == pytest.approx(value, rel=1e-6)
        assert trivial.products == 10
        curve = trivial.density()
        assert torch.trapezoid(curve.mean, curve.x).item() == pytest.approx(1.0, abs=2e-6)
    assert spectral_density(torch.tensor([[3.0]])).moment(1).value == pytest.approx(3.0)


def test_products_and_progress():
    H, shown = Counting(matrix(SPECTRA["normal"])), []
    found = spectral_density(H, probes=5, steps=7, block=3, show=lambda done, most: shown.append((done, most)))
    assert found.products == H.products == 35
    assert H.widest == 3
    assert shown[0] == (3, 35) and shown[-1] == (35, 35) and len(shown) == 14


@pytest.mark.parametrize("block", [1, 4])
def test_same_seed_same_bits_other_seed_other_probes(block):
    A = matrix(SPECTRA["network"], dtype=torch.float32)
    first, again = (spectral_density(A, seed=3, block=block) for _ in range(2))
    assert torch.equal(first.nodes, again.nodes) and torch.equal(first.weights, again.weights)
    assert not torch.equal(spectral_density(A, seed=4, block=block).weights, first.weights)


def test_blocks_change_rounding_only():
    A = matrix(SPECTRA["normal"])
    one, four = spectral_density(A, steps=30), spectral_density(A, steps=30, block=4)
    assert torch.allclose(one.nodes, four.nodes, atol=1e-10)
    assert torch.allclose(one.weights, four.weights, atol=1e-10)


def test_more_probes_keep_the_first_ones():
    A = matrix(SPECTRA["normal"])
    assert torch.equal(spectral_density(A, probes=2).nodes, spectral_density(A, probes=3).nodes[:2])


def test_float32_agrees_with_float64():
    spectrum = SPECTRA["network"]
    single = spectral_density(matrix(spectrum, dtype=torch.float32), steps=40)
    double = spectral_density(matrix(spectrum), steps=40)
    assert single.nodes.dtype == torch.float64
    for order in (1, 2, 3):
        assert single.moment(order).value == pytest.approx(double.moment(order).value, rel=1e-5)
    assert single.rounding == pytest.approx(2e3 * torch.finfo(torch.float32).eps, rel=1e-3)


@pytest.mark.needs_cuda
def test_cuda_takes_the_same_directions():
    A = matrix(SPECTRA["normal"])
    here, there = spectral_density(A, steps=30), spectral_density(A.cuda(), steps=30, block=4)
    assert there.nodes.device.type == "cpu"
    assert torch.allclose(here.nodes, there.nodes, atol=1e-9)
    assert torch.allclose(here.cdf().mean, there.cdf(here.grid).mean, atol=1e-9)


def test_zero_mass_is_found_in_float32():
    spectrum = SPECTRA["zero mass"]
    found = spectral_density(matrix(spectrum, dtype=torch.float32))
    assert within(found.zero_share(), 0.75) and found.zero_share().value > 0.6
    assert found.negative_share().value < 1e-9


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_weight_hessian_against_its_dense_matrix(dtype):
    model, x, y = trained_on_digits(samples=100, hidden=8, steps=100)
    eigenvalues = torch.linalg.eigvalsh(WeightHessian(model, x, y).dense()).numpy()
    H = WeightHessian(model.to(dtype), x.to(dtype), y)
    found = hb.spectral_density(H, probes=12, steps=60)
    assert found.products == H.products == 720
    for order in (1, 2):
        assert within(found.moment(order), np.mean(eigenvalues**order))
    for bound in (0.01, 0.1, 1.0):
        truth = np.mean(eigenvalues > bound)
        assert within(found.share(low=bound), truth, rounding=0.01)
    # The largest eigenvalue, its own node in every probe.
    assert np.allclose(found.nodes[:, -1].numpy(), eigenvalues[-1], rtol=1e-4)
    assert isinstance(found, hb.SpectralDensity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, "at least 2 probes; given 1"),
        ({"steps": 21}, "steps must lie in 1..20 .*given 21"),
        ({"steps": 0}, "given 0"),
        ({"block": 0}, "given 0"),
        ({"points": 1}, "at least 2 points; given 1"),
        ({"bandwidth": 0.0}, "positive width.*given 0.0"),
        ({"bandwidth": math.inf}, "given inf"),
        ({"grid": torch.tensor([1.0, 0.0])}, "ascending.*torch.linspace"),
        ({"grid": torch.tensor([0.0, math.nan])}, "finite"),
        ({"grid": torch.zeros(2, 2)}, "given shape \\(2, 2\\)"),
    ],
)
def test_bad_input_is_said(options, message):
    H = Counting(torch.eye(20))
    with pytest.raises(InputError, match=message):
        spectral_density(H, **options)
    assert H.products == 0


def test_bad_questions_to_a_result_are_said():
    found = spectral_density(matrix(SPECTRA["negative"]), steps=5)
    with pytest.raises(NumericalError, match="f is not finite at the node -"):
        found.expectation(torch.log)
    with pytest.raises(InputError, match="elementwise"):
        found.expectation(torch.sum)
    with pytest.raises(InputError, match="given 1.0 and 0.0"):
        found.share(1.0, 0.0)
    with pytest.raises(InputError, match="given -1"):
        found.moment(-1)
    with pytest.raises(InputError, match="ascending"):
        found.cdf(torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="given -0.1"):
        found.density(bandwidth=-0.1)


def test_what_is_no_operator_is_said():
    with pytest.raises(InputError, match="given NoneType"):
        spectral_density(None)


def test_product_that_is_not_finite():
    broken = torch.eye(20)
    broken[3, 3] = math.nan
    with pytest.raises(NumericalError, match="Lanczos step 1"):
        spectral_density(Counting(broken))


@pytest.mark.parametrize("complete", [True, False])
def test_an_interval_holds_its_ends_and_bounds_are_the_next_nodes(complete):
    nodes, weights = (torch.tensor([line] * 2).double() for line in ([1.0, 2.0, 3.0], [0.2, 0.3, 0.5]))
    done = torch.tensor([complete] * 2)
    density = SpectralDensity(nodes, weights, done, torch.linspace(0, 4, 5).double(), 0.1, 0.0, 6)

    def found(*interval):
        share = density.share(*interval)
        return pytest.approx((share.value, share.lowest, share.highest))

    assert found(2.0, 2.0) == ((0.3, 0.3, 0.3) if complete else (0.3, 0.0, 1.0))
    assert found(2.0) == ((0.8, 0.8, 0.8) if complete else (0.8, 0.5, 1.0))
    assert found(-math.inf, 2.0) == ((0.5, 0.5, 0.5) if complete else (0.5, 0.2, 1.0))
    assert found() == (1.0, 1.0, 1.0)
