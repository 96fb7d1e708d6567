"""Training dynamics: batch sharpness by a dense Hessian, snapshots, a whole tiny cell, tables, figures and verdicts."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import nn

from hbanalysis import checkpoints, data, plots, studies, training
from hbanalysis.attacks import fgsm
from hbanalysis.claims import verdicts
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.operators import WeightHessian
from hbanalysis.store import Row, Store
from hbanalysis.studies.snapshots import Snapshots
from hbanalysis.tables import dynamics
from hbanalysis.training.evaluation import evaluate
from hbanalysis.training.sharpness import batch_sharpness
from tests.oracles import dense_oracle, seeded
from tests.tiny_cells import compute_with_stops

STUDY = studies.get("training_dynamics")


def small_net():
    return seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double())


def problem(n=12):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, 3, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def ratio(model, x, y):
    g = torch.cat(
        [p.reshape(-1) for p in torch.autograd.grad(nn.functional.cross_entropy(model(x), y), model.parameters())]
    )
    return float(g @ dense_oracle(model, x, y) @ g / (g @ g))


def test_batch_sharpness_is_that_of_dense_hessians():
    model, (x, y) = small_net(), problem()
    found = batch_sharpness(model, x, y, batch_size=5, batches=6, seed=3)
    generator = torch.Generator().manual_seed(3)
    batches = [torch.randperm(12, generator=generator)[:5] for _ in range(6)]
    known = torch.tensor([ratio(model, x[b], y[b]) for b in batches])
    assert found.mean == pytest.approx(float(known.mean()), rel=1e-5)
    assert found.standard_error == pytest.approx(float(known.std()) / math.sqrt(6), rel=1e-4)
    assert found.batches == 6
    whole = batch_sharpness(model, x, y, batch_size=12, batches=6)
    assert (whole.batches, whole.standard_error) == (1, 0.0)
    assert whole.mean == pytest.approx(ratio(model, x, y), rel=1e-10)


def test_batch_sharpness_leaves_out_batches_without_a_gradient():
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[200.0], [-200.0]]))
    x = torch.ones(4, 1)
    found = batch_sharpness(model, x, torch.zeros(4, dtype=torch.long), 2, 3)
    assert found.batches == 0 and math.isnan(found.mean)
    for size, batches, message in ((5, 1, "1..4"), (0, 1, "1..4"), (2, 0, "at least 1")):
        with pytest.raises(InputError, match=message):
            batch_sharpness(model, x, torch.zeros(4, dtype=torch.long), size, batches)


def config(**changes):
    fixed = {"dataset": "digits", "network": "M1", "train_samples": 60, "batch_size": 20, "target_loss": 0.5}
    return training.TrainingConfig(**{**fixed, "max_epochs": 30, "learning_rate": 0.05, **changes})


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", samples=60)


def test_an_observer_changes_nothing_and_sees_every_epoch(digits, tmp_path):
    without = training.train(config(), digits, tmp_path / "without")
    seen = []
    record = training.train(config(), digits, tmp_path / "with", epoch_end=lambda epoch, model: seen.append(epoch))
    assert record.checkpoints == without.checkpoints and record.history == without.history
    assert seen == list(range(1, len(record.history) + 1))
    training.train(config(), digits, tmp_path / "with", epoch_end=lambda epoch, model: seen.append(-1))
    assert -1 not in seen  # a finished training is not run again
    training.train(config(learning_rate=1e4), digits, tmp_path / "d", epoch_end=lambda e, m: seen.append(-2))
    assert -2 not in seen  # nor is a diverged state shown


def test_snapshots_of_an_interrupted_training_are_those_of_a_whole_one(digits, tmp_path):
    whole = Snapshots(tmp_path / "a", 2, 2.0)
    record = training.train(config(), digits, tmp_path / "whole", epoch_end=whole)
    parts, calls = Snapshots(tmp_path / "b", 2, 2.0), 0

    def stop(fraction):
        nonlocal calls
        calls += 1
        if calls in (2, 5, 13):
            raise OutOfTimeError

    for _ in range(3):
        with pytest.raises(OutOfTimeError):
            training.train(config(), digits, tmp_path / "parts", stop, epoch_end=parts)
    training.train(config(), digits, tmp_path / "parts", epoch_end=parts)
    last = len(record.history)
    assert parts.complete(last) and parts.up_to(last)[:3] == [1, 2, 4]
    for epoch in parts.up_to(last):
        assert checkpoints.sha256(parts.path(epoch)) == checkpoints.sha256(whole.path(epoch))
    parts.path(2).unlink()
    assert not parts.complete(last)
    for bad in ((0, 2.0), (1, 1.0)):
        with pytest.raises(InputError):
            Snapshots(tmp_path, *bad)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def row(store):
    """Interrupted in the training and in the measurement, and finished."""
    return compute_with_stops(STUDY, STUDY.cells("tiny")[0], store, ["training", "epoch 1", "epoch 5"])


def test_a_cell_measures_the_states_of_its_training(row, store):
    cell, values = STUDY.cells("tiny")[0], row.values
    assert values["status"] == "reached" and values["replayed"] is False and values["samples"] == 60
    steps = [point["step"] for point in values["course"]]
    assert steps == sorted(set(steps)) and steps[:3] == [0, 3, 15]
    assert values["course"][0]["loss_train"] == pytest.approx(math.log(10), abs=0.1)
    point = values["at_target"]
    assert point == dynamics.at_crossing(row, 0.5) and point["step"] == values["steps"]
    model = cell.training.network_on("cpu").eval()
    checkpoints.restore(model, store.checkpoint_folder(cell.training.key) / f"{training.stem(0.5)}.safetensors")
    train = data.load("digits", samples=60)
    assert point["loss_train"] == pytest.approx(evaluate(model, train.images, train.labels)[0], rel=1e-6)
    H = WeightHessian(model, train.images, train.labels)
    assert point["lambda1_train"] == pytest.approx(eigsh(H, 1, tol=1e-4, seed=5).values[0].item(), rel=0.1)
    smallest = eigsh(H, 1, which="SA", tol=1e-2, seed=5).values[0].item()
    assert smallest <= point["lambda_min_train"] * 0.98
    assert abs(point["lambda_min_train"] - smallest) <= 0.5 * abs(smallest)
    assert point["gradient_norm_train"] == pytest.approx(float(H.gradient().double().norm()), rel=1e-4)
    peak = max(values["course"], key=lambda p: p["lambda1_train"])
    assert values["peak"]["lambda1"] == peak["lambda1_train"] and values["peak"]["step"] == peak["step"]
    assert not (store.root / "work" / STUDY.key(cell)).exists()


@pytest.mark.full
def test_a_training_that_is_there_already_is_run_again_for_its_epochs(row, store, tmp_path):
    cell = STUDY.cells("tiny")[0]
    other = Store(tmp_path)
    training.train(cell.training, data.load("digits", samples=60), other.checkpoint_folder(cell.training.key))
    again = STUDY.compute(cell, other, "cpu")
    assert again.values["replayed"] is True
    assert again.provenance["checkpoint_sha256"] == row.provenance["checkpoint_sha256"]
    for a, b in zip(again.values["course"], row.values["course"], strict=True):
        assert (a["step"], a["loss_train"], a["sharpness"]) == (b["step"], b["loss_train"], b["sharpness"])
        assert a["lambda1_train"] == pytest.approx(b["lambda1_train"], rel=0.1)


def test_robust_training_has_checkpoints_of_its_own(store):
    plain = STUDY.cells("tiny")[0]
    base = dataclasses.replace(plain.training, target_loss=None, max_epochs=2)
    robust = dataclasses.replace(plain, training=base, train_epsilon=0.1)
    assert robust.training_key != base.key and plain.training_key == plain.training.key
    found = STUDY.compute(robust, store, "cpu")
    assert found.values["status"] == "finished" and [p["epoch"] for p in found.values["course"]] == [0, 1, 2]
    train = data.load("digits", samples=60)
    model = base.network_on("cpu")
    moved = fgsm(model, train.images, train.labels, 0.1, softmax="plain")
    first = checkpoints.load(store.checkpoint_folder(robust.training_key) / "epoch-end.safetensors")[0]
    assert evaluate(model, moved, train.labels)[0] > evaluate(model, train.images, train.labels)[0]
    clean = training.train(base, train, store.root / "clean")
    other = checkpoints.load(store.root / "clean" / f"{clean.final}.safetensors")[0]
    assert any(not torch.equal(first[name], other[name]) for name in first)
    with pytest.raises(InputError, match="no target loss"):
        dataclasses.replace(plain, train_epsilon=0.1)


def test_cells_and_configurations_are_the_same_thing():
    for scale in STUDY.scales:
        for cell in STUDY.cells(scale):
            assert STUDY.from_config(STUDY.config(cell)) == cell
    assert {STUDY.scale_of(cell) for cell in STUDY.cells("mnist")} == {"paper"}
    assert {cell.train_epsilon for cell in STUDY.cells("paper", network="C1")} == {0.0, 0.02}
    assert {cell.training.network for cell in STUDY.cells("paper", train_epsilon=0.02)} == {"C1"}
    shared = {cell.training.key for cell in studies.get("spectrum_vs_batch").cells("paper")}
    ours = {c.training.key for c in STUDY.cells("paper") if not c.train_epsilon and not c.training.train_samples}
    assert len(ours & shared) == 6 + 10  # C1 and M1, but for the batches of the whole set
    for changes, message in (
        ({"dense": 0}, "dense must be at least 1"),
        ({"growth": 1.0}, "growth must be a factor above 1"),
        ({"tolerance": 2.0}, "tolerance must lie in"),
        ({"epsilon": 0.0}, "epsilon must be a size"),
    ):
        with pytest.raises(InputError, match=message):
            STUDY.cells("digits", **changes)


LOSSES = (1e-1, 1e-2, 3e-3, 1e-3)


def made_up(size: int, seed: int, *, scale: str = "paper", samples: int = 60_000, **law: Any) -> Row:
    """A row of M1 on MNIST whose values at the losses are the law's: one number, or one a loss."""
    cell = next(c for c in STUDY.cells("mnist", seeds=[seed]))
    cell = dataclasses.replace(cell, training=dataclasses.replace(cell.training, batch_size=size))
    law = {"lambda1": (20.0, 8.0, 4.0, 2.0), "gradient": 0.1, "saddle": 0.05, "fgsm": 0.6} | law
    spread = {name: value if isinstance(value, tuple) else (value,) * 4 for name, value in law.items()}
    course = [
        {
            "epoch": float(i + 1),
            "step": 100 * (i + 1),
            "loss_train": loss,
            "lambda1_train": spread["lambda1"][i],
            "lambda_min_train": -spread["saddle"][i] * spread["lambda1"][i],
            "gradient_norm_train": spread["gradient"][i],
            "fgsm_test": spread["fgsm"][i],
            "sharpness": 1.0,
            "sharpness_error": 0.1,
        }
        for i, loss in enumerate(LOSSES)
    ]
    values = {
        "status": "reached",
        "epochs": 4.0,
        "steps": 400,
        "samples": samples,
        "crossings": [{"threshold": p["loss_train"], "epoch": p["epoch"], "step": p["step"]} for p in course],
        "course": course,
        "peak": {"lambda1": max(spread["lambda1"]), "epoch": 1.0, "step": 100, "loss_train": 0.1},
        "at_target": course[-1],
    }
    return Row(STUDY.name, scale, 1, STUDY.key(cell), STUDY.config(cell), values, {})


def pair(large: dict[str, Any], seeds=5, small: dict[str, Any] | None = None, sizes=(64, 1024)) -> list[Row]:
    return [made_up(sizes[0], s, **(small or {})) for s in range(seeds)] + [
        made_up(sizes[1], s, **{k: v for k, v in large.items()}) for s in range(seeds)
    ]


def outcome(claim, rows):
    (found,) = verdicts.verdicts(claim, rows)
    return found


def test_k3_compares_at_equal_loss():
    assert verdicts.verdicts("K3", [])[0].outcome == "not yet run"
    good = outcome("K3", pair({"gradient": 0.06, "saddle": 0.02}))
    assert (good.outcome, good.same_direction) == ("reproduced", "yes") and "trivial" in good.remark
    assert len(good.parts) == 8 and good.effect == pytest.approx(math.log(0.06 / 0.1 / 0.5))
    # A gradient that is small at a single one of the losses is not "half that of the small batch".
    assert outcome("K3", pair({"gradient": (0.04, 0.09, 0.09, 0.09), "saddle": 0.02})).outcome == "partly"
    assert outcome("K3", pair({"gradient": 0.02, "saddle": 0.02})).outcome == "not reproduced"
    assert outcome("K3", pair({"gradient": 0.2, "saddle": 0.09})).outcome != "reproduced"
    assert outcome("K3", pair({"gradient": 0.2, "saddle": 0.02}, seeds=3)).outcome == "undecided"
    # The whole set as one batch is K12's and does not stand for a large batch.
    rows = pair({"gradient": 0.06, "saddle": 0.02}) + [made_up(60_000, s, gradient=1e-3) for s in range(5)]
    assert outcome("K3", rows).outcome == "reproduced"
    wide = pair({"gradient": 0.2})
    for number, one in enumerate(wide[5:]):  # the sign of the saddle's log ratio differs from seed to seed
        for point in one.values["course"]:
            point["lambda_min_train"] *= (0.2, 5.0, 0.3, 3.0, 1.1)[number]
    assert outcome("K3", wide).outcome == "undecided"


def test_k11_is_refuted_where_curvature_falls_and_accuracy_stays():
    assert outcome("K11", pair({})).outcome == "not reproduced"  # 8 to 2 between 1e-2 and 1e-3, accuracy .6
    assert outcome("K11", pair({})).same_direction == "no"
    moving = {"fgsm": (0.6, 0.6, 0.61, 0.63)}
    assert outcome("K11", pair(moving, small=moving)).outcome == "undecided"  # this arm cannot confirm
    assert outcome("K11", pair(moving)).outcome == "undecided"  # half of the runs, less than two thirds
    little = {"lambda1": (20.0, 3.9, 3.0, 2.0)}
    assert outcome("K11", pair(little, small=little)).outcome == "undecided"
    digits = [dataclasses.replace(row, scale="digits") for row in pair({})]
    assert (outcome("K11", digits).outcome, outcome("K11", digits).same_direction) == ("not yet run", "no")


def test_k12_needs_the_whole_set_as_one_batch():
    assert outcome("K12", pair({"lambda1": 5.0})).remark == "these rows lack what the criterion compares"
    grown = [made_up(60_000, s, lambda1=6.0 + 0.1 * s) for s in range(5)]
    found = outcome("K12", pair({"lambda1": 5.0}) + grown)
    assert found.outcome == "reproduced"
    logs = [math.log((6.0 + 0.1 * s) / 5.0) for s in range(5)]
    assert found.effect == pytest.approx(sum(logs) / 5)
    shrunk = [made_up(60_000, s, lambda1=3.0 + 0.1 * s) for s in range(5)]
    assert outcome("K12", pair({"lambda1": 5.0}) + shrunk).outcome == "not reproduced"


def test_tables_compare_at_equal_loss_epoch_and_step():
    rows = [made_up(64, 0), made_up(1024, 0, lambda1=(40.0, 32.0, 12.0, 8.0))]
    for point in rows[1].values["course"]:
        point["step"] *= 2
    for crossing in rows[1].values["crossings"]:
        crossing["step"] *= 2
    table = dynamics.compared(rows).set_index("at equal")["ratio of lambda1"]
    assert table["loss 0.01"] == pytest.approx(4.0) and table["loss 0.001"] == pytest.approx(4.0)
    assert table["the last common epoch"] == pytest.approx(4.0)
    assert table["the last common step"] == pytest.approx(32.0 / 2.0)  # the larger batch is at its second state by then
    losses = dynamics.at_losses(rows)
    first = losses[(losses["loss"] == 1e-3) & (losses["batch_size"] == 64)].iloc[0]
    assert (first["lambda1"], first["lambda1 / loss"]) == pytest.approx((2.0, 2000.0))
    assert first["saddle"] == pytest.approx(0.05) and first["FGSM accuracy (%)"] == pytest.approx(60.0)
    assert dynamics.stability_lines(rows[0]) == pytest.approx((20.0, 380.0))
    runs = dynamics.along_each(rows)
    assert list(runs["lambda1 falls by"]) == pytest.approx([4.0, 4.0])
    assert dynamics.peaks(rows).set_index("batch_size").loc[1024, "peak lambda1"] == pytest.approx(40.0)


def test_figures_show_the_rows(row):
    for draw in (plots.curvature_course, plots.sharpness_course, plots.beside_the_curvature):
        figure, drawn = draw([row])
        assert list(drawn["lambda1_train"]) == [point["lambda1_train"] for point in row.values["course"]]
        assert figure.axes
        with pytest.raises(InputError):
            draw([])


def test_a_batch_may_be_smaller_than_the_chosen_number_of_samples_alone():
    cells = STUDY.cells("paper", network="M1", train_samples=40, batch_sizes=[8, 40])
    assert {cell.training.batch_size for cell in cells} == {8, 40}
