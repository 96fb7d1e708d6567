"""Figures of input curvature draw what the rows hold."""

import matplotlib
import pytest

matplotlib.use("agg")


from hbanalysis import plots
from hbanalysis.errors import InputError
from tests.input_rows import input_row, input_rows, near_boundary

FIGURES = [
    plots.input_curvature_vs_batch,
    plots.input_spectra,
    plots.rank_and_doubt,
    plots.along_training,
    plots.robustness_and_inputs,
]


@pytest.fixture(scope="module")
def rows():
    found = input_rows([16, 64, 256], [0, 1, 2], near_boundary)
    found += input_rows([64, 1024], [0], near_boundary, scale="paper", dataset="mnist")
    return [*found, input_row(1024, 1, status="diverged")]


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.__name__)
def test_every_figure_has_a_line_a_family_and_can_be_drawn(figure, rows, tmp_path):
    drawn, data = figure(rows)
    assert len(drawn.subfigs) == 2 and set(data["scale"]) == {"digits", "paper"}
    drawn.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.__name__)
def test_nothing_to_draw_is_said(figure):
    with pytest.raises(InputError, match="no measured row"):
        figure([input_row(16, 0, status="diverged")])


def test_means_and_medians_are_the_rows(rows):
    _, data = plots.input_curvature_vs_batch(rows)
    mine = data[(data["scale"] == "digits") & (data["batch_size"] == 64) & (data["kind"] == "seed")]
    mine = mine[(mine["quantity"] == "lambda1") & (mine["split"] == "test")].set_index(["statistic", "seed"])["value"]
    assert mine["mean"].tolist() == [2.0, 2.01, 2.02]
    assert mine["median"].tolist() == pytest.approx([0.2, 0.201, 0.202])


def test_spectra_are_of_the_ends_and_leave_missing_kinds_out(rows):
    figure, data = plots.input_spectra(rows)
    assert set(data[data["scale"] == "digits"]["batch_size"]) == {16, 256}
    last = data[(data["scale"] == "paper") & (data["end"] == "largest batch")]
    assert set(last["samples"]) == {"train", "correct", "attacked"}
    one = data[(data["scale"] == "digits") & (data["samples"] == "wrong") & (data["seed"] == 0)]
    assert one[one["batch_size"] == 16].sort_values("index")["value"].tolist() == pytest.approx([0.5, 0.05, 0.005])
    assert all(panel.get_yscale() == "log" for part in figure.subfigs for panel in part.axes)


def test_decades_of_doubt_are_weighted_by_samples():
    first, second = input_row(16, 0), input_row(16, 1)
    first.values["test"]["by_doubt"] = [
        {"doubt_at_most": 1.0, "samples": 30, "effective_rank": 1.0, "lambda1": 2.0, "gradient_norm": 1.0}
    ]
    _, data = plots.rank_and_doubt([first, second])
    line = data[data["doubt"] == 1.0].iloc[0]
    assert (line["samples"], line["effective_rank"]) == (40, pytest.approx(1.25))


def test_the_course_runs_towards_smaller_losses(rows):
    figure, data = plots.along_training(rows)
    assert all(panel.xaxis_inverted() for part in figure.subfigs for panel in part.axes)
    assert data["accuracy"].max() == pytest.approx(100 * max(r.values["robustness"][0]["fgsm_test"] for r in rows[:-1]))


def test_pictures_come_in_a_fixed_order(rows):
    figure, data = plots.input_directions(rows[0])
    assert data["shown"].tolist() == ["image", "gradient", "v1", "v2", "Newton"]
    assert figure.axes[0].get_title() == "3, taken for 8"
    assert "0.50" in figure.axes[4].get_title()
    with pytest.raises(InputError, match="no pictures"):
        plots.input_directions(rows[-1])
