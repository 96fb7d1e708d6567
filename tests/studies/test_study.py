"""The study spectrum_vs_batch: presets, labels, checked parameters, and a whole tiny cell."""

import dataclasses

import pytest
import torch

from hbanalysis import checkpoints, data, studies
from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from hbanalysis.store import Store
from tests.tiny_cells import compute, compute_with_stops

STUDY = studies.get("spectrum_vs_batch")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


def test_presets_hold_what_they_promise():
    digits = STUDY.cells("digits")
    assert [(c.training.batch_size, c.training.seed) for c in digits] == [
        (b, s) for b in (16, 64, 256) for s in range(3)
    ]
    mnist = STUDY.cells("mnist")
    assert [c.training.batch_size for c in mnist] == [64, 256, 1024]
    assert all(c.training.train_samples is None for c in mnist)
    assert {(c.training.network, c.training.dataset, c.training.activation) for c in STUDY.cells("paper")} == {
        ("C1", "cifar10", "relu"),
        ("C1", "svhn_extra", "relu"),
        ("C2", "cifar10", "relu"),
        ("CR", "cifar100", "relu"),
        ("M1", "mnist", "relu"),
    }
    assert all(c.training.target_loss == 1e-3 for scale in STUDY.scales for c in STUDY.cells(scale))


def test_scale_is_a_label():
    assert {STUDY.scale_of(c) for c in STUDY.cells("mnist")} == {
        "paper"
    }  # M1 on the whole MNIST is a cell of the paper
    assert {STUDY.scale_of(c) for c in STUDY.cells("digits")} == {"digits"}
    assert STUDY.scale_of(STUDY.cells("small")[0]) == "small"
    assert STUDY.scale_of(STUDY.cells("digits", seeds=[7])[0]) == "custom"


def test_configuration_and_cell_are_the_same_thing():
    keys = set()
    for scale in (*STUDY.scales, "tiny"):
        for cell in STUDY.cells(scale):
            assert STUDY.from_config(STUDY.config(cell)) == cell
            keys.add(STUDY.key(cell))
    assert len(keys) == len({c for scale in (*STUDY.scales, "tiny") for c in STUDY.cells(scale)})


def test_overrides_replace_and_select():
    cells = STUDY.cells("digits", batch_sizes=[32, 128], seeds=[7], learning_rate=0.02, epsilons=[0.3])
    assert [(c.training.batch_size, c.training.seed, c.training.learning_rate) for c in cells] == [
        (32, 7, 0.02),
        (128, 7, 0.02),
    ]
    assert cells[0].measure.epsilons == (0.3,)
    assert len(STUDY.cells("paper", network="M1")) == 30
    assert len(STUDY.cells("digits", seeds=None)) == 9


@pytest.mark.parametrize(
    ("scale", "overrides", "message"),
    [
        ("digit", {}, "Unknown scale 'digit'. Did you mean 'digits'"),
        ("digits", {"batch_size": [4]}, "Did you mean 'batch_sizes'"),
        ("digits", {"batch_sizes": 4}, r"batch_sizes must be a non-empty list\[int\]; given 4"),
        ("digits", {"batch_sizes": ["4"]}, r"must be list\[int\]; given '4'"),
        ("digits", {"batch_sizes": []}, "non-empty"),
        ("digits", {"seeds": [True]}, "bool"),
        ("digits", {"batch_sizes": [5000]}, "1..1433"),
        ("digits", {"learning_rate": "fast"}, "learning_rate must be float; given 'fast'"),
        ("digits", {"eigenvalues": 0}, "at least 1"),
        ("digits", {"points": 4}, "odd"),
        ("digits", {"epsilons": [2.0]}, "sizes in"),
        ("digits", {"network": "M3"}, "Unknown network"),
        ("paper", {"network": "C3"}, "C1 on cifar10"),
    ],
)
def test_bad_input_is_named(scale, overrides, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells(scale, **overrides)


def test_unknown_study_is_named():
    with pytest.raises(InputError, match="Did you mean 'spectrum_vs_batch'"):
        studies.get("spectrum_vs_batches")
    with pytest.raises(InputError, match="no configuration"):
        STUDY.from_config({"training": {}})


def test_a_cell_becomes_a_row(computed):
    store, cell, row, phases, _ = computed
    assert store.get(STUDY.name, STUDY.key(cell)) == row
    values, target = row.values, row.values["at_target"]
    assert (row.scale, values["status"]) == ("tiny", "reached")
    assert target["loss_train"] <= 0.5
    assert len(target["spectrum_train"]) == 3 and target["spectrum_train"][0] == target["lambda1_train"]
    assert target["converged_train"] and target["products_train"] >= 3
    assert [f["epsilon"] for f in target["fgsm"]] == [0.1]
    assert target["fgsm"][0]["accuracy_test"] < target["accuracy_test"]
    middle = values["landscape"]["t"].index(0.0)
    assert values["landscape"]["loss_train"][middle] == pytest.approx(target["loss_train"], rel=1e-6)
    assert set(values["epoch_end"]) <= set(target)
    assert row.provenance["threads"] == torch.get_num_threads()
    assert row.provenance["seconds"]["training"] > 0
    fractions = [f for _, f in phases]
    assert min(fractions) >= 0 and max(fractions) < 1
    assert {"training", "evaluation", "attack"} <= {p.split()[0] for p, _ in phases}


def test_the_row_is_of_the_checkpoint_it_names(computed):
    store, cell, row, *_ = computed
    path = store.checkpoint_folder(cell.training.key) / "loss-0.5.safetensors"
    assert checkpoints.sha256(path) == row.provenance["checkpoint_sha256"]
    model = cell.training.network_on("cpu")
    checkpoints.restore(model, path)
    train = data.load("digits", samples=200)
    H = WeightHessian(model, train.images, train.labels)
    assert row.values["at_target"]["loss_train"] == pytest.approx(H.loss(), rel=1e-6)
    g = H.gradient().double()
    assert row.values["at_target"]["gradient_norm_train"] == pytest.approx(g.norm().item(), rel=1e-4)


def test_an_interrupted_cell_gives_the_same_row(computed, tmp_path):
    row = compute_with_stops(STUDY, computed.cell, Store(tmp_path), ["training", "spectrum train", "landscape"])
    assert row.values == computed.row.values


@pytest.mark.survives("Ends of the range")
def test_a_diverged_cell_is_a_row(tmp_path):
    """A training whose loss explodes is a row that says so, with no curvature and no accuracy made up."""
    (cell,) = STUDY.cells("tiny", batch_sizes=[50], learning_rate=1e4)
    row = STUDY.compute(cell, Store(tmp_path), "cpu")
    assert (row.values["status"], row.values["at_target"]) == ("diverged", None)


def test_a_capped_cell_is_a_row_that_says_so(tmp_path):
    (cell,) = STUDY.cells("tiny", batch_sizes=[100], max_epochs=1, target_loss=1e-4)
    row = STUDY.compute(cell, Store(tmp_path), "cpu")
    assert (row.values["status"], row.values["epoch_end"]) == ("cap", None)
    assert row.values["at_target"]["loss_train"] > 1e-4


def test_cells_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        STUDY.cells("tiny")[0].training.seed = 3
