"""Tables, criterion and figures of `loss_landscape` on rows with known laws."""

import json
import math
import re

import matplotlib

matplotlib.use("agg")

import numpy as np
import pytest
from bs4 import BeautifulSoup
from matplotlib import pyplot as plt

from hbanalysis import plots, studies
from hbanalysis.claims import verdicts
from hbanalysis.errors import InputError
from hbanalysis.store import Row
from hbanalysis.tables import flatness

STUDY = studies.get("loss_landscape")
T = [-0.5, -0.1, 0.0, 0.1, 0.5]


def plane(sharp):
    """A loss that is its quadratic model but for a fourth power of a, which is a tenth of it at a = .1 and beyond."""
    a, b = np.meshgrid(T, T, indexing="ij")
    model = 1.0 + 0.2 * a + sharp * a**2 / 2 + b**2 / 2 + 0.3 * a * b
    loss = model + 50 * a**4
    curved = {"slopes": [0.2, 0.0], "curvatures": [[sharp, 0.3], [0.3, 1.0]]}
    return {"t": T, "loss_train": loss.tolist(), "loss_test": (2 * loss).tolist()} | curved


def row(size, seed, plain=1.0, scaled=1.0, filters=1.0, scale="mnist"):
    """Curvatures that are powers of the batch size, with a little of the seed."""
    (cell,) = STUDY.cells(scale, seeds=[seed], batch_sizes=[size])
    noise = 1 + 0.1 * math.sin(size + 3 * seed)
    at_target = {
        "loss_train": 1e-3,
        "lambda1_train": noise * size**plain,
        "scaled_lambda1_train": noise * size**scaled,
        "filter_curvature_train": noise * size**filters,
        "weight_norm": 5.0,
        "spectrum_train": [1.0],
    }
    planes = {"eigenvectors": plane(size / 8), "filters": plane(size / 64)} if size != 256 else None
    values = {"status": "reached", "epochs": 2.0, "at_target": at_target, "layers": [], "planes": planes}
    label = "paper" if scale == "mnist" else scale
    return Row(STUDY.name, label, 1, STUDY.key(cell), STUDY.config(cell), values, {})


def rows(seeds=5, **law):
    return [row(size, seed, **law) for size in (64, 256, 2048) for seed in range(seeds)]


@pytest.fixture(autouse=True)
def _closed_figures():
    yield
    plt.close("all")


def test_the_error_along_the_axes_is_the_fourth_power():
    points = flatness.along_axes([row(64, 0)])
    first = points[(points["plane"] == "eigenvectors") & (points["axis"] == 1)].set_index("t")
    for t in (-0.5, -0.1, 0.1, 0.5):
        loss = 1 + 0.2 * t + 4 * t**2 + 50 * t**4
        assert first.loc[t, "loss"] == pytest.approx(loss)
        assert first.loc[t, "error"] == pytest.approx(50 * t**4 / loss)
    second = points[(points["plane"] == "eigenvectors") & (points["axis"] == 2)]
    assert second["error"].abs().max() < 1e-12 and len(second) == 4


def test_reach_is_the_last_distance_that_is_right():
    table = flatness.reach(rows(seeds=2)).set_index(["plane", "axis", "batch_size"])
    assert sorted(table.index.get_level_values("batch_size").unique()) == [64, 2048]
    steep = table.loc[("first two eigenvectors", 1, 64)]
    assert (steep["right to"], steep["wrong at"], steep["seeds"]) == (0.1, 0.5, 2)
    exact = table.loc[("first two eigenvectors", 2, 64)]
    assert exact["right to"] == 0.5 and math.isnan(exact["wrong at"])


def test_means_by_batch_size():
    table = flatness.scales(rows(seeds=2)).set_index("batch_size")
    known = np.mean([row(64, seed).values["at_target"]["scaled_lambda1_train"] for seed in (0, 1)])
    assert table.loc[64, "lambda1 of D H D"] == pytest.approx(known)
    assert list(table["seeds"]) == [2, 2, 2] and (table["norm of the weights"] == 5).all()


@pytest.mark.parametrize(
    ("law", "outcome", "direction"),
    [
        ({}, "reproduced", "yes"),
        ({"plain": -1.0, "scaled": -0.5, "filters": -2.0}, "reproduced", "yes"),  # the sign is kept, whichever it is
        ({"scaled": -1.0}, "not reproduced", "no"),
        ({"filters": -1.0}, "not reproduced", "no"),
    ],
)
def test_scale_is_judged_by_the_sign_of_both_slopes(law, outcome, direction):
    (found,) = verdicts.verdicts("K13", rows(**law))
    assert (found.outcome, found.same_direction) == (outcome, direction)
    assert found.effect == pytest.approx(law.get("scaled", 1.0), abs=0.05)
    assert len(found.parts) == 2 and found.n_seeds == 5


def test_scale_needs_the_papers_scale_and_its_seeds():
    assert verdicts.verdicts("K13", [])[0].outcome == "not yet run"
    assert verdicts.verdicts("K13", rows(seeds=3))[0].outcome == "undecided"
    (found,) = verdicts.verdicts("K13", rows(seeds=1))
    assert found.parts[0].met is None and found.same_direction == "yes"
    small = [row(size, s, scale="digits") for size in (16, 64, 256) for s in range(3)]
    assert verdicts.verdicts("K13", small)[0].outcome == "not yet run"
    assert verdicts.verdicts("K1", rows())[0].outcome == "not yet run"  # rows of another study


def test_a_negative_curvature_has_no_slope():
    given = rows(seeds=1)
    given[0].values["at_target"]["filter_curvature_train"] = -1.0
    (found,) = verdicts.verdicts("K13", given)
    assert found.same_direction == "cannot tell"


def test_contours_draw_the_first_seed_of_both_batch_sizes():
    figure, data = plots.contours(rows(seeds=2))
    assert set(data["seed"]) == {0} and sorted(data["batch_size"].unique()) == [64, 2048]
    one = data[(data["batch_size"] == 64) & (data["a"] == 0.5) & (data["b"] == -0.5)].iloc[0]
    quadratic = 1 + 0.1 + 1 + 0.125 - 0.075
    assert one["quadratic"] == pytest.approx(quadratic)
    assert one["loss_train"] == pytest.approx(quadratic + 50 / 16)
    assert one["loss_test"] == pytest.approx(2 * one["loss_train"])
    assert len(figure.subfigs) == 2
    with pytest.raises(InputError, match="eigenvectors, filters"):
        plots.contours(rows(seeds=1), "random")


def test_scale_free_curvature_starts_at_one():
    _, data = plots.scale_free_vs_batch(rows(seeds=2, scaled=0.5))
    assert (data[data["batch_size"] == 64]["value"] == 1).all()
    mine = data[(data["measure"] == "lambda1 of D H D") & (data["batch_size"] == 2048) & (data["seed"] == 1)]
    ends = [row(size, 1, scaled=0.5).values["at_target"]["scaled_lambda1_train"] for size in (64, 2048)]
    assert mine["value"].item() == pytest.approx(ends[1] / ends[0])


def test_errors_are_drawn_for_every_seed():
    figure, data = plots.second_order(rows(seeds=2))
    assert len(data) == 2 * 2 * 2 * 4 and set(data["plane"]) == {"eigenvectors"}
    assert all(a.get_xscale() == a.get_yscale() == "log" for part in figure.subfigs for a in part.axes)


def test_surfaces_are_data_for_the_script_and_words_for_everybody():
    drawn, data = plots.surfaces(rows(seeds=2))
    page = BeautifulSoup(drawn._repr_html_(), "html.parser")
    figure = page.select_one("figure.loss-surface")
    content = json.loads(figure.select_one("script[type='application/json']").string)
    assert [surface["name"] for surface in content["data"]] == ["batch size 64", "batch size 2048"]
    first, known = content["data"][0], row(64, 0).values["planes"]["eigenvectors"]["loss_train"]
    for i in range(len(T)):
        for j in range(len(T)):
            assert first["z"][j][i] == pytest.approx(known[i][j], rel=1e-3)  # lines of z belong to y
    assert len(data) == 2 * len(T) ** 2
    said = figure.select_one("[role=img]")["aria-label"]
    assert "batch size 64 it rises from 1 " in said and "up to 0.5 to each side" in said
    assert figure.select_one("figcaption").get_text().startswith("The surface can be turned on the built site")
    assert figure.select_one("button").has_attr("hidden")
    assert not re.search(r"https?://", drawn._repr_html_())


@pytest.mark.parametrize("draw", [plots.contours, plots.second_order, plots.surfaces, plots.scale_free_vs_batch])
def test_nothing_to_draw_is_said(draw):
    with pytest.raises(InputError, match="Compute the study first"):
        draw([])
