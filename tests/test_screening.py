"""Screened spectra against those of the whole set, and the Weyl bound on what is left out."""

import pytest
import torch
from torch import nn

from hbanalysis.eigen import eigsh
from hbanalysis.operators import WeightHessian
from hbanalysis.screening import doubts, heavy_samples, screened_eigsh
from tests.small_nets import trained_on_digits


@pytest.fixture(scope="module")
def trained():
    return trained_on_digits(samples=600, hidden=24, steps=1500)


@pytest.mark.parametrize("share", [1e-2, 1e-4, 1e-6])
def test_values_lie_within_their_bounds_of_the_whole_sets(trained, share):
    truth = torch.linalg.eigvalsh(WeightHessian(*trained).dense()).flip(0)[:8]
    result = screened_eigsh(*trained, 8, share=share)
    assert bool(((result.pairs.values - truth).abs() <= result.pairs.bounds + 1e-12).all())
    assert bool(((result.pairs.values - truth).abs() <= 1e-4 * truth).all())


def test_samples_are_left_out_and_their_norm_is_honest(trained):
    model, x, y = trained
    result = screened_eigsh(*trained, 3, share=1e-5)
    assert 0 < result.kept < 0.9
    _, rest = heavy_samples(doubts(*trained), 1e-5)
    R = WeightHessian(model, x[rest], y[rest], total=len(y)).dense()
    assert torch.linalg.eigvalsh(R).abs().max().item() <= result.error
    assert len(rest) == pytest.approx((1 - result.kept) * len(y))


def test_too_large_a_share_falls_back_to_every_sample(trained):
    result = screened_eigsh(*trained, 8, share=0.2)
    assert (result.kept, result.error) == (1.0, 0.0)
    assert torch.allclose(result.pairs.values, eigsh(WeightHessian(*trained), 8).values, rtol=1e-4)


def test_doubts_keep_their_digits():
    z = torch.tensor([[40.0, 0.0, 0.0]])
    model = nn.Identity()
    assert doubts(model, z, torch.tensor([0])).item() == pytest.approx(2 * 4.248354e-18, rel=1e-5)


def test_fewest_samples_are_kept():
    weights = torch.tensor([1.0, 0.5, 0.25, 0.25])
    assert [part.tolist() for part in heavy_samples(weights, 0.25)] == [[0, 1], [2, 3]]
    assert len(heavy_samples(weights, 0.2)[1]) == 1
    assert heavy_samples(weights, 0.0)[0].tolist() == [0, 1, 2, 3]
