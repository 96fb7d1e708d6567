"""FGSM, FGSM-10 and L2GRAD against closed forms and independent statements of the same formulas."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hbanalysis import attacks, networks
from tests.attack_nets import ALL, convolutional, cosines, digits, gradients, linear


def one_step_by_the_mean_loss(model, x, labels, eps):
    """As the usual libraries write it: sign of the gradient of the mean loss, then the clamp."""
    images = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cross_entropy(model.eval()(images), labels), images)
    return (x + eps * slope.sign()).clamp(0, 1)


def ten_steps_within_a_ball(model, x, labels, eps):
    """The basic iterative method, with its projection."""
    step, point = eps / 10, x.clone()
    for _ in range(10):
        point.requires_grad_()
        (slope,) = torch.autograd.grad(cross_entropy(model.eval()(point), labels), point)
        point = (x + (point.detach() + step * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return point


@pytest.mark.parametrize("softmax", ["relative", "plain"])
@pytest.mark.parametrize("net", [digits, convolutional])
def test_fgsm_equals_the_usual_statement_bit_for_bit(net, softmax):
    model, x, y = net(torch.float32)
    if softmax == "relative":  # the usual statement is itself wrong on two pixels of a sample with a loss of 1e-6
        ordinary = cross_entropy(model.eval()(x), y, reduction="none") > 1e-5
        x, y = x[ordinary], y[ordinary]
    expected = one_step_by_the_mean_loss(model, x, y, 0.03)
    assert torch.equal(attacks.fgsm(model, x, y, 0.03, softmax=softmax), expected)
    assert len(x) > 10 and (expected != x).float().mean() > 0.8


def test_fgsm_in_float32_has_the_signs_of_float64():
    model, x, y = digits(torch.float32)
    truth = gradients(*digits()).sign().float()
    assert torch.equal(attacks.fgsm(model, x, y, 0.03, clip=None), x + 0.03 * truth)


def test_iterated_fgsm_equals_the_basic_iterative_method():
    model, x, y = digits(torch.float64)
    found = attacks.iterated_fgsm(model, x, y, 0.1)
    assert torch.allclose(found, ten_steps_within_a_ball(model, x, y, 0.1), atol=1e-14)
    assert not torch.allclose(found, attacks.fgsm(model, x, y, 0.1), atol=1e-3)


def test_one_step_is_fgsm():
    model, x, y = convolutional()
    assert torch.equal(attacks.iterated_fgsm(model, x, y, 0.1, steps=1), attacks.fgsm(model, x, y, 0.1))


def test_a_linear_model_of_two_classes_in_closed_form():
    """The gradient is (1 - p_y) (w_1 - w_0) for label 0, whatever the image."""
    w = torch.tensor([[0.5, -1.0, 0.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    model, x, y = linear(w), torch.full((2, 3), 0.5, dtype=torch.float64), torch.tensor([0, 1])
    up = torch.tensor([1.5, 2.0, 0.0], dtype=torch.float64)
    signed = torch.stack([up.sign(), -up.sign()])
    unit = torch.stack([up, -up]) / 2.5
    assert torch.equal(attacks.fgsm(model, x, y, 0.2), x + 0.2 * signed)
    assert torch.allclose(attacks.iterated_fgsm(model, x, y, 0.2), x + 0.2 * signed, atol=1e-15)
    assert torch.allclose(attacks.l2_grad(model, x, y, 0.2), x + 0.2 * unit, atol=1e-15)
    assert torch.allclose(attacks.l2_grad(model, x, y, 2.0), (x + 2.0 * unit).clamp(0, 1), atol=1e-15)
    assert torch.allclose(attacks.l2_grad(model, x, y, 2.0, clip=None), x + 2.0 * unit, atol=1e-15)


@pytest.mark.parametrize("net", [digits, convolutional])
def test_l2_grad_has_its_length_and_the_direction_of_the_gradient(net):
    model, x, y = net()
    moved = attacks.l2_grad(model, x, y, 0.7, clip=None) - x
    assert moved.flatten(1).norm(dim=1).sub(0.7).abs().max() < 1e-14
    assert cosines(moved, gradients(model, x, y)).min() > 1 - 1e-12


def test_the_clip_range_is_the_callers():
    model, x, y = convolutional()
    model, x = model, 4 * x - 2
    found = attacks.fgsm(model, x, y, 3.0, clip=(-2.0, 2.0))
    assert found.min() == -2.0 and found.max() == 2.0
    assert torch.equal(found, attacks.fgsm(model, x, y, 3.0, clip=None).clamp(-2, 2))


@pytest.mark.parametrize("gap", [20.0, 60.0, 300.0, 3e4])
def test_a_saturated_sample_has_the_right_sign(gap):
    """Label 0 leads by ``gap`` logits: in float32 its 1 - p_y is below every rounding unit, then below every number."""
    w = torch.tensor([[1.0, -2.0], [3.0, 1.0], [0.0, 0.0]])
    model = linear(w, [gap, 0.0, 0.0], torch.float32)
    x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    others = (x @ w[1:].T).softmax(1) @ (w[1:] - w[0])  # the other classes share 1 - p_y in these parts
    assert torch.equal(attacks.fgsm(model, x, y, 0.25), x + 0.25 * others.sign())
    assert cosines(attacks.l2_grad(model, x, y, 0.25) - x, others).item() > 1 - 1e-6


def test_what_the_plain_softmax_loses():
    """Up to a lead of 104 the part of the label's own logit is missing; beyond it the image does not move at all."""
    w = torch.tensor([[4.0, -4.0], [1.0, 1.0], [1.0, -5.0]])
    x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    sure, surer = linear(w, [60.0, 0.0, -40.0], torch.float32), linear(w, [200.0, 0.0, -40.0], torch.float32)
    assert (attacks.fgsm(sure, x, y, 0.25, softmax="plain") - x).tolist() == [[0.25, 0.25]]
    assert (attacks.fgsm(sure, x, y, 0.25) - x).tolist() == [[-0.25, 0.25]]
    assert torch.equal(attacks.fgsm(surer, x, y, 0.25, softmax="plain"), x)
    assert (attacks.fgsm(surer, x, y, 0.25) - x).tolist() == [[-0.25, 0.25]]


def test_a_direction_that_is_zero_or_not_finite_gives_the_sample_back():
    class Broken(nn.Module):
        """The square root has an infinite slope at the second image, the third is cut off."""

        def forward(self, x):
            slope = torch.where(x[:, 0] > 0.7, 0.0, x.sum(1)) + torch.where(x[:, 0] > 0, 0.0, x.sum(1).abs().sqrt())
            return torch.stack([slope, 0 * x.sum(1)], 1)

    x = torch.tensor([[0.5, 0.5], [0.0, 0.0], [0.9, 0.5]])
    y = torch.zeros(3, dtype=torch.long)
    for attack in (attacks.fgsm, attacks.l2_grad, attacks.iterated_fgsm, attacks.fhsm, attacks.l2_hess):
        found = attack(Broken(), x, y, 0.1)
        assert torch.equal(found[1:], x[1:])
        assert (found[0] < x[0]).all()


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.survives("Determinism")
def test_any_cut_of_the_batch_gives_the_same_to_rounding(attack):
    """Every attack gives the same to 1e-9 in float64 however the batch is cut: kernels sum in another order for another
    shape. In float64 no sign is that close to zero."""
    model, x, y = digits()
    whole = attack(model, x, y, 0.1)
    for size in (1, 7, 59, 1000):
        assert torch.allclose(attack(model, x, y, 0.1, batch_size=size), whole, atol=1e-9)
    parts = [attack(model, x[rows], y[rows], 0.1) for rows in (slice(0, 3), slice(3, 60))]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-9)


@pytest.mark.parametrize("attack", ALL)
@pytest.mark.survives("Determinism")
def test_chunks_of_one_shape_give_the_same_bits_whatever_else_is_in_them(attack):
    """Every attack gives a sample the same bits whichever samples are beside it in a chunk of the same shape."""
    model, x, y = digits(torch.float32, 40)
    whole = attack(model, x, y, 0.1, batch_size=20)
    assert torch.equal(attack(model, x[20:], y[20:], 0.1, batch_size=20), whole[20:])
    others, labels = x.flip(0), y.flip(0)
    others[5], labels[5] = x[5], y[5]
    assert torch.equal(attack(model, others, labels, 0.1, batch_size=20)[5], whole[5])


@pytest.mark.parametrize("attack", ALL)
def test_sizes_may_differ_between_samples(attack):
    model, x, y = digits(samples=12)
    eps = torch.linspace(0, 0.3, 12)
    found = attack(model, x, y, eps)
    for i in range(12):
        assert torch.allclose(found[i], attack(model, x[i : i + 1], y[i : i + 1], eps[i].item())[0], atol=1e-7)
    assert torch.equal(found[0], x[0])


@pytest.mark.parametrize("attack", ALL)
def test_everything_is_left_as_it_was(attack):
    model, x, y = convolutional(torch.float32)
    model.train()
    model[0].eval()
    model[5].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    modes, random, kept = [m.training for m in model.modules()], torch.get_rng_state(), x.clone()
    expected = attack(model, x, y, 0.1)
    with torch.no_grad():
        assert torch.equal(attack(model, x, y, 0.1), expected)
    with torch.inference_mode():
        assert torch.equal(attack(model, x.clone(), y.clone(), 0.1), expected)
    assert torch.equal(attack(model, x.clone().requires_grad_(), y.int(), 0.1), expected)
    assert not expected.requires_grad and expected.dtype == x.dtype
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight)) and model[5].weight.grad is None
    assert not model[5].weight.requires_grad and model[0].weight.requires_grad
    assert torch.equal(x, kept) and x.grad is None


@pytest.mark.parametrize("attack", ALL)
def test_no_samples_give_no_samples(attack):
    model, x, y = digits()
    assert attack(model, x[:0], y[:0], 0.1).shape == (0, 16)


def test_memory_decides_the_chunk(monkeypatch):
    from hbanalysis.attacks import batches

    model, x, y = networks.build("M1", (1, 28, 28)), torch.rand(30, 1, 28, 28), torch.arange(30) % 10
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    attacks.fgsm(model, x, y, 0.1)
    assert seen == [2, 30]
    per_sample = 6 * 4 * (784 + 2 * 20 * 576 + 20 * 144 + 2 * 50 * 64 + 800 + 500)  # pooling keeps 8-byte indices
    seen.clear()
    monkeypatch.setattr(batches, "available", lambda device: 16 * per_sample)
    attacks.fgsm(model, x, y, 0.1)
    assert seen[0] == 2 and 3 <= seen[1] <= 10 and math.ceil(30 / seen[1]) == len(seen) - 1
