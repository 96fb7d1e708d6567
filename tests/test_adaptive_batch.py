"""Adaptive batch size: the rule on scripted curvatures, and trainings that follow it, also interrupted ones."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from hbanalysis import data, training
from hbanalysis.adaptive_batch import AdaptiveBatch
from hbanalysis.attacks import fgsm
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.training.pacing import Adaptive, Steady, Watch, attack_some
from tests.oracles import dense_oracle, seeded


def told(rule, curvatures):
    return [(s.ratio, s.share, s.cause) for s in rule.stages(curvatures)]


def test_the_first_epoch_is_the_reference_and_a_larger_one_later_does_not_replace_it():
    rule = AdaptiveBatch(limit=8, share=0.4)
    # 20 does not become the reference, so 5 is a fall of the first 10 and 5.1 is none.
    assert told(rule, [10.0, 20.0, 5.1, 5.0]) == [
        (1, 0.4, "start"),
        (1, 0.4, ""),
        (1, 0.4, ""),
        (1, 0.4, ""),
        (2, 0.2, "curvature"),
    ]


def test_each_fall_is_measured_from_the_last_change_until_the_limit():
    rule = AdaptiveBatch(limit=4, share=0.4)
    assert told(rule, [8.0, 4.0, 2.1, 2.0, 0.1, 1e-3]) == [
        (1, 0.4, "start"),
        (1, 0.4, ""),
        (2, 0.2, "curvature"),
        (2, 0.2, ""),
        (4, 0.0, "curvature"),
        (4, 0.0, ""),
        (4, 0.0, ""),
    ]


def test_patience_enlarges_moves_the_reference_and_starts_anew():
    rule = AdaptiveBatch(limit=16, patience=3, share=0.0)
    stages = rule.stages([8.0, 9.0, 7.0, 7.0, 3.6, 7.0, 3.5, 3.5])
    assert [s.cause for s in stages] == ["start", "", "", "patience", "", "", "patience", "curvature", ""]
    assert [s.ratio for s in stages] == [1, 1, 1, 2, 2, 2, 4, 8, 8]
    assert [s.reference for s in stages] == [None, 8.0, 8.0, 7.0, 7.0, 7.0, 7.0, 3.5, 3.5]
    assert [s.waited for s in stages] == [0, 1, 2, 0, 1, 2, 0, 0, 1]


def test_the_limit_cuts_the_last_growth_and_ends_the_attack():
    rule = AdaptiveBatch(limit=5, growth=3, fall=4.0, share=0.9)
    assert told(rule, [16.0, 4.1, 4.0, 1.0])[3:] == [(3, pytest.approx(0.3), "curvature"), (5, 0.0, "curvature")]
    assert {(s.ratio, s.share) for s in AdaptiveBatch(limit=1, share=0.5).stages([4.0, 1.0, 0.1])} == {(1, 0.0)}


def test_a_curvature_that_is_no_number_is_no_fall():
    rule = AdaptiveBatch(limit=4, patience=9)
    assert [s.ratio for s in rule.stages([8.0, math.nan, 4.0])] == [1, 1, 1, 2]


def test_moduli_are_compared():
    rule = AdaptiveBatch(limit=64, patience=9)
    assert [s.ratio for s in rule.stages([-5.0, -4.0, -4.0, -4.0, -4.0])] == [1] * 6  # 4 is no half of 5
    assert [s.ratio for s in rule.stages([-5.0, -2.5, 1.3, -1.25, -9.0])] == [1, 1, 2, 2, 4, 4]
    assert [s.ratio for s in rule.stages([8.0, -7.0, -4.0])] == [1, 1, 1, 2]


@pytest.mark.parametrize("none", [math.nan, math.inf])
def test_what_is_no_number_gives_its_place_as_reference_to_the_next(none):
    rule = AdaptiveBatch(limit=64, patience=9)
    first = rule.stages([none, 8.0, 4.1, 4.0])
    assert [s.reference for s in first] == [None, None, 8.0, 8.0, 4.0]
    assert [s.cause for s in first] == ["start", "", "", "", "curvature"]
    changed = dataclasses.replace(rule, patience=2).stages([8.0, none, 6.0, 3.0])
    assert [s.reference for s in changed] == [None, 8.0, None, 6.0, 3.0]
    assert [s.cause for s in changed] == ["start", "", "patience", "", "curvature"]


@pytest.mark.parametrize(("name", "least"), [("limit", 1), ("growth", 2), ("patience", 1)])
def test_whole_numbers_are_integers(name, least):
    rule = AdaptiveBatch()
    object.__setattr__(rule, name, 2.5)  # the tests' own type checks would not let it pass
    with pytest.raises(InputError, match=f"{name} must be an integer of at least {least}; given 2.5"):
        rule.__post_init__()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "limit must be an integer of at least 1; given 0"),
        ({"fall": 1.0}, "fall must be a finite factor above 1"),
        ({"growth": 1}, "growth must be an integer"),
        ({"patience": 0}, "patience must be an integer of at least 1"),
        ({"share": 1.5}, r"share must lie in \[0, 1\]"),
    ],
)
def test_a_rule_out_of_range_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        AdaptiveBatch(**changes)


@pytest.mark.parametrize(
    "changes",
    [{"samples": 0}, {"products": 1}, {"tolerance": 1.0}, {"epsilon": -0.1}, {"attacked": 2.0}, {"warm_up": -1}],
)
def test_a_watch_out_of_range_is_refused(changes):
    with pytest.raises(InputError, match=next(iter(changes))):
        Watch(**changes)


def config(**changes):
    fixed = {"dataset": "digits", "network": "M1", "train_samples": 60, "batch_size": 10, "target_loss": None}
    return training.TrainingConfig(**{**fixed, "max_epochs": 6, "learning_rate": 0.05, **changes})


RULE = AdaptiveBatch(limit=4, patience=2, share=0.4)
WATCH = Watch(samples=20, products=4, epsilon=0.05)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", samples=60)


def history(*curvatures):
    return [{"lambda1": value} for value in curvatures]


def test_a_pace_is_read_off_the_history(digits):
    pacing = Adaptive(config(schedule="milestones(0.2, 3)"), digits, RULE, WATCH)
    first = pacing.pace([])
    assert (first.batch_size, first.learning_rate) == (10, 0.05)
    assert first.notes == {"batch_size": 10, "share": 0.4} and first.perturb is not None
    grown = pacing.pace(history(8.0, 4.0))
    assert (grown.batch_size, grown.learning_rate, grown.notes["share"]) == (20, 0.1, 0.2)
    late = pacing.pace(history(8.0, 4.0, 4.0))  # the second half of the six epochs; the schedule's milestone
    assert (late.batch_size, late.perturb, late.notes["share"]) == (20, None, 0.0)
    assert late.learning_rate == pytest.approx(0.02)
    assert pacing.pace(history(8.0, 4.0, 2.0)).batch_size == 40
    warm = Adaptive(config(), digits, AdaptiveBatch(limit=1), dataclasses.replace(WATCH, warm_up=4))
    rates = [warm.pace(history(*[1.0] * n)).learning_rate for n in range(6)]
    assert rates == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])
    with pytest.raises(InputError, match="larger than the training set of 60"):
        Adaptive(config(), digits, AdaptiveBatch(limit=7), WATCH)


def test_what_is_watched_is_the_largest_eigenvalue_of_the_drawn_samples(digits):
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.AvgPool1d(4), nn.Linear(digits.images[0].numel() // 4, 10)))
    model = model.double().train()
    samples = dataclasses.replace(digits, images=digits.images.double())
    pacing = Adaptive(config(seed=2), samples, RULE, dataclasses.replace(WATCH, products=900, tolerance=1e-9))
    found = pacing.observe(3, model)["lambda1"]
    rows = torch.randperm(60, generator=torch.Generator().manual_seed(3 * 1_000_003 + 3))[:20]
    exact = torch.linalg.eigvalsh(dense_oracle(model, samples.images[rows], samples.labels[rows]))[-1]
    assert found == pytest.approx(float(exact), rel=1e-5)
    assert pacing.observe(4, model)["lambda1"] != pytest.approx(found, rel=1e-3)  # other samples
    assert model.training and all(p.grad is None for p in model.parameters())


def test_only_the_first_of_a_batch_are_attacked(digits):
    model = config().network_on("cpu").train()
    x, y = digits.images[:7], digits.labels[:7]
    moved = attack_some(model, x, y, share=0.5, epsilon=0.05)
    assert torch.equal(moved[3:], x[3:])
    assert torch.equal(moved[:3], fgsm(model, x[:3], y[:3], 0.05, softmax="plain")) and not torch.equal(moved, x)
    assert attack_some(model, x, y, share=0.1, epsilon=0.05) is x


def test_a_training_follows_the_rule_and_counts_its_steps(digits, tmp_path):
    pacing = Adaptive(config(), digits, RULE, WATCH)
    record = training.train(config(), digits, tmp_path, pacing=pacing)
    assert record.status == "finished" and len(record.history) == 6
    stages = RULE.stages([entry["lambda1"] for entry in record.history])
    assert [entry["batch_size"] for entry in record.history] == [10 * s.ratio for s in stages[:-1]]
    assert [entry["learning_rate"] for entry in record.history] == [0.05 * s.ratio for s in stages[:-1]]
    assert [e["share"] for e in record.history] == [s.share if n < 3 else 0.0 for n, s in enumerate(stages[:-1])]
    taken = [math.ceil(60 / entry["batch_size"]) for entry in record.history]
    assert taken[0] == 6 and taken[-1] == 2  # patience alone brings it to the limit
    assert [entry["step"] for entry in record.history] == [sum(taken[: n + 1]) for n in range(6)]
    assert record.steps == sum(taken)


def test_an_interrupted_adaptive_training_ends_bit_for_bit_as_a_whole_one(digits, tmp_path):
    pacing = Adaptive(config(), digits, RULE, WATCH)
    whole = training.train(config(), digits, tmp_path / "whole", pacing=pacing)
    calls = 0

    def stop(fraction):
        nonlocal calls
        calls += 1
        if calls in (3, 8, 12, 17, 20):  # within epochs and at their last steps, before and after changes
            raise OutOfTimeError

    for _ in range(5):
        with pytest.raises(OutOfTimeError):
            training.train(config(), digits, tmp_path / "parts", stop, pacing=pacing)
    parts = training.train(config(), digits, tmp_path / "parts", stop, pacing=pacing)
    assert parts.history == whole.history
    assert parts.checkpoints == whole.checkpoints


def test_a_steady_pace_is_the_plain_training(digits, tmp_path):
    plain = training.train(config(), digits, tmp_path / "plain")
    steady = training.train(config(), digits, tmp_path / "steady", pacing=Steady(config()))
    fixed = Adaptive(config(), digits, AdaptiveBatch(limit=1), WATCH)
    watched = training.train(config(), digits, tmp_path / "watched", pacing=fixed)
    assert steady.checkpoints == plain.checkpoints == watched.checkpoints and steady.history == plain.history
    assert len({entry["lambda1"] for entry in watched.history}) == 6
    with pytest.raises(InputError, match="no perturb= beside"):
        training.train(config(), digits, tmp_path / "both", perturb=lambda m, x, y: x, pacing=Steady(config()))


def test_a_diverged_training_ends_without_a_curvature(digits, tmp_path):
    wild = config(learning_rate=1e6)
    record = training.train(wild, digits, tmp_path, pacing=Adaptive(wild, digits, RULE, WATCH))
    assert record.status == "diverged" and len(record.history) <= 2


def test_a_network_without_numbers_is_watched_as_none(digits):
    model = config().network_on("cpu")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    assert math.isnan(Adaptive(config(), digits, RULE, WATCH).observe(1, model)["lambda1"])
