"""Figures draw what the rows hold, on the axes that they promise, and need no torch."""

import itertools
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")


from hbanalysis import plots
from hbanalysis.errors import InputError
from tests.synthetic_rows import make_row, make_rows, rising

FIGURES = [
    plots.spectra,
    plots.lambda1_vs_batch,
    plots.landscape,
    plots.robustness_vs_batch,
    plots.training_history,
]


@pytest.fixture(scope="module")
def rows():
    found = make_rows([16, 64, 256], [0, 1, 2], rising)
    found += make_rows([64, 1024], [0], rising, scale="paper", dataset="mnist")
    found += [make_row(1024, 0, status="cap", **rising(1024, 0)), make_row(1024, 1, status="diverged")]
    return found


def _panels(figure):
    return [a for part in figure.subfigs for a in part.axes]


def test_spectra_data_are_the_rows(rows) -> None:
    figure, data = plots.spectra(rows)
    seeds = data[data["kind"] == "seed"]
    for row in rows:
        training, measured = row.config["training"], row.values["at_target"]
        mine = seeds[
            (seeds["scale"] == row.scale)
            & (seeds["batch_size"] == training["batch_size"])
            & (seeds["seed"] == training["seed"])
        ]
        for split in ("train", "test"):
            drawn = mine[mine["split"] == split].sort_values("index")["value"].tolist()
            assert drawn == (measured[f"spectrum_{split}"] if measured else [])
    assert all(a.get_yscale() == "log" for a in _panels(figure))


def test_means_are_geometric_with_t_intervals_of_logarithms(rows) -> None:
    _, data = plots.lambda1_vs_batch(rows)
    part = data[(data["scale"] == "digits") & (data["split"] == "train") & (data["batch_size"] == 64)]
    logs = np.log(part[part["kind"] == "seed"]["value"])
    mean = part[part["kind"] == "mean"].iloc[0]
    assert mean["n"] == 3
    assert mean["value"] == pytest.approx(np.exp(logs.mean()))
    half = 4.302652729 * logs.std(ddof=1) / np.sqrt(3)
    assert mean["high"] == pytest.approx(np.exp(logs.mean() + half))
    single = data[(data["scale"] == "paper") & (data["kind"] == "mean")]
    assert single["low"].isna().all() and (single["n"] == 1).all()


def test_a_training_above_its_target_is_drawn_and_enters_no_mean(rows) -> None:
    _, data = plots.lambda1_vs_batch(rows)
    large = data[(data["scale"] == "digits") & (data["batch_size"] == 1024)]
    assert large["kind"].unique().tolist() == ["seed"]
    assert large["status"].unique().tolist() == ["cap"]


def test_both_axes_of_lambda1_are_logarithmic_and_ticked_at_the_batch_sizes(rows) -> None:
    figure, _ = plots.lambda1_vs_batch(rows)
    for panel in _panels(figure):
        assert panel.get_xscale() == panel.get_yscale() == "log"
    assert list(_panels(figure)[0].get_xticks()) == [64, 1024]


def test_curves_of_the_landscape_are_the_rows_and_the_prediction_is_slope_and_curvature(rows) -> None:
    _, data = plots.landscape(rows)
    of = data[(data["scale"] == "digits") & (data["batch_size"] == 16)].sort_values("t")
    ours = [r for r in rows if r.scale == "digits" and r.config["training"]["batch_size"] == 16]
    expected: dict[str, list[np.ndarray]] = {"train": [], "test": [], "predicted": []}
    for row in ours:
        path = row.values["landscape"]
        t = np.array(path["t"])
        start = row.values["at_target"]["loss_train"]
        expected["train"].append(np.array(path["loss_train"]))
        expected["test"].append(np.array(path["loss_test"]))
        expected["predicted"].append(start + path["slope_train"] * t + path["curvature_train"] * t**2 / 2)
        for curve, found in expected.items():
            line = of[(of["curve"] == curve) & (of["seed"] == row.config["training"]["seed"])]
            assert line["value"].to_numpy() == pytest.approx(found[-1][found[-1] > 0])
    assert len(ours) == 3
    for curve, found in expected.items():
        mean = of[(of["curve"] == curve) & (of["kind"] == "mean")]["value"].to_numpy()
        assert mean == pytest.approx(np.exp(np.log(np.array(found)).mean(axis=0)))


def test_robustness_is_in_percent_with_the_clean_accuracy_at_epsilon_zero(rows) -> None:
    _, data = plots.robustness_vs_batch(rows)
    assert sorted(data["epsilon"].unique()) == [0.0, 0.1, 0.2]
    one = data[(data["scale"] == "paper") & (data["batch_size"] == 64) & (data["kind"] == "seed")]
    (row,) = [r for r in rows if r.scale == "paper" and r.config["training"]["batch_size"] == 64]
    measured = row.values["at_target"]
    expected = [100 * v for v in (measured["accuracy_test"], *(a["accuracy_test"] for a in measured["fgsm"]))]
    assert one.sort_values("epsilon")["value"].tolist() == expected
    with pytest.raises(InputError, match="'valid'"):
        plots.robustness_vs_batch(rows, split="valid")


def test_history_holds_every_epoch_and_crossing(rows) -> None:
    _, data = plots.training_history(rows)
    assert len(data) == sum(len(r.values["history"]) + len(r.values["crossings"]) for r in rows)


def test_values_not_above_zero_are_left_out_and_counted() -> None:
    top = [1.0, 0.5, -0.1]
    figure, data = plots.spectra([make_row(16, 0, spectrum=top), make_row(64, 0, spectrum=top)])
    assert (data["value"] > 0).all()
    texts = [part.get_supxlabel() for part in figure.subfigs]
    assert texts == ["4 values not above 0 are not drawn"]


@pytest.mark.parametrize("figure_of", FIGURES)
def test_every_family_is_headed_by_its_scale(rows, figure_of) -> None:
    figure, _ = figure_of(rows)
    heads = [part.get_suptitle() for part in figure.subfigs]
    assert heads == [
        "M1 on MNIST\npaper: the paper's scale",
        "M1 on the digits\ndigits: smaller scale than the paper's",
    ]
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("figure_of", FIGURES)
def test_the_legend_lies_inside_the_figure(rows, figure_of) -> None:
    figure, _ = figure_of(rows)
    figure.canvas.draw()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 - 1


@pytest.mark.parametrize("figure_of", FIGURES)
def test_nothing_to_draw_is_said(figure_of) -> None:
    with pytest.raises(InputError, match="no measured row"):
        figure_of([])


def test_batch_sizes_differ_in_colour_and_in_marker() -> None:
    looks = plots.style.batch_looks([16, 32, 64, 128, 256, 512, 1024, 2048])
    assert len({look.marker for look in looks.values()}) == 8
    grey = [np.dot(look.color[:3], (0.299, 0.587, 0.114)) for look in looks.values()]
    assert all(b < a for a, b in itertools.pairwise(grey))  # the largest stands out most


def test_no_band_crosses_a_point_without_an_interval() -> None:
    def drawn(*seeds):
        sizes = (16, 64, 256, 1024)[: len(seeds)]
        cells = [(size, seed) for size, count in zip(sizes, seeds, strict=True) for seed in range(count)]
        rows = [make_row(size, seed, **rising(size, seed)) for size, seed in cells]
        (panel,) = _panels(plots.lambda1_vs_batch(rows)[0])
        spans = [area.get_paths()[0].get_extents() for area in panel.collections]
        return sorted({(round(span.x0), round(span.x1)) for span in spans})

    assert drawn(3, 3, 3) == [(16, 256)]
    assert drawn(3, 1, 3) == [(16, 16), (256, 256)]
    assert drawn(3, 3, 1, 3) == [(16, 64), (1024, 1024)]
    assert drawn(3, 3, 2) == [(16, 64)]  # the interval of two seeds says how few they are


def test_axes_follow_the_points_and_not_the_bands() -> None:
    rows = [make_row(16, seed, lambda1=value) for seed, value in enumerate((0.1, 1.0, 10.0))]
    rows += [make_row(64, seed, lambda1=1.0) for seed in range(3)]
    figure, data = plots.lambda1_vs_batch(rows)
    (panel,) = _panels(figure)
    bottom, top = panel.get_ylim()
    assert data["low"].min() < 0.01 and data["high"].max() > 10_000
    assert 0.05 < bottom < 0.1 and 400 < top < 800


def test_panels_of_spectra_are_as_wide_as_their_numbers() -> None:
    rows = [make_row(16, 0), make_row(64, 0)]
    for row in rows:
        row.values["at_target"]["spectrum_test"] = row.values["at_target"]["spectrum_test"][:5]
    figure, _ = plots.spectra(rows)
    assert [panel.get_xlim() for panel in _panels(figure)] == [(0.3, 20.7), (0.3, 5.7)]


def test_predictions_have_the_colours_of_their_batches(rows) -> None:
    figure, data = plots.landscape(rows)
    looks = plots.style.batch_looks(data["batch_size"])
    lines = [line for line in _panels(figure)[2].lines if line.get_linestyle() == ":" and len(line.get_xdata())]
    dotted = [line.get_color() for line in lines]
    assert dotted == [looks[size].color for size in (16, 64, 256)]


def test_ticks_of_curvature_are_plain_numbers() -> None:
    groups = [make_row(size, 0, lambda1=value) for size, value in ((16, 0.6), (64, 8.0))]
    figure, _ = plots.rate_over_batch(groups)
    figure.canvas.draw()
    panel = _panels(figure)[0]
    bottom, top = panel.get_ylim()
    shown = [label for label in panel.get_yticklabels() if bottom <= label.get_position()[1] <= top]
    assert [label.get_text() for label in shown] == ["1", "2", "5"]


def test_twins_are_told_apart_by_what_differs() -> None:
    both = [make_row(16, 0), make_row(16, 0, learning_rate=0.04)]
    figure, _ = plots.robustness_vs_batch(both)
    heads = [part.get_suptitle().split("\n")[0] for part in figure.subfigs]
    assert heads == ["M1 on the digits, learning rate 0.01", "M1 on the digits, learning rate 0.04"]


def test_plots_import_no_torch() -> None:
    code = "import sys, hbanalysis.plots, hbanalysis.claims.verdicts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=120).returncode == 0
