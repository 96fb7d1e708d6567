"""Errors name exactly what was given, so that the one who reads them need not look for it."""

import pytest
import torch
from torch import nn

from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian, as_operator
from hbanalysis.operators.guards import check_model
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.operators.samples import checked

X, Y = torch.rand(4, 2), torch.tensor([0, 1, 0, 1])


def mixed(**settings):
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, **settings))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_model(mixed(device="meta")), r"several devices (cpu, meta); move the model to one."),
        (
            lambda: ParameterSpace(mixed(dtype=torch.float64)),
            "share one dtype and one device; given ['torch.float32', 'torch.float64'] on ['cpu'].",
        ),
        (lambda: ParameterSpace(mixed(device="meta")), "given ['torch.float32'] on ['cpu', 'meta']."),
        (lambda: WeightHessian(mixed(), X, [Y, Y]), "This loss takes one tensor of targets; given list."),
        (lambda: WeightHessian(mixed(), [(X, [Y, Y])]), "This loss takes one tensor of targets; given list."),
        (lambda: checked(X, Y, torch.tensor([1.0, -2.0, -3.0, 0.0])), "not negative; given [-2.0]."),
        (lambda: checked(X, Y, torch.ones(3)), "4 samples need as many weights, shape (4,); given (3,)."),
        (lambda: checked({"a": X[:3]}, Y, None), "Inputs of 3 samples need as many targets; given 4."),
        (lambda: checked({}, Y, None), "The inputs hold no tensor; given dict."),
        (lambda: checked(X[0, 0], Y, None), "Inputs of 0 samples need as many targets; given 4."),
        (lambda: checked(X, Y[0], None), "Inputs of 4 samples need as many targets; given 0."),
        (
            lambda: check_model(mixed(dtype=torch.float16)),
            "16 bits keep no second derivatives. Use copy.deepcopy(model).float().",
        ),
        (
            lambda: ParameterSpace(mixed().requires_grad_(False)),
            "The model has no parameter that requires a gradient, so it has no weight space. Call requires_grad_(True)",
        ),
        (lambda: as_operator("H"), "An operator is needed: one of this package, a dense tensor or array, or a SciPy "),
    ],
)
def test_what_was_given_is_named(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
