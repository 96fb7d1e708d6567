"""Models that hide their gradients are flagged, an ordinary one is not, and the shares are counted right."""

import pytest
import torch
from torch import nn

from hbanalysis import attacks
from tests.attack_nets import convolutional, digits, linear
from tests.oracles import seeded

SETTINGS = {"steps": 15, "restarts": 2}


class Changed(nn.Module):
    """An ordinary model whose images and logits pass through functions."""

    def __init__(self, model, logits=lambda z: z, images=lambda x: x):
        super().__init__()
        self.model, self.logits, self.images = model, logits, images

    def forward(self, x):
        return self.logits(self.model(self.images(x)))


def staircase(x):
    """Rounds images to 4 levels; the gradient left is that of a ripple which is too small to matter."""
    return (4 * x).round() / 4 + 1e-6 * torch.sin(1e6 * x)


def backwards(x):
    """Its slope is -1 almost everywhere, while the image as a whole goes up."""
    return 2 * (8 * x).round() / 8 - x


def report_of(change=None, images=None, eps=0.05, **settings):
    model, x, y = digits(torch.float32, samples=120)
    changed = Changed(model, change or (lambda z: z), images or (lambda x: x))
    return attacks.masking_report(changed, x, y, eps, **{**SETTINGS, **settings})


def test_an_ordinary_net_is_not_flagged():
    report = report_of()
    assert report.flags == () and not report.masked
    assert report.samples == 120 and report.eps == 0.05
    assert report.pgd_half_range == 0.0 and report.zero_gradients == 0 and report.repeated_logits == 0
    assert report.pgd_more_steps <= report.pgd <= report.fgsm + 0.02 < report.noise <= 1
    assert report.fgsm == pytest.approx(report.fgsm_plain, abs=0.01)


def test_the_numbers_are_those_of_the_attacks():
    model, x, y = digits(torch.float32, samples=120)
    report = report_of()
    for name, found in {
        "clean": x,
        "fgsm": attacks.fgsm(model, x, y, 0.05),
        "fgsm_plain": attacks.fgsm(model, x, y, 0.05, softmax="plain"),
        "fgsm_10": attacks.iterated_fgsm(model, x, y, 0.05),
    }.items():
        assert getattr(report, name) == attacks.still_correct(model, found, y).sum().item() / 120


def test_logits_ten_thousand_times_too_large_are_flagged():
    report = report_of(lambda z: 1e4 * z)
    ordinary = report_of()
    assert report.zero_gradients > 0.8 and report.tiny_losses > 0.8
    assert any("exactly zero" in flag for flag in report.flags)
    assert any("PyTorch's cross-entropy" in flag for flag in report.flags)
    assert report.fgsm_plain > 0.8 > report.fgsm + 0.2
    assert report.pgd == pytest.approx(ordinary.pgd, abs=0.03)


@pytest.mark.parametrize(
    ("change", "images", "word"),
    [
        (lambda z: 5 * torch.tanh(z), None, "equal logits"),
        (lambda z: z.softmax(1), None, "probabilities"),
        (lambda z: z + 0.1 * torch.randn_like(z), None, "differ from one forward pass"),
        (None, staircase, "grey"),
    ],
    ids=["repeated", "probabilities", "random", "staircase"],
)
def test_other_ways_to_hide_gradients_are_flagged(change, images, word):
    report = report_of(change, images)
    assert report.masked and any(word in flag for flag in report.flags), report


def test_noise_that_beats_the_gradient_is_flagged():
    report = report_of(None, backwards, eps=0.2, restarts=1)
    assert report.noise < report.fgsm - 0.1
    assert any(flag.startswith("Noise leaves") for flag in report.flags)


def test_steps_that_are_too_few_are_flagged():
    report = report_of(None, None, eps=0.08, steps=1, restarts=1, allowed=0.01)
    assert report.pgd > report.pgd_more_steps + 0.01
    assert any("More steps help" in flag for flag in report.flags)


def test_shares_in_closed_form():
    """Leads of 200, 18 and 1 logits, and a tie: one zero gradient, two tiny losses, one pair of equal logits."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    x = torch.tensor([[1.0, 0.0], [0.09, 0.0], [0.005, 0.0], [0.3, 0.3]])
    report = attacks.masking_report(
        linear(200 * weight, dtype=torch.float32), x, torch.zeros(4).long(), 0.1, **SETTINGS
    )
    assert (report.zero_gradients, report.tiny_losses, report.repeated_logits) == (0.25, 0.5, 0.25)
    assert report.clean == 1.0


def test_chance_among_many_classes_is_not_flagged():
    """Of 1000 float32 logits around 10 some pair is often equal, but hardly ever the two that count."""
    model = seeded(lambda: nn.Linear(16, 1000))
    with torch.no_grad():
        model.bias += 10
    x = seeded(lambda: torch.rand(40, 16))
    report = attacks.masking_report(model, x, model(x).argmax(1), 0.05, steps=1, restarts=1)
    assert report.repeated_logits > 0.2 and not any("equal logits" in flag for flag in report.flags)


@pytest.mark.parametrize("equal", [(0, 1), (2, 3)], ids=["the two largest", "the label's and another"])
def test_ties_that_count_are_flagged(equal):
    """Label 3 of the logits 4, 3, 2, 1, of which two are made equal."""
    bias = torch.tensor([4.0, 3.0, 2.0, 1.0])
    bias[equal[0]] = bias[equal[1]]
    model, x = linear(torch.zeros(4, 2), bias, torch.float32), torch.rand(3, 2)
    report = attacks.masking_report(model, x, torch.tensor([3, 3, 3]), 0.1, steps=1, restarts=1)
    assert any("100.0 % of the samples have equal logits" in flag for flag in report.flags)
    apart = attacks.masking_report(model, x, torch.tensor([0, 0, 0]), 0.1, steps=1, restarts=1)
    assert apart.repeated_logits == 1 and any("equal logits" in f for f in apart.flags) is (equal == (0, 1))


def test_one_size_may_be_a_tensor():
    assert report_of(eps=torch.tensor(0.05, dtype=torch.float64)) == report_of()


def test_the_first_run_starts_at_the_image():
    model, x, y = digits(torch.float32, samples=120)
    report = report_of(steps=2, restarts=1)

    def share(**start):
        found = attacks.pgd(model, x, y, 0.05, steps=2, loss="margin", **start)
        return attacks.still_correct(model, found, y).sum().item() / 120

    assert report.pgd == share(random_start=False) != share(random_start=True, seed=0)


def test_what_one_batch_shows_is_not_forgotten_in_the_next():
    """Batches of 50, 50 and 20: noise in the first ones only, probabilities in the last one only."""
    noisy = report_of(lambda z: z + 0.1 * torch.randn_like(z) if len(z) == 50 else z, batch_size=50)
    assert any("differ from one forward pass" in flag for flag in noisy.flags)
    partly = report_of(lambda z: z.softmax(1) if len(z) == 20 else z, batch_size=50)
    assert not any("probabilities" in flag for flag in partly.flags)


def test_a_share_that_is_just_allowed_is_not_flagged():
    weight = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    x = torch.tensor([[1.0, 0.0], [0.09, 0.0], [0.005, 0.0], [0.3, 0.3]])
    model, y = linear(weight, dtype=torch.float32), torch.zeros(4).long()
    for allowed, flagged in ((0.25, False), (0.24, True)):
        flags = attacks.masking_report(model, x, y, 0.1, **SETTINGS, allowed=allowed).flags
        assert any("equal logits" in flag for flag in flags) is flagged
        assert any("exactly zero" in flag for flag in flags) is flagged


def test_the_model_is_left_as_it_was_and_the_report_repeats():
    model, x, y = convolutional(torch.float32)
    model.train()
    state, random = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    with torch.no_grad():
        first = attacks.masking_report(model, x, y, 0.1, **SETTINGS)
    assert first == attacks.masking_report(model, x, y, 0.1, batch_size=4, **SETTINGS)
    assert model.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(state[n], t) for n, t in model.state_dict().items())
