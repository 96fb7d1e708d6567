"""Projected gradient ascent: closed forms, seeds, restarts, and its strength beside FGSM."""

import pytest
import torch
from torch import nn

from hbanalysis import attacks
from hbanalysis.attacks.gradients import margins
from tests.attack_nets import convolutional, cosines, digits, linear


def accuracy(model, x, y):
    return (model(x).argmax(1) == y).double().mean().item()


@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_one_full_step_from_the_image_is_fgsm(loss):
    """Of two classes both losses have the same direction."""
    model, x = linear([[0.5, -1.0, 0.3], [2.0, 1.0, -0.1]]), torch.rand(9, 3, dtype=torch.float64)
    y = torch.arange(9) % 2
    found = attacks.pgd(model, x, y, 0.1, steps=1, step_size=0.1, random_start=False, loss=loss)
    assert torch.allclose(found, attacks.fgsm(model, x, y, 0.1), atol=1e-15)
    found = attacks.pgd(model, x, y, 0.1, norm="2", steps=1, step_size=0.1, random_start=False, loss=loss, clip=None)
    assert torch.allclose(found, attacks.l2_grad(model, x, y, 0.1, clip=None), atol=1e-15)


@pytest.mark.parametrize(("loss", "sign"), [("cross_entropy", -1.0), ("margin", 1.0)])
def test_the_margin_looks_at_the_nearest_class_alone(loss, sign):
    """Class 1 is ahead of class 2, whose row is longer and points elsewhere."""
    model, x = linear([[0.0, 0.0], [1.0, 0.1], [1.0, -3.0]], [0.0, 0.1, 0.0]), torch.zeros(1, 2, dtype=torch.float64)
    how = {"steps": 1, "step_size": 0.01, "random_start": False, "clip": None, "loss": loss}
    assert attacks.pgd(model, x, torch.tensor([0]), 0.01, **how).tolist() == [[0.01, 0.01 * sign]]


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("loss", ["cross_entropy", "margin"])
def test_the_best_point_of_a_linear_model_is_found(norm, loss):
    """Inside the box it is x + eps u, with u the sign or the direction of the difference of the rows."""
    w = torch.tensor([[0.5, -1.0, 0.3], [2.0, 1.0, -0.1]], dtype=torch.float64)
    up = w[1] - w[0]
    model, x, y = linear(w), torch.full((1, 3), 0.5, dtype=torch.float64), torch.tensor([0])
    best = 0.2 * (up.abs().sum() if norm == "inf" else up.norm())
    found = attacks.pgd(model, x, y, 0.2, norm=norm, loss=loss, steps=40, restarts=3)
    assert ((found - x) @ up).item() == pytest.approx(best.item(), rel=1e-12 if norm == "inf" else 5e-3)


def test_the_margin_has_a_gradient_where_the_softmax_has_none():
    model = nn.Sequential(linear([[1.0, -2.0], [3.0, 1.0]], dtype=torch.float32), Scale(1e4))
    x, y = torch.tensor([[0.1, 0.1]]), torch.tensor([1])
    settings = {"steps": 5, "random_start": False}
    assert torch.equal(attacks.pgd(model, x, y, 0.3, softmax="plain", **settings), x)
    for choice in ({"loss": "margin"}, {}):
        assert (attacks.pgd(model, x, y, 0.3, **choice, **settings) < x).all()


class Scale(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, z):
        return self.factor * z


def test_the_seed_decides_the_start():
    model, x, y = digits()
    same = [attacks.pgd(model, x, y, 0.1, steps=1, seed=s) for s in (3, 3, 4)]
    assert torch.equal(same[0], same[1]) and not torch.allclose(same[0], same[2], atol=1e-3)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(attacks.pgd(model, x, y, 0.1, steps=1, seed=3), same[0])


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_restarts_are_never_weaker(norm):
    model, x, y = digits(samples=200)
    eps = 0.1 if norm == "inf" else 0.3
    reached = [
        margins(model(attacks.pgd(model, x, y, eps, norm=norm, steps=3, restarts=r, clip=None)), y) for r in (1, 2, 5)
    ]
    assert (reached[1] >= reached[0]).all() and (reached[2] >= reached[1]).all()
    assert (reached[2] > reached[0] + 1e-6).any()
    from_image = [
        margins(model(attacks.pgd(model, x, y, eps, norm=norm, steps=3, restarts=r, random_start=False)), y)
        for r in (1, 3)
    ]
    assert (from_image[1] >= from_image[0]).all() and (from_image[1] > from_image[0] + 1e-6).any()


@pytest.mark.parametrize("eps", [0.03, 0.06, 0.1])
def test_it_is_at_least_as_strong_as_fgsm_on_a_trained_net(eps):
    model, x, y = digits(samples=300)
    weak, ten = (accuracy(model, attack(model, x, y, eps), y) for attack in (attacks.fgsm, attacks.iterated_fgsm))
    assert ten <= weak < accuracy(model, x, y)
    strong = accuracy(model, attacks.pgd(model, x, y, eps, steps=40, restarts=2), y)
    assert strong <= ten and strong < weak
    assert accuracy(model, attacks.pgd(model, x, y, eps, steps=40, restarts=2, loss="margin"), y) < weak


def test_the_euclidean_attack_is_at_least_as_strong_as_one_step():
    model, x, y = digits(samples=300)
    weak = accuracy(model, attacks.l2_grad(model, x, y, 0.2), y)
    assert accuracy(model, attacks.pgd(model, x, y, 0.2, norm="2", steps=40), y) <= weak < accuracy(model, x, y)


@pytest.mark.parametrize(("norm", "power"), [("inf", 1.0), ("2", 8.0)])
def test_starts_fill_the_ball(norm, power):
    """Uniform in the ball: the share of starts within half the radius is 2^-d; here d = 8 and per-pixel, d = 1."""
    model, x, y = linear(torch.zeros(2, 8)), torch.full((1, 8), 0.5, dtype=torch.float64), torch.tensor([0])
    starts = torch.cat([attacks.pgd(model, x, y, 0.4, norm=norm, steps=1, seed=s) - x for s in range(300)])
    sizes = starts.abs().flatten() if norm == "inf" else starts.norm(dim=1)
    assert sizes.max() <= 0.4 + 1e-12
    assert (sizes / 0.4).pow(power).mean().item() == pytest.approx(0.5, abs=0.06)
    assert starts.mean(0).abs().max() < 0.06


def test_images_keep_their_shape_and_the_model_is_judged_in_eval_mode():
    model, x, y = convolutional(torch.float32)
    found = attacks.pgd(model.train(), x, y, 0.1, norm="2")
    assert found.shape == x.shape and model.training
    assert cosines(found - x, attacks.l2_grad(model, x, y, 0.1) - x).min() > 0.5
