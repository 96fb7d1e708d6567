"""Lanczos runs in step on dense matrices with a prescribed spectrum."""

import pytest
import torch

from hbanalysis.inputs.lanczos import leading_pairs
from tests.oracles import close, seeded

EPS = torch.finfo(torch.float64).eps


def matrices(spectra):
    """Symmetric (n, d, d) with the given eigenvalues in random bases."""
    n, d = spectra.shape
    bases = seeded(lambda: torch.linalg.qr(torch.randn(n, d, d, dtype=torch.float64))[0])
    return bases @ torch.diag_embed(spectra) @ bases.mT


def solve(H, k, which="LA", tol=1e-8, limit=1000):
    return leading_pairs(lambda v: (H @ v[:, :, None])[:, :, 0], H[:, 0], k, which, tol, limit, EPS, 0)


def order(spectra, which, k):
    keys = {"LA": -spectra, "SA": spectra, "LM": -spectra.abs()}[which]
    return spectra.gather(1, keys.argsort(dim=1))[:, :k]


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("k", [1, 3, 12])
def test_finds_prescribed_spectra(which, k):
    spectra = seeded(lambda: torch.randn(4, 12, dtype=torch.float64) * torch.tensor([1.0, 1e-12, 1e8, 3.0])[:, None])
    H = matrices(spectra)
    found = solve(H, k, which)
    truth = order(spectra, which, k)
    assert bool(found.converged.all())
    for value, expected in zip(found.values, truth, strict=True):
        assert close(value, expected, 1e-9)
    V = found.vectors
    assert (V @ V.mT - torch.eye(k)).abs().max() < 1e-10
    true_residuals = (H @ V.mT - V.mT * found.values[:, None, :]).norm(dim=1)
    sizes = spectra.abs().amax(1, keepdim=True)
    assert ((true_residuals - found.residuals).abs() <= 1e-12 * sizes).all()


def test_low_rank_repeated_and_zero_spectra():
    spectra = torch.zeros(3, 9, dtype=torch.float64)
    spectra[0, :2] = torch.tensor([5.0, 2.0])
    spectra[1, :4] = 3.0  # a Krylov space holds one of these
    found = solve(matrices(spectra), 9)
    assert (found.values - spectra).abs().max() < 1e-12
    assert bool(found.converged.all())
    assert solve(matrices(spectra), 1).products <= 3


REPEATED = {
    "LA": [[3.0, 3.0, 3.0, 1.0, 0.0], [5.0, 4.0, 4.0, 4.0, 0.0], [2.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5],
    "SA": [[7.0, 0.0, 0.0, 0.0, 0.0], [1.0, -2.0, -2.0, -2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0], [0.0] * 5],
    "LM": [[-4.0, 4.0, 4.0, 1.0, 1.0], [-4.0, -4.0, -4.0, 0.0, 0.0], [6.0, 0.0, 0.0, 0.0, 0.0], [0.0] * 5],
}


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("which", REPEATED)
def test_every_copy_of_an_eigenvalue_is_found(which, k):
    spectra = torch.tensor(REPEATED[which], dtype=torch.float64)
    H = matrices(spectra)
    found = solve(H, k, which)
    truth = order(spectra, which, k)
    assert bool(found.converged.all())
    assert (found.values.abs() - truth.abs()).abs().max() < 1e-9
    if which != "LM":
        assert (found.values - truth).abs().max() < 1e-9
    V = found.vectors
    assert (V @ V.mT - torch.eye(k)).abs().max() < 1e-9
    assert (H @ V.mT - V.mT * found.values[:, None, :]).norm(dim=1).max() < 1e-7
    for i in range(len(H)):
        assert (solve(H[i : i + 1], k, which).values - found.values[i : i + 1]).abs().max() < 1e-9


def test_a_search_that_did_not_end_is_told():
    """A limit that leaves no room for the search: residuals are small, the second 3 is missing, and that is said."""
    H = matrices(torch.tensor([[3.0, 3.0, 2.0, 1.0, 0.0, -1.0]], dtype=torch.float64))
    runs = [solve(H, 2, tol=1e-6, limit=limit) for limit in range(2, 20)]
    assert all(run.products <= limit for limit, run in enumerate(runs, start=2))
    missing = [run for run in runs if run.residuals.max() < 1e-5 and run.values[0, 1] < 2.5]
    assert missing and not any(run.converged.item() for run in missing)
    assert runs[-1].converged.item() and runs[-1].values[0].tolist() == pytest.approx([3, 3])


def test_a_limit_is_kept_and_told():
    spectra = torch.linspace(0, 1, 60, dtype=torch.float64).repeat(2, 1)
    spectra[1] = 0
    spectra[1, 0] = 1
    found = solve(matrices(spectra), 1, limit=5)
    assert found.products == 5 and found.converged.tolist() == [False, True]
    assert found.residuals[0, 0] > 1e-3


def test_a_run_does_not_depend_on_its_neighbours():
    spectra = seeded(lambda: torch.rand(5, 40, dtype=torch.float64)) ** torch.arange(1, 6)[:, None]
    H = matrices(spectra)
    whole = solve(H, 2, tol=1e-4)
    for i in range(5):
        alone = solve(H[i : i + 1], 2, tol=1e-4)
        assert close(alone.values, whole.values[i : i + 1], 1e-12)
