"""What inputs, labels and models input spectra take, and how the others are refused."""

import numpy as np
import pytest
import torch
from torch import nn

import hbanalysis as hb
from hbanalysis import inputs
from hbanalysis.errors import InputError, NumericalError
from tests.input_nets import Functional, problem
from tests.oracles import seeded


def test_bad_input_is_named():
    model, x, y = problem()
    scalar = nn.Sequential(nn.Flatten(), nn.Linear(72, 1)).double()
    mixing = problem()[0]
    mixing[1].eval = lambda: None
    mixing[1].train = lambda mode=True: None
    mixing[1].register_forward_pre_hook(lambda module, _: setattr(module, "training", True))
    half = problem()[0].half()
    detached, noisy = Functional(torch.detach).double(), Functional(nn.functional.dropout).double()
    split = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3, device="meta"))
    rows = torch.randn(7, 6, dtype=torch.float64)
    dictionary = Functional(lambda h: h)
    dictionary.last = nn.Module()
    dictionary.last.forward = lambda h: {"scores": h}
    spectrum = hb.input_spectrum
    cases = [
        (lambda: spectrum(model, x, y + 2), "label 4 of sample 2 is out of range.*0..3. 3 labels"),
        (lambda: spectrum(model, x, -y), "label -1 of sample 1"),
        (lambda: spectrum(model, x, y.double()), "integer classes; given torch.float64"),
        (lambda: spectrum(model, x, np.full(7, 0.5)), "integer classes; given torch.float64"),
        (lambda: spectrum(model, x, y[:3]), r"7 inputs need as many labels, shape \(7,\); given \(3,\)"),
        (lambda: spectrum(model, (255 * x).byte(), y), "given torch.uint8. Images of bytes become x / 255"),
        (lambda: spectrum(model, x.half(), y), "given torch.float16"),
        (lambda: spectrum(model, x[0, 0, 0], y[:6]), r"one entry a sample.*given \(6,\)"),
        (lambda: spectrum(model, x[:0], y[:0]), "There is no sample"),
        (lambda: spectrum(scalar, x, 0 * y), "one logit a sample.*has no curvature"),
        (lambda: spectrum(mixing, x, y), "depend on the other samples of its batch"),
        (lambda: spectrum(half, x, y), r"float16: 16 bits"),
        (lambda: spectrum(detached, rows, y), "do not depend on the inputs"),
        (lambda: spectrum(noisy, rows, y), "other logits for the same inputs in eval mode"),
        (lambda: spectrum(split, rows, y), "several devices"),
        (lambda: spectrum(dictionary, rows, y), "returned a dict"),
        (
            lambda: spectrum(model[:4], x, y),
            r"logits \(n, c\), one row a sample; for 2 samples it returned \(2, 4, 2, 2\)",
        ),
        (lambda: spectrum(model, x, y, k=4), r"k lies in 1..3: at most min\(c - 1, d\)"),
        (lambda: spectrum(model, x, y, method="lanczos", k=73), "k lies in 1..72"),
        (lambda: spectrum(model, x, y, method="exakt"), "Did you mean 'exact'"),
        (lambda: spectrum(model, x, y, which="SM"), "Known: LA, LM, SA"),
        (lambda: spectrum(model, x, y, which="SA"), "are 0 as soon as d > c - 1"),
        (lambda: spectrum(problem("softplus")[0], x, y, method="exact"), "because of softplus"),
        (lambda: spectrum(model, x, y, chunk_size=0), "chunk_size must be at least 1"),
        (lambda: spectrum(model, x, y, memory_budget=0), "memory_budget is in bytes"),
        (lambda: spectrum(model, x, y, method="lanczos", tol=0), "tol must be positive"),
        (lambda: spectrum(model, x, y, method="lanczos", k=5, max_products=4), "at least as many products"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, lambda y: np.array(y, np.uint8), lambda y: np.array(y[::-1])[::-1]]
)
def test_labels_are_what_a_tensor_can_be_made_of(kind):
    model, x, y = problem()
    labels = kind(y.tolist())
    assert torch.equal(hb.input_spectrum(model, x, labels), hb.input_spectrum(model, x, y))
    assert torch.equal(hb.newton_direction(model, x, labels), hb.newton_direction(model, x, y))
    assert inputs.hessian_ends(model, x[:2], labels[:2]).limit == 3


def test_a_slope_in_another_sample_counts_beyond_rounding():
    """A model that adds 1e-8 or 1e-4 of the batch's mean; float32 knows 7 digits."""
    x, y = seeded(lambda: torch.rand(4, 6)), torch.arange(4)
    model = Functional(lambda h: h)
    model.first.forward = lambda h: nn.functional.linear(h + share * h.mean(0), model.first.weight)
    share = 1e-8
    assert hb.input_spectrum(model, x, y).shape == (4, 3)
    share = 1e-4
    with pytest.raises(InputError, match="depend on the other samples of its batch"):
        hb.input_spectrum(model, x, y)


def test_what_is_not_finite_names_the_sample():
    model, x, y = problem()
    x[5, 0, 0, 0] = torch.nan
    with pytest.raises(NumericalError, match="sample 5"):
        hb.input_spectrum(model, x, y, chunk_size=2)
    with torch.no_grad():
        model[0].weight[0] = torch.nan
    with pytest.raises(NumericalError, match="sample 0"):
        hb.input_spectrum(model, x, y)
