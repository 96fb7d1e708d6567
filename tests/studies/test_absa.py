"""The study of adaptive batch sizes: a whole tiny cell, interrupted; presets; tables and figures of known rows."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from hbanalysis import checkpoints, data, plots, studies
from hbanalysis.adaptive_batch import AdaptiveBatch
from hbanalysis.attacks import accuracy_under, fgsm, pgd
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.lineup import ABS, ABSA, ARMS, LARGE, SMALL
from hbanalysis.operators import WeightHessian
from hbanalysis.store import Row, Store
from hbanalysis.tables import adaptive_tables
from hbanalysis.training.evaluation import evaluate

STUDY = studies.get("absa")


def cell_of(arm, **changes):
    return next(c for c in STUDY.cells("tiny", **changes) if c.arm == arm)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def row(store):
    """Interrupted in the training and in the measurement, and finished."""
    stops = ["training", "training", "pgd"]

    def stop(phase, fraction):
        if stops and phase == stops[0]:
            stops.pop(0)
            raise OutOfTimeError

    for _ in range(3):
        with pytest.raises(OutOfTimeError):
            STUDY.compute(cell_of(ABSA), store, "cpu", stop)
    found = STUDY.compute(cell_of(ABSA), store, "cpu", stop)
    assert not stops
    return found


def test_an_interrupted_cell_is_a_whole_one(row, tmp_path):
    again = STUDY.compute(cell_of(ABSA), Store(tmp_path), "cpu")
    assert again.values == row.values
    assert again.provenance["checkpoint_sha256"] == row.provenance["checkpoint_sha256"]


def test_a_cell_holds_what_was_measured_at_the_end(row, store):
    cell, values = cell_of(ABSA), row.values
    assert (values["status"], values["epochs"], values["samples"]) == ("finished", 6, 60)
    assert values["steps"] == sum(math.ceil(60 / e["batch_size"]) for e in values["history"])
    assert values["history"][-1]["batch_size"] == 40 and values["history"][0]["share"] == 0.2
    model = cell.training.network_on("cpu").eval()
    checkpoints.restore(model, store.checkpoint_folder(cell.training_key) / "epoch-end.safetensors")
    train, test = data.load("digits", samples=60), data.load("digits", "test", samples=50)
    at = values["at_target"]
    assert (at["loss_train"], at["accuracy_train"]) == evaluate(model, train.images, train.labels)
    assert (at["loss_test"], at["accuracy_test"]) == evaluate(model, test.images, test.labels)
    (attacked,) = at["fgsm"]
    for name, part in (("train", train), ("test", test)):
        known = accuracy_under(model, partial(fgsm, eps=0.1, softmax="plain"), part.images, part.labels)
        assert attacked[f"accuracy_{name}"] == known
    strong = partial(pgd, eps=0.1, steps=2, restarts=1, loss="margin")
    assert at["pgd_test"] == accuracy_under(model, strong, test.images[:20], test.labels[:20])
    H = WeightHessian(model, train.images, train.labels)
    v = torch.randn(H.shape[0], generator=torch.Generator().manual_seed(1))
    for _ in range(60):
        v = H @ (v / v.norm())
    assert at["lambda1_train"] == pytest.approx(float(v.norm()), rel=0.1)
    assert STUDY.trainings(cell) == [cell.training_key]
    assert not (store.root / "work" / STUDY.key(cell)).exists()


def test_fixed_arms_keep_their_batch_and_the_large_one_warms_up(store):
    small = STUDY.compute(cell_of(SMALL), store, "cpu")
    assert {e["batch_size"] for e in small.values["history"]} == {10} and small.values["steps"] == 36
    large = STUDY.compute(cell_of(LARGE), store, "cpu")
    assert {e["batch_size"] for e in large.values["history"]} == {40} and large.values["steps"] == 12
    assert [e["learning_rate"] for e in large.values["history"][:3]] == pytest.approx([0.1, 0.2, 0.2])
    assert {e["share"] for e in [*small.values["history"], *large.values["history"]]} == {0.0}


def test_a_diverged_training_has_a_row_without_an_end(store):
    found = STUDY.compute(cell_of(SMALL, learning_rate=1e6), store, "cpu")
    assert (found.values["status"], found.values["at_target"]) == ("diverged", None)
    table = adaptive_tables.outcomes([found])
    assert table[["seeds", "diverged"]].values.tolist() == [[0, 1]]
    assert adaptive_tables.compared([found]).empty


def test_presets_and_configurations():
    for scale in (*STUDY.scales, "tiny"):
        for cell in STUDY.cells(scale):
            assert STUDY.from_config(STUDY.config(cell)) == cell
            assert cell.rule.limit * cell.training.batch_size <= cell.training.samples
    for network, seeds in (("M1", 5), ("C1", 3)):
        assert len(STUDY.cells("paper", network=network)) == 4 * seeds
    assert {STUDY.scale_of(cell) for cell in STUDY.cells("mnist")} == {"paper"}
    by_arm = {cell.arm: cell for cell in STUDY.cells("paper", network="C1", seeds=[0])}
    assert list(by_arm) == list(ARMS)
    assert [by_arm[a].rule.limit for a in ARMS] == [1, 1, 16, 16]
    assert [by_arm[a].rule.share for a in ARMS] == [0.0, 0.0, 0.0, 0.2]
    assert by_arm[LARGE].training.batch_size == 2048
    assert by_arm[LARGE].training.learning_rate == 16 * by_arm[SMALL].training.learning_rate
    assert {by_arm[a].training.ghost_batch for a in ARMS} == {128}
    assert len({by_arm[a].training_key for a in ARMS}) == 4
    changed = cell_of(ABSA, fall=3.0, train_epsilon=0.5, epsilon=0.2, hessian_samples=7, limit=2)
    assert (changed.rule.fall, changed.watch.epsilon, changed.measure.epsilon) == (3.0, 0.5, 0.2)
    assert (changed.watch.samples, changed.rule.limit) == (7, 2)
    assert cell_of(LARGE, warm_up=4).watch.warm_up == 4 and cell_of(SMALL, warm_up=4).watch.warm_up == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["ABBA"]}, "Unknown arm 'ABBA'. Did you mean"),
        ({"limit": 7, "arms": ["ABS"]}, "larger than the training set of 60"),
        ({"epsilon": 0.0}, "epsilon must be a size"),
        ({"fall": 0.5}, "fall must be a finite factor"),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells("tiny", **changes)


def test_a_cell_has_no_target_loss():
    cell = cell_of(SMALL)
    with pytest.raises(InputError, match="same epochs"):
        dataclasses.replace(cell, training=dataclasses.replace(cell.training, target_loss=0.1))


CURVATURES = (8.0, 4.0, 9.0, 9.0, 9.0, 9.0)


def made_up(arm, seed, *, steps=100, accuracy=0.9, attacked=0.5, strong=0.4, lambda1=2.0):
    cell = cell_of(arm, seeds=[seed])
    rule = AdaptiveBatch(**dataclasses.asdict(cell.rule))
    history = [
        {
            "epoch": n + 1,
            "step": steps * (n + 1) // 6,
            "loss_running": 1.0,
            "learning_rate": 0.05 * stage.ratio,
            "batch_size": 10 * stage.ratio,
            "share": stage.share,
            "lambda1": curvature,
        }
        for n, (stage, curvature) in enumerate(zip(rule.stages(CURVATURES), CURVATURES, strict=False))
    ]
    at = {"loss_train": 0.1, "accuracy_train": 1.0, "accuracy_test": accuracy}
    at |= {"pgd_test": strong, "lambda1_train": lambda1}
    at |= {"fgsm": [{"epsilon": 0.1, "accuracy_train": attacked, "accuracy_test": attacked}]}
    values = {"status": "finished", "epochs": 6.0, "steps": steps, "samples": 60, "history": history, "at_target": at}
    return Row(STUDY.name, "tiny", 1, STUDY.key(cell), STUDY.config(cell), values, {})


def rows():
    found = []
    for seed in range(3):
        found += [
            made_up(SMALL, seed),
            made_up(LARGE, seed, steps=25, accuracy=0.8, lambda1=8.0),
            made_up(ABS, seed, steps=50, accuracy=0.9 + 0.01 * seed, lambda1=2.0 * 2**seed),
            made_up(ABSA, seed, steps=50, attacked=0.6),
        ]
    return found


def test_outcomes_are_means_over_seeds():
    table = adaptive_tables.outcomes(rows()).set_index("arm")
    assert table.index.tolist() == list(ARMS)
    assert table["seeds"].tolist() == [3] * 4 and table["diverged"].tolist() == [0] * 4
    assert table["SGD steps"].tolist() == pytest.approx([100, 25, 50, 50])
    assert table.loc[ABS, "test accuracy (%)"] == pytest.approx(91.0)
    assert table.loc[ABS, "lambda1"] == pytest.approx(4.0)  # geometric
    assert table.loc[ABSA, "FGSM accuracy (%)"] == pytest.approx(60.0)


def test_arms_are_compared_within_seeds():
    table = adaptive_tables.compared(rows()).set_index(["quantity", "arms"])
    steps = table.loc[("SGD steps", "ABS over small")]
    assert (steps["mean"], steps["low"], steps["high"]) == pytest.approx((0.5, 0.5, 0.5))
    accuracy = table.loc[("test accuracy (%)", "ABS minus small")]
    half = 4.302653 / math.sqrt(3)  # differences 0, 1, 2 points
    assert (accuracy["mean"], accuracy["low"], accuracy["high"]) == pytest.approx((1.0, 1 - half, 1 + half))
    ratio = table.loc[("lambda1", "ABS over small")]
    half = 4.302653 * math.log(2) / math.sqrt(3)  # logarithms 0, log 2, log 4
    assert ratio["mean"] == pytest.approx(2.0) and math.log(ratio["high"] / 2) == pytest.approx(half)
    assert table.loc[("FGSM accuracy (%)", "ABSA minus ABS"), "mean"] == pytest.approx(10.0)
    one = adaptive_tables.compared([row for row in rows() if adaptive_tables.seed(row) == 0])
    assert one["seeds"].tolist() == [1] * len(one) and one[["low", "high"]].isna().all(axis=None)


def test_every_enlargement_is_told_with_its_cause():
    table = adaptive_tables.enlargements(rows())
    assert set(table["arm"]) == {ABS, ABSA} and len(table) == 12
    first = table[(table["arm"] == ABSA) & (table["seed"] == 1)]
    assert first["epoch"].tolist() == [3, 5] and first["why"].tolist() == ["curvature", "patience"]
    assert first["reference"].tolist() == [8.0, 4.0] and first["lambda1"].tolist() == [4.0, 9.0]
    assert first["batch_size"].tolist() == [20, 40]


def test_figures_show_every_training():
    figure, course = plots.adaptive_course(rows())
    assert len(course) == 12 * 6 and set(course["arm"]) == set(ARMS)
    assert course[course["arm"] == ABS]["batch_size"].max() == 40
    figure, ends = plots.steps_and_outcomes(rows())
    assert len(ends) == 12 and len(figure.axes) == 3
    drawn = sum(len(line.get_xdata()) for line in figure.axes[0].lines)
    assert drawn == 12
    lost = dataclasses.replace(rows()[1], values=rows()[1].values | {"at_target": None, "status": "diverged"})
    figure, ends = plots.steps_and_outcomes([rows()[0], lost])
    assert len(ends) == 1
    for draw in (plots.adaptive_course, plots.steps_and_outcomes):
        with pytest.raises(InputError, match="no measured row"):
            draw([])
