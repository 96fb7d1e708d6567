"""The Newton attacks by the exact solver, from the Jacobian of the logits."""

import pytest
import torch
from torch import nn

from hbanalysis import attacks
from hbanalysis.errors import InputError
from tests.attack_nets import convolutional, cosines, digits, gradients, hardly_trained, hessians, linear
from tests.oracles import seeded

NEWTON = [attacks.fhsm, attacks.l2_hess]


def moved(model, x, y, eps=0.5, **choices):
    return attacks.l2_hess(model, x, y, eps, clip=None, solver="exact", **choices) - x


@pytest.mark.parametrize("net", [hardly_trained, convolutional])
def test_it_is_the_pseudo_inverse_on_the_gradient(net):
    model, x, y = net()
    H, g = hessians(model, x, y), gradients(model, x, y).flatten(1)
    values = torch.linalg.eigvalsh(H).flip(1)
    regular = values[:, 0] < 1e7 * values[:, model(x).shape[1] - 2]
    d = torch.einsum("nij,nj->ni", torch.linalg.pinv(H, rtol=1e-9, hermitian=True), g)
    found = moved(model, x, y)
    assert regular.sum() >= 8 and cosines(found, d)[regular].min() > 1 - 1e-9
    assert found.flatten(1).norm(dim=1).sub(0.5).abs().max() < 1e-12
    signs = attacks.fhsm(model, x, y, 0.1, solver="exact")
    agrees = signs == (x + 0.1 * d.reshape(x.shape).sign()).clamp(0, 1)
    assert agrees[regular].double().mean() > 0.999


def test_conjugate_gradients_end_there():
    model, x, y = hardly_trained()
    by_cg = attacks.l2_hess(model, x, y, 0.5, clip=None, iterations=9) - x
    assert cosines(moved(model, x, y), by_cg).median() > 0.999


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_all_other_logits_gain_the_same_on_the_label_s(dtype):
    """On any trained net and in either precision, where conjugate gradients stop early."""
    model, x, y = digits(dtype)
    step = moved(model, x, y, 1e-6 if dtype == torch.float64 else 1e-3)
    wide = digits()[0]
    with torch.no_grad():
        after, before = wide((x + step).double()), wide(x.double())
    gained = (after - before) - (after - before).gather(1, y[:, None])
    others = gained[torch.arange(10) != y[:, None]].reshape(-1, 9)
    even = others.std(1) / others.mean(1)
    assert (others.mean(1) > 0).all()
    assert even.median() < (1e-6 if dtype == torch.float64 else 0.05)


@pytest.mark.parametrize("damping", [1e-3, 1.0, 1e4])
def test_damping_is_that_of_the_dense_system(damping):
    model, x, y = digits()
    H, g = hessians(model, x, y), gradients(model, x, y)
    d = torch.linalg.solve(H + damping * torch.eye(16, dtype=torch.float64), g)
    assert cosines(moved(model, x, y, damping=damping), d).min() > 1 - 1e-6


@pytest.mark.parametrize("gap", [20.0, 60.0])
def test_saturated_samples(gap):
    weight = seeded(lambda: torch.randn(4, 9))
    x, y = torch.full((1, 9), 0.5), torch.tensor([0])
    exact = torch.linalg.lstsq((weight[1:] - weight[0]).double(), torch.ones(3, 1, dtype=torch.float64)).solution
    found = moved(linear(weight, [gap, 0.0, 0.0, 0.0], torch.float32), x, y)
    assert cosines(found, exact.T).item() > 1 - 1e-6


@pytest.mark.parametrize("attack", NEWTON)
def test_it_is_batched_clipped_and_leaves_everything(attack):
    model, x, y = convolutional()
    model.train()
    state = {n: t.clone() for n, t in model.state_dict().items()}
    with torch.no_grad():
        whole = attack(model, x, y, 0.4, solver="exact")
    assert 0 <= whole.min() and whole.max() <= 1 and not torch.equal(whole, x)
    assert torch.allclose(attack(model, x, y, 0.4, solver="exact", batch_size=3), whole, atol=1e-9)
    assert torch.equal(attack(model, x, y, 0.0, solver="exact"), x)
    assert attack(model, x[:0], y[:0], 0.4, solver="exact").shape == (0, 2, 6, 6)
    assert model.training and all(torch.equal(state[n], t) for n, t in model.state_dict().items())


@pytest.mark.parametrize("attack", NEWTON)
def test_other_networks_are_refused(attack):
    smooth = seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 3)))
    with pytest.raises(InputError, match="[Ss]oftplus"):
        attack(smooth, torch.rand(5, 4), torch.zeros(5).long(), 0.1, solver="exact")
