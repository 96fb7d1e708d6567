"""Attacks on images, networks, sizes and batches that nobody chose: in ball and box, and of no neighbour's making."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hbanalysis import attacks
from tests.attack_nets import ALL, convolutional, digits
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
@pytest.mark.survives("Input that nobody chose")
def test_ball_and_box(attack, norm, seed, eps, box, dtype, net, extreme):
    """Every attack with random images, sizes (zero and all but zero among them), boxes and both precisions: finite, in
    its ball and its box, and for size 0 the images as they were, bit for bit."""
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


@pytest.mark.parametrize("attack", ALL)
@settings(max_examples=10, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
@pytest.mark.survives("Input that nobody chose")
def test_no_sample_depends_on_its_batch(attack, data, seed):
    """Every attack on random networks with two to seven classes, images of any size, any number of them, cut anywhere,
    with one size or one for each: each image becomes what it becomes alone, to 1e-9 in float64."""
    classes, pixels, count = data.draw(st.integers(2, 7)), data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    activation = data.draw(st.sampled_from([nn.Tanh, nn.Softplus]))  # smooth: no kink for rounding to step over

    def make():
        model = nn.Sequential(nn.Linear(pixels, 6), activation(), nn.Linear(6, classes)).double()
        return (
            model,
            torch.rand(count, pixels, dtype=torch.float64),
            torch.randint(0, classes, (count,)),
            torch.rand(count),
        )

    model, x, y, sizes = seeded(make, seed)
    eps = 0.2 * sizes.double() if data.draw(st.booleans()) else 0.1
    cut = data.draw(st.integers(1, count))
    whole = attack(model, x, y, eps, batch_size=data.draw(st.integers(1, count + 2)))
    first, second = (
        attack(model, x[part], y[part], eps[part] if isinstance(eps, torch.Tensor) else eps)
        for part in (slice(0, cut), slice(cut - 1, count))
    )
    assert whole.shape == x.shape
    assert torch.allclose(first, whole[:cut], atol=1e-9, rtol=0)
    assert torch.allclose(second, whole[cut - 1 :], atol=1e-9, rtol=0)


@pytest.mark.parametrize(("attack", "norm"), CASES)
def test_one_step_attacks_use_the_whole_ball(attack, norm):
    model, x, y = digits()
    moved = attack(model, x, y, 0.2, clip=None) - x
    length = moved.abs().amax(1) if norm == "inf" else moved.norm(dim=1)
    assert length.min() > 0.1
