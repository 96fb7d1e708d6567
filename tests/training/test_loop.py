"""Training to a target: crossings, resume bit for bit, caps, divergence, micro-batches."""

import dataclasses
import json
import shutil

import pytest
import torch

from hbanalysis import checkpoints, data, networks
from hbanalysis.errors import InputError, OutOfTimeError, StoreError
from hbanalysis.training import EPOCH_END, TrainingConfig, load_record, loop, stem, train
from hbanalysis.training.evaluation import evaluate

SMALL = {"dataset": "digits", "network": "M1", "train_samples": 200}


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", samples=200)


def config(**changes):
    return TrainingConfig(**{**SMALL, "batch_size": 50, "target_loss": 0.5, "max_epochs": 40, **changes})


def test_reaches_the_target_and_keeps_the_first_state_below_it(digits, tmp_path):
    record = train(config(), digits, tmp_path)
    assert record.status == "reached"
    (crossing,) = record.crossings
    assert crossing["threshold"] == 0.5
    assert crossing["loss_train"] <= 0.5
    model = config().network_on("cpu")
    checkpoints.restore(model, tmp_path / f"{record.final}.safetensors")
    assert evaluate(model, digits.images, digits.labels)[0] == pytest.approx(crossing["loss_train"], rel=1e-6)
    assert record.epochs == int(4 * record.epochs) / 4
    assert len(record.history) == -(-record.epochs // 1)  # the epoch of the crossing is finished
    assert {stem(0.5), EPOCH_END} == set(record.checkpoints)
    for name, sha in record.checkpoints.items():
        assert checkpoints.sha256(tmp_path / f"{name}.safetensors") == sha
    assert not (tmp_path / "resume.safetensors").exists()


def test_every_threshold_above_the_target_is_kept(digits, tmp_path):
    record = train(config(target_loss=5e-3, max_epochs=200), digits, tmp_path)
    assert [c["threshold"] for c in record.crossings] == [0.1, 0.01, 0.005]
    assert all(c["loss_train"] <= c["threshold"] for c in record.crossings)
    assert [c["step"] for c in record.crossings] == sorted(c["step"] for c in record.crossings)


@pytest.mark.survives("Determinism")
def test_an_interrupted_training_ends_bit_for_bit_as_an_uninterrupted_one(digits, tmp_path):
    """A training with the same seed, interrupted four times and taken up again, ends with the same weights, bit for
    bit."""
    whole = train(config(), digits, tmp_path / "whole")
    calls = 0

    def interrupt(fraction):
        nonlocal calls
        calls += 1
        if calls in (1, 6, 7, 23):
            raise OutOfTimeError

    for _ in range(4):
        with pytest.raises(OutOfTimeError):
            train(config(), digits, tmp_path / "parts", interrupt)
    parts = train(config(), digits, tmp_path / "parts")
    assert parts.checkpoints == whole.checkpoints  # the hashes of the weights
    assert (parts.history, parts.crossings) == (whole.history, whole.crossings)


def test_a_finished_training_is_not_done_again(digits, tmp_path):
    first = train(config(), digits, tmp_path)

    def never(fraction):
        raise AssertionError("a step was taken")

    assert train(config(), digits, tmp_path, never) == first


def test_cap_is_reported(digits, tmp_path):
    record = train(config(target_loss=1e-6, max_epochs=2), digits, tmp_path)
    assert (record.status, record.epochs, record.final) == ("cap", 2.0, EPOCH_END)


def test_divergence_is_a_result(digits, tmp_path):
    record = train(config(learning_rate=1e4), digits, tmp_path)
    assert record.status == "diverged"
    assert load_record(tmp_path) == record


@pytest.mark.parametrize("stops", [(3, 7), (7,)])
def test_a_training_stopped_at_the_step_where_it_diverged_keeps_its_course(digits, tmp_path, stops):
    """25 steps an epoch; the loss is looked at after the seventh."""
    wild = config(batch_size=8, learning_rate=30.0)
    whole = train(wild, digits, tmp_path / "whole")
    assert (whole.status, whole.epochs, whole.steps, whole.history[-1]["step"]) == ("diverged", 1.0, 7, 7)
    calls = 0

    def interrupt(fraction):
        nonlocal calls
        calls += 1
        if calls in stops:
            raise OutOfTimeError

    for _ in stops:
        with pytest.raises(OutOfTimeError):
            train(wild, digits, tmp_path / "parts", interrupt)
    parts = train(wild, digits, tmp_path / "parts", interrupt)
    assert calls == 7
    assert dataclasses.replace(parts, seconds=whole.seconds) == whole


def test_seed_decides_and_global_state_does_not(digits, tmp_path):
    torch.manual_seed(5)
    a = train(config(max_epochs=1, target_loss=1e-6), digits, tmp_path / "a")
    torch.manual_seed(6)
    b = train(config(max_epochs=1, target_loss=1e-6), digits, tmp_path / "b")
    c = train(config(max_epochs=1, target_loss=1e-6, seed=1), digits, tmp_path / "c")
    assert a.checkpoints == b.checkpoints != c.checkpoints


def test_micro_batches_change_nothing_but_rounding(digits, tmp_path, monkeypatch):
    states = []
    for size in (7, 200):
        monkeypatch.setitem(loop.MICRO_BATCH, "cpu", size)
        train(config(batch_size=200, max_epochs=2, target_loss=1e-6), digits, tmp_path / str(size))
        states.append(checkpoints.load(tmp_path / str(size) / f"{EPOCH_END}.safetensors")[0])
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=1e-6)


def test_ghost_batches_are_part_of_the_meaning(tmp_path):
    assert config(ghost_batch=10).key != config().key
    assert networks.has_batch_norm(networks.build("C1")) and not networks.has_batch_norm(networks.build("C3"))


def test_bfloat16_training_keeps_float32_weights(digits, tmp_path):
    train(config(precision="bfloat16", max_epochs=1, target_loss=1e-6), digits, tmp_path)
    weights, _ = checkpoints.load(tmp_path / f"{EPOCH_END}.safetensors")
    assert {t.dtype for t in weights.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 201}, "1..200"),
        ({"batch_size": 0}, "1..200"),
        ({"network": "M2"}, "Did you mean .*'M1'"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"activation": "gelu"}, "softplus"),
        ({"schedule": "cosine"}, "milestones"),
        ({"learning_rate": 0.0}, "positive"),
        ({"momentum": 1.0}, "momentum"),
        ({"precision": "float16"}, "bfloat16"),
        ({"train_samples": 5000}, "1..1433"),
    ],
)
def test_bad_configuration_is_named(change, message):
    with pytest.raises(InputError, match=message):
        config(**change)


@pytest.mark.parametrize("name", ["batch_size", "seed", "train_samples", "max_epochs", "ghost_batch"])
def test_whole_numbers_are_integers(name):
    given = config()
    object.__setattr__(given, name, 16.0)  # the tests' own type checks would not let it pass
    with pytest.raises(InputError, match=f"{name} must be an integer; given 16.0"):
        given.__post_init__()


def test_samples_must_fit_the_configuration(tmp_path):
    with pytest.raises(InputError, match="200 training samples; given 150"):
        train(config(), data.load("digits", samples=150), tmp_path)


def test_damaged_files_are_named(digits, tmp_path):
    train(config(), digits, tmp_path)
    checkpoint = tmp_path / f"{EPOCH_END}.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(StoreError, match=EPOCH_END):
        checkpoints.load(checkpoint)
    (tmp_path / "training.json").write_text(json.dumps({"status": "reached"})[:-3])
    with pytest.raises(StoreError, match=r"training\.json"):
        load_record(tmp_path)


def test_a_foreign_checkpoint_is_refused(digits, tmp_path):
    train(config(max_epochs=1, target_loss=1e-6), digits, tmp_path)
    with pytest.raises(StoreError, match="does not fit the network"):
        checkpoints.restore(networks.build("C3"), tmp_path / f"{EPOCH_END}.safetensors")


def test_an_unwritable_folder_is_named(digits, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="Cannot write"):
        train(config(), digits, tmp_path / "file" / "folder")


def test_a_killed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, {"a": torch.ones(3)})
    old = path.read_bytes()

    def fail(source, target):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(StoreError, match="no space left"):
        checkpoints.save(path, {"a": torch.zeros(3)})
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    shutil.rmtree(tmp_path)


def test_without_a_target_the_epochs_are_trained(digits, tmp_path):
    record = train(config(target_loss=None, max_epochs=3), digits, tmp_path)
    assert (record.status, record.epochs, record.crossings, record.final) == ("finished", 3.0, [], EPOCH_END)
    assert len(record.history) == 3


def test_a_training_goes_on_from_another_with_perturbed_images(digits, tmp_path):
    before = train(config(target_loss=None, max_epochs=2), digits, tmp_path / "before")
    start, seen = tmp_path / "before" / f"{before.final}.safetensors", []

    def perturb(model, x, y):
        seen.append(model.training)
        return (x + 0.05 * (y[:, None, None, None] % 2)).clamp(0, 1)

    changes = {"target_loss": None, "max_epochs": 1, "learning_rate": 1e-12}
    still = train(config(**changes), digits, tmp_path / "still", start=start, perturb=perturb)
    one, other = (checkpoints.load(path)[0] for path in (start, tmp_path / "still" / f"{still.final}.safetensors"))
    assert all(torch.allclose(one[name], other[name], atol=1e-9) for name in one) and seen == [True] * 4
    model = config().network_on("cpu")
    checkpoints.restore(model, start)
    moved = perturb(model, digits.images, digits.labels)
    assert still.history[0]["loss_running"] == pytest.approx(evaluate(model, moved, digits.labels)[0], rel=1e-5)
    robust = train(config(**changes | {"learning_rate": 0.05}), digits, tmp_path / "r", start=start, perturb=perturb)
    clean = train(config(**changes | {"learning_rate": 0.05}), digits, tmp_path / "c", start=start)
    assert robust.checkpoints[robust.final] != clean.checkpoints[clean.final]
