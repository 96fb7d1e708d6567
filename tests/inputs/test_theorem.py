"""The check of Theorem 1: dense Hessians against torch's own, and that it finds what breaks the theorem."""

import pytest
import torch
from torch import nn

from hbanalysis.errors import InputError
from hbanalysis.inputs import HessianEnds, dense_input_hessians, hessian_ends, product_errors
from tests.input_nets import dense_hessians, problem
from tests.oracles import close, seeded


@pytest.mark.parametrize("name", ["conv", "shortcut", "softplus"])
def test_dense_hessians_are_those_of_the_plain_cross_entropy(name):
    model, x, y = problem(name)
    assert close(dense_input_hessians(model, x, y), dense_hessians(model, x, y), 1e-11)


def test_a_float32_model_is_checked_in_float64_and_left_as_it_was():
    model, x, y = problem("conv")
    precise = dense_input_hessians(model, x.float().double(), y)
    single = model.float()
    before = {name: value.clone() for name, value in single.state_dict().items()}
    found = dense_input_hessians(single, x.float(), y)
    assert found.dtype == torch.float64
    assert close(found, precise, 1e-4)  # the weights were rounded once
    assert single.training and all(torch.equal(before[name], value) for name, value in single.state_dict().items())
    assert all(p.dtype == torch.float32 and p.grad is None for p in single.parameters())


@pytest.mark.parametrize("name", ["conv", "shortcut", "leaky", "linear"])
def test_piecewise_linear_networks_keep_the_theorem(name):
    model, x, y = problem(name)
    ends = hessian_ends(model, x, y)
    truth = torch.linalg.eigvalsh(dense_hessians(model, x, y))
    assert ends.limit == 3
    assert close(ends.highest, truth[:, -1], 1e-11)
    assert (ends.negative_ratios < 1e-12).all() and (ends.ranks == 3).all()
    assert not ends.exceptions(1e-10).any()
    assert (ends.asymmetry < 1e-12).all()


def test_a_smooth_activation_breaks_it():
    model, x, y = problem("softplus")
    ends = hessian_ends(model, x, y)
    truth = torch.linalg.eigvalsh(dense_hessians(model, x, y))
    assert close(ends.lowest, truth[:, 0], 1e-9)
    assert ends.exceptions(1e-10).all() and (ends.ranks > 3).all()
    assert (product_errors(model, x, y) > 1e-3).any()


def test_saturated_samples_are_no_exception():
    """1 - p_y = 1e-20: a loss that subtracts from 1 would show rounding as negative curvature."""
    model = nn.Linear(4, 3).double()
    with torch.no_grad():
        model.bias.copy_(torch.tensor([46.0, 0.0, 0.0]))
    ends = hessian_ends(model, torch.rand(5, 4, dtype=torch.float64), torch.zeros(5, dtype=torch.long))
    assert (ends.highest > 0).all() and (ends.highest < 1e-18).all()
    assert not ends.exceptions(1e-10).any() and (ends.ranks == 2).all()


def test_the_limit_is_the_smaller_of_classes_and_inputs():
    model, x = seeded(lambda: (nn.Linear(2, 5).double(), torch.randn(4, 2, dtype=torch.float64)))
    ends = hessian_ends(model, x, torch.tensor([0, 1, 2, 3]))
    assert ends.limit == 2 and (ends.ranks == 2).all()


def test_a_zero_hessian_has_no_ratio():
    ends = HessianEnds(torch.tensor([0.0, -1.0]), torch.zeros(2), torch.tensor([0, 1]), torch.zeros(2), 1)
    assert ends.negative_ratios.tolist() == [0.0, float("inf")]
    assert ends.exceptions(1e-10).tolist() == [False, True]


def test_products_agree_with_the_formula_where_it_holds():
    model, x, y = problem("shortcut")
    errors = product_errors(model, x, y, vectors=2)
    assert errors.shape == (7, 2) and (errors < 1e-11).all()
    with pytest.raises(InputError, match="vectors must be at least 1"):
        product_errors(model, x, y, vectors=0)


class Bowl(nn.Module):
    """Logits that are flat at 0, and bent there."""

    def forward(self, x):
        return 0.01 * x.square().sum(1, keepdim=True) * torch.tensor([1.0, -1.0]).to(x)


def test_where_the_formula_is_zero_so_must_the_product_be():
    model = nn.Linear(4, 3).double()
    nn.init.zeros_(model.weight)
    x, y = torch.rand(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    assert product_errors(model, x, y).eq(0).all()
    at_zero = product_errors(Bowl(), 0 * x, y.clamp(max=1))
    assert at_zero.eq(torch.inf).all()
