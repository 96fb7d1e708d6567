"""Every attack stays in its ball and box, and eps = 0 is the identity, for images and sizes that nobody chose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbanalysis import attacks
from tests.attack_nets import convolutional, digits
from tests.oracles import seeded

INF = {
    "fgsm": attacks.fgsm,
    "iterated_fgsm": attacks.iterated_fgsm,
    "fhsm": attacks.fhsm,
    "pgd": lambda *given, **choices: attacks.pgd(*given, steps=3, restarts=2, **choices),
}
EUCLIDEAN = {
    "l2_grad": attacks.l2_grad,
    "l2_hess": attacks.l2_hess,
    "pgd": lambda *given, **choices: attacks.pgd(*given, norm="2", steps=3, restarts=2, **choices),
}
CASES = [(a, "inf") for a in INF.values()] + [(a, "2") for a in EUCLIDEAN.values()]


@pytest.mark.parametrize(("attack", "norm"), CASES)
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    eps=st.one_of(st.just(0.0), st.floats(0, 2, width=32), st.floats(0, 2**-20)),
    box=st.sampled_from([(0.0, 1.0), (-0.5, 0.75), (0, 255), None]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    net=st.sampled_from([digits, convolutional]),
    extreme=st.booleans(),
)
def test_ball_and_box(attack, norm, seed, eps, box, dtype, net, extreme):
    model, x, _ = net(dtype)
    low, high = box or (0, 1)
    x = seeded(lambda: torch.rand(6, *x.shape[1:], dtype=torch.float64), seed)
    x = (x.round() if extreme else x).mul(high - low).add(low).to(dtype).clamp(low, high)
    y = seeded(lambda: torch.randint(0, 5, (6,)), seed)
    kept = x.clone()
    found = attack(model, x, y, eps, clip=box)
    assert found.dtype == dtype and found.shape == x.shape and torch.isfinite(found).all()
    assert torch.equal(x, kept)
    moved = (found.double() - x.double()).flatten(1)
    length = moved.abs().amax(1) if norm == "inf" else moved.norm(dim=1)
    # Each sum x + d rounds to the dtype's unit at the size of the result; ten steps round ten times.
    unit = 10 * torch.finfo(dtype).eps * (found.abs().max().item() + eps)
    assert length.max().item() <= eps + unit * (1 if norm == "inf" else moved.shape[1] ** 0.5)
    if box:
        assert low <= found.min() and found.max() <= high
    if eps == 0:
        assert torch.equal(found, x)


@pytest.mark.parametrize(("attack", "norm"), CASES)
def test_one_step_attacks_use_the_whole_ball(attack, norm):
    model, x, y = digits()
    moved = attack(model, x, y, 0.2, clip=None) - x
    length = moved.abs().amax(1) if norm == "inf" else moved.norm(dim=1)
    assert length.min() > 0.1
