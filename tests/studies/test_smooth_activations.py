"""The study smooth_activations: its presets, its tiny cell, its table, its figure."""

import dataclasses

import pytest

from hbanalysis import data, plots, studies
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from hbanalysis.tables import activations
from hbanalysis.training.evaluation import evaluate
from tests.synthetic_rows import make_rows, rising
from tests.tiny_cells import compute

STUDY = studies.get("smooth_activations")
SMOOTH = ("softplus(20)", "elu(1)")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("scale", STUDY.scales)
def test_nothing_but_activation_and_batch_size_differs_from_the_batch_size_study(scale):
    relu = studies.get("spectrum_vs_batch").cells(scale)
    theirs = {dataclasses.replace(c.training, batch_size=c.training.samples).key for c in relu}
    cells = STUDY.cells(scale)
    assert {c.training.activation for c in cells} == set(SMOOTH)
    ours = {dataclasses.replace(c.training, batch_size=c.training.samples, activation="relu").key for c in cells}
    assert ours <= theirs


def test_the_papers_cells_are_those_of_its_table():
    sizes = {c.training.batch_size for c in STUDY.cells("paper")}
    assert sizes == {128, 256, 512, 1024, 2048}
    assert {c.training.network for c in STUDY.cells("paper")} == {"C1"}


def test_the_row_is_about_the_smooth_network(computed):
    row, model = computed.row, computed.model
    samples = computed.cell.training.samples

    train = data.load("digits", "train", samples=samples)
    assert row.config["training"]["activation"] == "elu(1)"
    at = row.values["at_target"]
    assert at["loss_train"] == pytest.approx(evaluate(model, train.images, train.labels)[0], rel=1e-5)
    H = WeightHessian(model.double(), train.images.double(), train.labels)

    assert at["lambda1_train"] == pytest.approx(eigsh(H, 1, tol=1e-6).values[0].item(), rel=2e-3)


def test_table_and_figure_have_each_activation():
    rows = [row for name in ("relu", *SMOOTH) for row in make_rows([16, 64], [0, 1], rising, activation=name)]
    table = activations.beside_the_paper(rows)
    assert table["activation"].tolist() == [name for name in ("elu(1)", "relu", "softplus(20)") for _ in range(2)]
    assert table["seeds"].tolist() == [2] * 6
    figure, drawn = plots.activations_vs_batch(rows)
    assert len(figure.subfigs[0].axes) == 2  # one family, though activations differ
    means = drawn[drawn["kind"] == "mean"]
    assert means.groupby("activation").size().to_dict() == {"elu(1)": 4, "relu": 4, "softplus(20)": 4}


def test_the_papers_lines_stand_below_ours():
    rows = make_rows([128, 256], [0], rising, network="C1", dataset="cifar10", activation="elu(1)")
    table = activations.beside_the_paper(rows)
    theirs = table[table["source"] == "paper"]
    assert theirs["activation"].unique().tolist() == ["elu(1)"] and len(theirs) == 5
    assert theirs["accuracy_test (%)"].between(70, 100).all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"activations": ["gelu"]}, "softplus"),
        ({"activation": "elu(1)"}, "Unknown parameter"),
        ({"batch_sizes": [5000]}, "1..1433"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells("digits", **overrides)
