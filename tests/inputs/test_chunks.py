"""How many samples are differentiated at once: what was asked for, else what memory allows."""

import functools
import warnings

import pytest
import torch
from torch import nn

import hbanalysis as hb
from hbanalysis.errors import RankWarning
from hbanalysis.inputs import logit_jacobians, logits
from hbanalysis.inputs.logits import LogitMap
from tests.input_nets import problem


class Counting(nn.Module):
    """Notes how many samples each forward pass has."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(len(x))
        return self.model(x)


@pytest.mark.parametrize(
    "compute",
    [
        hb.newton_direction,
        hb.boundary_distance,
        hb.input_spectrum,
        functools.partial(hb.input_spectrum, vectors=True),
        functools.partial(hb.input_spectrum, method="lanczos", k=1),
        lambda *given, **settings: list(logit_jacobians(*given, **settings)),
        lambda *given, **settings: hb.InputHessian(*given, **settings) @ given[1],
    ],
    ids=["newton", "distance", "values", "pairs", "lanczos", "jacobians", "operator"],
)
def test_no_more_samples_at_once_than_asked_for(compute):
    model, x, y = problem(samples=11)
    counting = Counting(model)
    compute(counting, x, y, chunk_size=4)
    assert max(counting.seen) == 4 and counting.seen.count(3) >= 1  # 4, 4 and what is left
    counting.seen.clear()
    compute(counting, x, y, memory_budget=1)
    assert set(counting.seen[-11:]) == {1} and max(counting.seen) == 2  # 2 while the model is looked at


@pytest.mark.parametrize("compute", [hb.input_spectrum, functools.partial(hb.newton_direction, normalized=True)])
def test_many_classes_count_by_their_square(compute):
    """Beside 3 inputs, 300 classes take 299 x 299 numbers of 8 bytes a sample at least."""
    counting = Counting(nn.Linear(3, 300))
    with warnings.catch_warnings(action="ignore", category=RankWarning):
        compute(counting, torch.rand(40, 3), torch.arange(40), memory_budget=10 * 8 * 299**2)
    assert 2 < counting.seen[-2] == max(counting.seen) <= 10


def test_what_fits_is_taken_but_never_less_than_one_sample():
    found = LogitMap(*problem())
    assert found.size(None, 1000, 100.0) == 10
    assert found.size(None, 1099, 100.0) == 10
    assert found.size(None, 10**9, 1.0) == 50  # the most on a CPU
    assert found.size(None, 1, 1e9) == 1
    assert found.size(7, 1, 1e9) == 7


def test_budgets_leave_most_of_the_memory_free(monkeypatch):
    found = LogitMap(*problem())
    monkeypatch.setattr(logits, "available", lambda device: 4003)
    assert found.budget(None) == 1000 and found.budget(123) == 123
    found.device = torch.device("cuda")  # only asked for its kind
    assert found.budget(None) == 2001
    monkeypatch.setattr(logits, "available", lambda device: 2**40)
    assert found.budget(None) == 2**39
    found.device = torch.device("cpu")
    assert found.budget(None) == 2**30
