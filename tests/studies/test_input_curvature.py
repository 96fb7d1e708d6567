"""The study input_curvature: presets, shared checkpoints, and a whole tiny cell against independent computations."""

import pytest
import torch
from torch.nn import functional as F

from hbanalysis import data, studies
from hbanalysis.errors import InputError
from hbanalysis.store import Store
from hbanalysis.store.pictures import decoded
from hbanalysis.studies import input_measures
from hbanalysis.studies.input_measures import Curvatures
from tests.batch_size_cells import shared_cells
from tests.input_nets import dense_gradients, dense_hessians, problem
from tests.tiny_cells import compute, compute_with_stops

STUDY = studies.get("input_curvature")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("scale", ["digits", "mnist", "small", "paper"])
def test_trainings_are_those_of_the_batch_size_study(scale):
    theirs = [c.training for c in shared_cells(scale)]
    # Of the paper's tables only the first one has columns of input curvature: ReLU, on MNIST and CIFAR-10.
    chosen = {t.key for t in theirs if t.activation == "relu" and t.dataset in ("digits", "mnist", "cifar10")}
    assert {c.training.key for c in STUDY.cells(scale)} == chosen


def test_configuration_and_cell_are_the_same_thing():
    for scale in (*STUDY.scales, "tiny"):
        for cell in STUDY.cells(scale):
            assert STUDY.from_config(STUDY.config(cell)) == cell
    assert {STUDY.scale_of(c) for c in STUDY.cells("mnist")} == {"paper"}


def test_the_theorem_is_checked_on_enough_samples_at_the_papers_scale():
    m1 = [c for c in STUDY.cells("paper") if c.training.network == "M1"]
    assert sum(c.measure.theorem_samples for c in m1) >= 1000


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epsilons": [0.0]}, "sizes in"),
        ({"theorem_samples": 0}, "theorem_samples must be at least 1"),
        ({"activation": "elu(1)"}, "Unknown parameter"),
        ({"batch_sizes": [5000]}, "1..1433"),
        ({"pgd_steps": "many"}, "pgd_steps must be int"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells("digits", **overrides)


def test_other_configurations_are_refused():
    config = STUDY.config(STUDY.cells("tiny")[0])
    with pytest.raises(InputError, match="with ReLU"):
        STUDY.from_config({**config, "training": {**config["training"], "activation": "elu(1)"}})
    with pytest.raises(InputError, match="no configuration"):
        STUDY.from_config({"training": config["training"]})


def test_curvatures_are_those_of_dense_hessians():
    model, x, y = problem("conv")
    found = Curvatures.of(model, x, y)
    truth = torch.linalg.eigvalsh(dense_hessians(model, x, y)).flip(1)
    assert torch.allclose(found.values, truth[:, :3], rtol=1e-9, atol=1e-13)
    assert torch.allclose(found.gradient_norms, dense_gradients(model, x, y).norm(dim=1), rtol=1e-10)
    model.eval()
    p = model(x).detach().softmax(1)
    assert torch.allclose(found.doubts, 1 - p[torch.arange(7), y], rtol=1e-9)
    assert torch.equal(found.correct, p.argmax(1) == y)
    assert torch.equal(found.effective_ranks, (truth[:, :3] > 1e-3 * truth[:, :1]).sum(1).double())
    summary = found.summary([0.1])
    assert summary["lambda1"]["mean"] == pytest.approx(truth[:, 0].mean().item())
    assert summary["lambda1"]["median"] == pytest.approx(truth[:, 0].median().item())
    assert summary["loss"]["mean"] == pytest.approx(F.cross_entropy(model(x), y).item())


def test_no_sample_has_no_summary():
    model, x, y = problem("conv")
    found = Curvatures.of(model, x, y)
    assert found.of_part(torch.zeros(7, dtype=torch.bool)).summary([0.1]) is None


def test_samples_are_counted_once_by_their_doubt():
    one = torch.tensor([[1.0, 0.5], [1.0, 1e-5], [0.0, 0.0]], dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    found = Curvatures(one, ones, ones, torch.tensor([0.5, 1.0, 1e-20], dtype=torch.float64), ones)
    lines = found.by_doubt()
    assert [(line["doubt_at_most"], line["samples"]) for line in lines] == [(1e-12, 1), (1.0, 2)]
    assert [line["effective_rank"] for line in lines] == [0.0, 1.5]


def test_a_cell_becomes_a_row(computed):
    store, cell, row, phases, model = computed
    assert store.get(STUDY.name, STUDY.key(cell)) == row
    values = row.values
    train, test = data.load("digits", samples=100), data.load("digits", "test", samples=100)
    with torch.no_grad():
        assert values["train"]["loss"]["mean"] == pytest.approx(
            F.cross_entropy(model(train.images), train.labels).item(), rel=1e-5
        )
        right = model(test.images).argmax(1) == test.labels
    assert values["test"]["accuracy"] == pytest.approx(right.double().mean().item())
    kinds = values["test"]
    assert kinds["correct"]["samples"] + kinds["wrong"]["samples"] == kinds["attacked"]["samples"] == 100
    assert kinds["correct"]["distance"]["median"] > 0 > kinds["wrong"]["distance"]["median"]
    first = values["robustness"][0]
    assert kinds["attacked"]["accuracy"] == pytest.approx(first["fgsm_test"])
    assert sum(line["samples"] for line in kinds["by_doubt"]) == 100
    assert len(kinds["spectrum"]["mean"]) == 9
    check = values["theorem"]
    assert (check["method"], check["samples"], check["exceptions"]) == ("dense", 2, 0)
    assert sum(check["ranks"]) == 2 and check["negative_ratio"] < 1e-10
    assert values["distances"]["samples"] == 10
    assert [round(entry["loss_train"], 1) for entry in values["course"]] == [0.4]
    fractions = [fraction for _, fraction in phases]
    assert min(fractions) >= 0 and max(fractions) < 1


def test_pictures_are_gradient_and_eigenvectors(computed):
    model, entry = computed.model, computed.row.values["pictures"][0]
    test = data.load("digits", "test", samples=100)
    image = test.images[entry["sample"]]
    assert abs(decoded(entry["images"]["image"]) - image.double().numpy()).max() <= 1 / 500
    leaf = image[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), test.labels[entry["sample"], None]), leaf)
    shown = torch.from_numpy(decoded(entry["images"]["gradient"])).flatten()
    assert F.cosine_similarity(shown, gradient.double().flatten(), dim=0) > 0.999
    assert entry["cosines"]["gradient"] == pytest.approx(1.0, rel=1e-5)
    assert entry["cosines"]["v2"] < 1


def test_an_interrupted_cell_gives_the_same_row(computed, tmp_path):
    row = compute_with_stops(STUDY, computed.cell, Store(tmp_path), ["theorem"])
    assert row.values == computed.row.values


def test_a_diverged_cell_is_a_row_without_measurements(tmp_path):
    (cell,) = STUDY.cells("tiny", batch_sizes=[50], learning_rate=1e4)
    row = STUDY.compute(cell, Store(tmp_path), "cpu")
    assert row.values["status"] == "diverged" and "test" not in row.values


def test_large_inputs_are_checked_by_products(monkeypatch):
    monkeypatch.setattr(input_measures, "LARGEST_DENSE", 71)
    model, x, y = problem("conv")
    check = input_measures.theorem(model, (x, y), 2)
    assert (check["method"], check["vectors"], check["inputs"]) == ("products", 2, 72)
    assert check["product_error"] < 1e-10
    smooth, x, y = problem("softplus")
    assert input_measures.theorem(smooth, (x, y), 2)["product_error"] > 1e-3
