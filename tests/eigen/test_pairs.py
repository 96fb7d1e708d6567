"""What a result says of itself."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from hbanalysis import checkpoints
from hbanalysis.eigen import eigsh
from hbanalysis.eigen.pairs import Completeness, Eigenpairs
from hbanalysis.eigen.solver import _start_vector
from hbanalysis.errors import InputError, StoreError
from hbanalysis.operators import WeightHessian


@pytest.mark.parametrize(
    ("known", "said", "whether"),
    [
        (Completeness("whole space", True), "complete: the whole space was searched", True),
        (
            Completeness("none", False),
            "not checked: an eigenvalue that the start vector hardly contains may be missing",
            False,
        ),
        (
            Completeness("probe", True, 7, 0.01, (0.0, 1.0)),
            "complete with probability 0.99 (any multiplicity), by a probe of 7 products",
            True,
        ),
        (
            Completeness("probe", False, 7, 0.01, None, 2),
            "not confirmed by a probe of 7 products; it brought 2 to light: others come too close to the wanted "
            "eigenvalues to tell whether one is missing",
            False,
        ),
    ],
)
def test_completeness_says_what_was_looked_at(known, said, whether):
    assert str(known) == said and bool(known) is whether


def test_a_result_that_has_not_converged_says_so():
    pairs = eigsh(torch.diag(torch.tensor([-3.0, 1.0, 2.0])), 2)
    assert "in 3 products, converged; complete" in repr(pairs)
    assert "in 3 products, not converged; complete" in repr(dataclasses.replace(pairs, converged=False))


def test_pairs_unpack_as_those_of_scipy():
    values, vectors = eigsh(torch.diag(torch.tensor([-3.0, 1.0, 2.0])), 2)
    assert values.tolist() == pytest.approx([2.0, 1.0]) and vectors.shape == (3, 2)


def test_pairs_are_saved_without_the_model_and_loaded_as_they_were(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    pairs = eigsh(WeightHessian(model, torch.randn(30, 4), torch.randint(3, (30,))), 3)
    pairs.save(tmp_path / "pairs.safetensors")
    again = Eigenpairs.load(tmp_path / "pairs.safetensors")
    for name in ("values", "vectors", "residuals", "bounds"):
        assert torch.equal(getattr(again, name), getattr(pairs, name))
    for name in ("products", "converged", "complete", "rounding", "method", "notes", "layout"):
        assert getattr(again, name) == getattr(pairs, name)
    assert repr(again) == repr(pairs) and bool(again.complete)
    for name, part in again.vector(1).items():
        assert part.shape == model.get_parameter(name).shape
        assert torch.equal(part, pairs.vector(1)[name])
    assert set(torch.load(_pickled(pairs, tmp_path), weights_only=False).vector(0)) == set(pairs.vector(0))
    checkpoints.save(tmp_path / "other.safetensors", {"x": torch.ones(1)})
    with pytest.raises(StoreError, match="holds no eigenpairs"):
        Eigenpairs.load(tmp_path / "other.safetensors")


def _pickled(pairs, folder):
    torch.save(pairs, folder / "pairs.pt")
    assert (folder / "pairs.pt").stat().st_size < 6000
    return folder / "pairs.pt"


@pytest.mark.parametrize("wrong", [np.ones(3), [1.0, 0.0, 0.0], torch.ones(4), torch.zeros(3)])
def test_a_start_that_is_none_is_named(wrong):
    with pytest.raises(InputError, match="v0 must be a tensor, not zero"):
        _start_vector(wrong, 3, None)
