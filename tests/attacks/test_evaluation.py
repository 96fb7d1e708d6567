"""Accuracy under attack, the worst case, minimal distances and the two readings."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import nn

import hbanalysis as hb
from hbanalysis import attacks
from tests.attack_nets import convolutional, digits, linear
from tests.oracles import seeded


def test_the_public_face():
    assert hb.attacks.fgsm is attacks.fgsm and "attacks" in dir(hb) and "attacks" in hb.__all__
    assert not hasattr(hb, "fgsm")
    assert hb.distributed.world() == 1 and "distributed" in hb.__all__
    assert all(hasattr(attacks, name) for name in attacks.__all__)


def test_accuracy_under_an_attack_is_counted_on_its_result():
    model, x, y = digits(samples=250)
    attack = partial(attacks.fgsm, eps=0.05)
    right = model(attack(model, x, y)).argmax(1) == y
    assert attacks.accuracy_under(model, attack, x, y) == right.double().mean().item()
    assert torch.equal(attacks.still_correct(model, x, y, batch_size=7), model(x).argmax(1) == y)


def test_evaluation_uses_eval_mode_and_restores_it():
    model, x, y = convolutional()
    expected = model.eval()(x).argmax(1) == y
    model.train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with torch.inference_mode():
        assert torch.equal(attacks.still_correct(model, x.clone(), y.clone()), expected)
    assert model.training and all(torch.equal(before[n], t) for n, t in model.state_dict().items())


def test_the_worst_case_is_the_intersection():
    model, x, y = digits(samples=250)
    chosen = attacks.READINGS["H1"].attacks(0.05, 0.2)
    each = torch.stack([attacks.still_correct(model, attack(model, x, y), y) for attack in chosen.values()])
    clean = attacks.still_correct(model, x, y)
    assert torch.equal(attacks.worst_case(model, chosen, x, y), each.all(0) & clean)
    assert torch.equal(attacks.worst_case(model, list(chosen.values())[:2], x, y), each[:2].all(0) & clean)
    assert torch.equal(attacks.worst_case(model, [], x, y), clean)


def test_the_worst_case_asks_about_what_still_stands():
    model, x, y = digits(samples=100)
    asked = []

    def counting(model, x, labels):
        asked.append(len(x))
        return attacks.fgsm(model, x, labels, 0.05)

    standing = attacks.worst_case(model, [counting, counting], x, y)
    clean = int(attacks.still_correct(model, x, y).sum())
    assert asked == [clean, int(standing.sum())] and asked[1] < asked[0]


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_minimal_distances_of_a_linear_model_in_closed_form(norm):
    """For two classes the margin over the dual norm of the difference of the rows, as long as the box is wide."""
    weight = seeded(lambda: torch.randn(2, 5)).double()
    model, y = linear(weight), torch.tensor([0, 0, 1, 1, 0, 1] * 4)
    x = seeded(lambda: torch.rand(24, 5)).double()
    difference = weight[1] - weight[0]
    dual = difference.abs().sum() if norm == "inf" else difference.norm()
    gap = x @ difference * torch.where(y == 0, -1.0, 1.0)
    found = attacks.minimal_distance(model, x, y, norm=norm, clip=(-9.0, 9.0), tolerance=1e-4)
    truth = (gap / dual).clamp(min=0)
    assert found.found.all() and found.tolerance == 1e-4
    slack = 1e-9 if norm == "inf" else 0.02 * truth.max().item()  # in 2 the attack only comes near the best direction
    assert ((found.failed - slack <= truth) & (truth <= found.eps + 1e-9)).all()
    assert (found.eps - found.failed).max() <= 1e-4
    assert torch.equal(found.eps == 0, gap <= 0) and (gap <= 0).any() and (gap > 0).any()


def test_a_tolerance_below_rounding_ends_at_neighbouring_numbers():
    """The search moves a threshold on the size itself, which float64 holds to 2^-53 of its value."""
    model, x = linear(torch.eye(2)), torch.tensor([[0.8, 0.2]], dtype=torch.float64)
    beyond = 0.3 + 1e-3 / 3

    def threshold(model, x, labels, eps):
        return torch.where(eps[:, None] > beyond, x.flip(1), x)

    found = attacks.minimal_distance(model, x, torch.tensor([0]), attack=threshold, tolerance=1e-17)
    assert found.failed.item() == beyond and found.eps.item() == math.nextafter(beyond, 1.0)
    least = math.ulp(0.0)
    assert attacks.minimal_distance(model, x, torch.tensor([0]), attack=threshold, upper=least).eps.item() == math.inf


def test_minimal_distance_brackets_the_change():
    model, x, y = digits(samples=80)
    found = attacks.minimal_distance(model, x, y, attack=attacks.fgsm, tolerance=1e-3)
    right = attacks.still_correct(model, x, y)
    assert found.eps.dtype == torch.float64 and found.upper == 1.0
    ok = found.found & right
    assert ok.sum() > 40 and (found.eps[~right] == 0).all()
    broken = attacks.fgsm(model, x[ok], y[ok], found.eps[ok])
    standing = attacks.fgsm(model, x[ok], y[ok], found.failed[ok])
    assert not attacks.still_correct(model, broken, y[ok]).any()
    assert attacks.still_correct(model, standing, y[ok]).all()
    assert ((found.eps - found.failed)[ok] <= 1e-3).all()
    stronger = attacks.minimal_distance(model, x, y)
    assert (stronger.eps <= found.eps + 0.01).double().mean() > 0.95
    assert stronger.eps[ok].mean() < found.eps[ok].mean()


def test_a_distance_beyond_the_upper_end_is_infinite():
    constant = nn.Sequential(linear(torch.zeros(2, 3), [1.0, 0.0]))
    x, y = torch.rand(4, 3, dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    found = attacks.minimal_distance(constant, x, y)
    assert found.eps.tolist() == [math.inf, 0, math.inf, 0] and found.found.tolist() == [False, True, False, True]
    near = attacks.minimal_distance(*digits(samples=50), upper=0.03)
    assert 0 < near.eps[near.found].max() <= 0.03 and not near.found.all()
    empty = attacks.minimal_distance(constant, x[:0], y[:0], norm="2")
    assert len(empty.eps) == 0


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(("norm", "diameter"), [("inf", 2.0), ("2", 2.0 * math.sqrt(3))])
def test_the_largest_size_is_the_diameter_of_the_box(norm, diameter, count):
    constant = nn.Sequential(linear(torch.zeros(2, 3), [1.0, 0.0]))
    x, y = torch.rand(count, 3, dtype=torch.float64), torch.zeros(count).long()
    found = attacks.minimal_distance(constant, x, y, norm=norm, clip=(-1.0, 1.0))
    assert found.upper == pytest.approx(diameter, rel=1e-12)
    assert found.failed.tolist() == pytest.approx([diameter] * count)


def test_a_distance_does_not_depend_on_the_batch():
    model, x, y = digits(samples=30)
    whole = attacks.minimal_distance(model, x, y, norm="2")
    part = attacks.minimal_distance(model, x[10:15], y[10:15], norm="2")
    assert torch.allclose(part.eps, whole.eps[10:15], atol=1e-9)


def test_the_readings_are_the_attacks_they_name():
    model, x, y = convolutional()
    first, second = (attacks.READINGS[name].attacks(0.3, 2.0) for name in ("H1", "H2"))
    assert list(first) == list(second) == ["FGSM", "FGSM-10", "L2GRAD", "FHSM", "L2HESS"]
    expected = {
        "FGSM": lambda **c: attacks.fgsm(model, x, y, 0.3, **c),
        "L2GRAD": lambda **c: attacks.l2_grad(model, x, y, 2.0, **c),
        "FHSM": lambda **c: attacks.fhsm(model, x, y, 0.3, **c),
        "L2HESS": lambda **c: attacks.l2_hess(model, x, y, 2.0, **c),
    }
    for name, attack in expected.items():
        newton = name in ("FHSM", "L2HESS")
        assert torch.equal(first[name](model, x, y), attack(**({"iterations": 3} if newton else {})))
        unclipped = attack(clip=None, **({"iterations": 5} if newton else {}))
        assert torch.equal(second[name](model, x, y), unclipped) and unclipped.max() > 1
    ten = attacks.iterated_fgsm(model, x, y, 0.3)
    assert torch.equal(first["FGSM-10"](model, x, y), ten) and torch.equal(second["FGSM-10"](model, x, y), ten)


def test_variants_of_a_reading():
    model, x, y = digits()
    variant = dataclasses.replace(attacks.READINGS["H2"], iterations=1, steps=1)
    chosen = variant.attacks(0.1, 0.5, softmax="plain", batch_size=13)
    assert torch.allclose(chosen["FHSM"](model, x, y), chosen["FGSM"](model, x, y), atol=1e-12)
    assert torch.equal(chosen["FGSM-10"](model, x, y), chosen["FGSM"](model, x, y).clamp(0, 1))


def test_every_attack_of_a_reading_takes_its_softmax():
    """On logits that are far too large the plain gradient is zero, and only the exact one attacks."""
    model, x, y = digits(torch.float32, samples=20)
    sure = nn.Sequential(model, linear(3e3 * torch.eye(10), dtype=torch.float32))
    right = attacks.still_correct(sure, x, y)
    x, y = x[right], y[right]
    for reading in attacks.READINGS.values():
        plain, exact = (reading.attacks(0.05, 0.2, softmax=softmax) for softmax in ("plain", "relative"))
        for name in plain:
            moved = [(chosen[name](sure, x, y) != x).flatten(1).any(1) for chosen in (plain, exact)]
            assert moved[1].all() and moved[0].sum() <= 2, name


def test_the_paper_s_order_of_strength_on_a_trained_net():
    """L2GRAD beats L2HESS and FGSM beats FHSM, in both readings (paper, Tables 3 and 4, first rows)."""
    model, x, y = digits(samples=300)
    for reading in attacks.READINGS.values():
        left = {n: attacks.accuracy_under(model, a, x, y) for n, a in reading.attacks(0.06, 0.24).items()}
        assert left["FGSM"] < left["FHSM"] and left["L2GRAD"] < left["L2HESS"]
