"""The study batch_statistics: its presets, a whole tiny cell against operators made here, tables, words, figure."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from hbanalysis import data, networks, plots, studies
from hbanalysis.claims import mode_findings
from hbanalysis.claims.findings import findings
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from hbanalysis.plots.style import stacked
from hbanalysis.store import Row, Store
from hbanalysis.studies.batch_statistics import NORMALISED
from hbanalysis.tables import modes
from tests.tiny_cells import compute, compute_with_stops

STUDY = studies.get("batch_statistics")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


def test_the_networks_are_those_with_batch_normalisation():
    assert set(NORMALISED) == {name for name in networks.names() if networks.has_batch_norm(networks.build(name))}


@pytest.mark.parametrize("scale", ["small", "paper"])
def test_trainings_are_those_of_the_batch_size_study(scale):
    cells = STUDY.cells(scale)
    theirs = studies.get("spectrum_vs_batch").cells(scale)
    sizes = [c.training.batch_size for c in theirs if (c.training.network, c.training.dataset) == ("C1", "cifar10")]
    assert {c.training.key for c in cells} <= {c.training.key for c in theirs}
    assert {c.training.seed for c in cells} == {0} and {c.training.network for c in cells} == {"C1"}
    assert [c.training.batch_size for c in cells] == sorted(set(sizes))


@pytest.mark.parametrize("scale", STUDY.scales)
def test_every_mode_sees_the_same_samples(scale):
    for cell in STUDY.cells(scale):
        for size in (cell.training.batch_size, cell.measure.common_batch):
            assert cell.samples % size == 0
    assert len(STUDY.cells(scale)) >= 2


def test_networks_are_chosen_by_name():
    assert {c.training.network for c in STUDY.cells("paper", network="C2")} == {"C2"}
    assert {c.training.dataset for c in STUDY.cells("paper", network="CR")} == {"cifar100"}
    (one,) = STUDY.cells("digits", network="CR", batch_sizes=[32])
    assert one.training.network == "CR"


def test_the_row_holds_what_operators_of_the_same_network_say(computed):
    values, model = computed.row.values, computed.model.double()
    digits = data.load("digits", samples=32)
    x, y = digits.images.double(), digits.labels
    H = WeightHessian(model, x, y)
    assert (values["eval"]["batch_size"], values["train_own"]["batch_size"]) == (None, 8)
    assert values["train_common"]["batch_size"] == 16
    assert [values[mode]["samples"] for mode in ("eval", "train_own", "train_common")] == [32, 32, 32]
    both = eigsh(H, 2, which="BE", tol=1e-3, check=False).values.tolist()
    assert [values["eval"]["spectrum"][0], values["eval"]["smallest"]] == pytest.approx(both, rel=0.11)
    assert values["eval"]["gradient_norm"] == pytest.approx(H.gradient().norm().item(), rel=1e-3)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    for mode, size in (("train_own", 8), ("train_common", 16)):
        found = values[mode]
        twin = copy.deepcopy(model).train()
        losses = [cross_entropy(twin(x[part]), y[part]) for part in order.split(size)]
        loss = torch.stack(losses).mean()
        gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(twin.parameters()))])
        assert found["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert found["gradient_norm"] == pytest.approx(gradient.norm().item(), rel=1e-3)
        assert found["converged"] and found["spectrum"] == sorted(found["spectrum"], reverse=True)
        assert found["smallest"] <= found["spectrum"][-1]
        assert found["loss"] != pytest.approx(values["eval"]["loss"], rel=1e-3)
        # In front of normalisation scale means nothing, but for the small constant beside the variance.
        assert abs(found["slope_along_filters"]) < 1e-2 * found["gradient_norm"]
        assert abs(found["curvature_along_filters"]) < 1e-2 * abs(values["eval"]["curvature_along_filters"])


@pytest.mark.full
def test_modes_of_the_same_batch_are_measured_once(tmp_path):
    (cell,) = STUDY.cells("tiny", batch_sizes=[16])
    assert cell.training.batch_size == cell.measure.common_batch
    row = compute_with_stops(STUDY, cell, Store(tmp_path), ["spectrum, eval", "spectrum, train_own"])
    assert row.values["train_common"] == row.values["train_own"] != row.values["eval"]


def test_progress_tells_the_mode_and_rises(computed):
    assert {phase for phase, _ in computed.phases} >= {f"spectrum, {mode}" for mode in ("eval", "train_common")}
    fractions = [fraction for phase, fraction in computed.phases if phase.startswith("spectrum")]
    assert fractions == sorted(fractions) and 0 < fractions[0] < fractions[-1] <= 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"network": "M1"}, "C1, C2, CR.*given 'M1'"),
        ({"batch_sizes": [1]}, r"batch_sizes must lie in 2\.\.128.*given 1"),
        ({"batch_sizes": [256], "samples": 100}, r"2\.\.100, the samples measured; given 256"),
        ({"common_batch": 300}, r"common_batch must lie in 2\.\.128"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"activation": "elu(1)"}, "Unknown parameter"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells("digits", **overrides)


def row(size, seed, eval_mode, train_mode, scale="digits", status="reached"):
    """Curvatures that are powers of the batch size; the loss in train mode is twice that in eval mode."""
    (cell,) = STUDY.cells(scale, seeds=[seed], batch_sizes=[size])
    noise = 1 + 0.1 * math.sin(size + 3 * seed)

    def mode(power, batch, factor):
        return {
            "batch_size": batch,
            "samples": 256,
            "loss": 1e-3 * factor,
            "gradient_norm": 0.1 * factor,
            "spectrum": [noise * factor * size**power, noise],
            "bounds": [1e-4, 1e-4],
            "smallest": -0.01 * noise * size**power,
            "products": 40,
            "converged": True,
            "slope_along_filters": 1e-3 / factor,
            "curvature_along_filters": 0.5 / factor,
        }

    values = {
        "status": status,
        "epochs": 3.0,
        "eval": mode(eval_mode, None, 1.0),
        "train_own": mode(train_mode, size, 2.0),
        "train_common": mode(train_mode, 64, 2.0),
    }
    if status == "diverged":
        values |= dict.fromkeys(("eval", "train_own", "train_common"))
    return Row(STUDY.name, scale, 1, STUDY.key(cell), STUDY.config(cell), values, {})


def rows(eval_mode=1.0, train_mode=1.0, seeds=3, **fixed):
    return [row(size, seed, eval_mode, train_mode, **fixed) for size in (16, 64, 128) for seed in range(seeds)]


def said_of(made):
    """The sentences on the only family of some rows."""
    ((title, found),) = mode_findings.sentences(made).items()
    assert title == "C1 on the digits (first 256), scale digits"
    return " ".join(found)


def test_the_table_has_a_line_for_each_mode():
    table = modes.by_mode([*rows(), row(16, 7, 1, 1, status="diverged")])
    assert len(table) == 27
    assert table["mode"].unique().tolist() == list(modes.LABELS.values())
    own = table[table["mode"] == "train, own batch"]
    assert (own["statistics of"] == own["batch_size"]).all()
    assert table[table["mode"] == "eval"]["statistics of"].isna().all()
    assert (table["lambda1 / loss"] == table["lambda1"] / table["loss"]).all()
    assert modes.by_mode([]).empty
    assert modes.over_eval(rows(), "loss") == {size: pytest.approx([2.0] * 3) for size in (16, 64, 128)}


@pytest.mark.parametrize(
    ("eval_mode", "train_mode", "title"),
    [
        (1.0, 0.5, "In train mode, too"),
        (-1.0, -1.0, "smaller curvature"),
        (1.0, -1.0, "flatter in train mode"),
        (-1.0, 1.0, "sharper in train mode"),
        (0.0, 1.0, "is open"),
    ],
)
def test_the_title_turns_with_the_rows(eval_mode, train_mode, title):
    found = mode_findings.eval_and_train(rows(eval_mode, train_mode))
    assert title in found.title
    noise = [1 + 0.1 * math.sin(size) for size in (128, 16)]
    for line, power in zip(found.lines, (eval_mode, train_mode, train_mode), strict=True):
        assert line.values[0] == pytest.approx(8**power * noise[0] / noise[1])
    assert [len(line.values) for line in found.lines] == [3, 3, 3]
    assert "Over the loss of the same mode these factors are" in found.said


def test_families_that_disagree_are_no_trend():
    both = [*rows(1.0, 1.0, scale="mnist"), *rows(1.0, -1.0)]
    assert mode_findings.eval_and_train(both).title.endswith("in train mode not in every case")
    alone = [row for row in both if row.config["training"]["seed"] == 0]
    assert mode_findings.eval_and_train(alone).title.endswith("in train mode not in every case (one seed)")


def test_trainings_that_missed_their_target_and_lone_batch_sizes_say_nothing():
    assert mode_findings.eval_and_train([row(16, 0, 1, 1)]) is None
    assert mode_findings.eval_and_train([row(16, 0, 1, 1), row(128, 0, 1, 1, status="cap")]) is None
    assert findings([row(16, 0, 1, 1, status="diverged")]) == []
    assert mode_findings.sentences([]) == {}
    alone = said_of([row(16, 0, 1, 1)])
    assert "From the smallest" not in alone and "2 (one seed) at B = 16" in alone


def test_sentences_follow_the_rows():
    said = said_of(rows(1.0, -1.0))
    assert "lambda1 is multiplied by 8.2 (" in said and ", 0.13 (" in said
    assert "over the loss of the same mode is multiplied by 8.2" in said
    assert "The two can be far apart" in said
    assert "the loss is 2 to 2 times" in said
    assert "0.01 in eval mode" in said
    near = [replace(r, values=r.values | {"train_own": r.values["eval"]}) for r in rows()]
    said = said_of(near)
    assert "differ by less than a factor of 2" in said


def test_the_figure_has_a_curve_for_each_mode_and_a_form_for_phones():
    made = rows()
    figure, drawn = plots.modes_vs_batch(made)
    assert len(figure.subfigs[0].axes) == 3
    means = drawn[drawn["kind"] == "mean"]
    assert means.groupby(["panel", "mode"]).size().tolist() == [3] * 9
    curve = means[(means["panel"] == "largest eigenvalue") & (means["mode"] == "eval")].sort_values("batch_size")
    assert curve["value"].tolist() == pytest.approx(
        [size * math.prod(1 + 0.1 * math.sin(size + 3 * s) for s in range(3)) ** (1 / 3) for size in (16, 64, 128)]
    )
    with stacked():
        narrow, again = plots.modes_vs_batch(made)
    assert again.equals(drawn)
    assert len(narrow.subfigs[0].axes) == 3
    with pytest.raises(InputError, match="no measured row"):
        plots.modes_vs_batch([row(16, 0, 1, 1, status="diverged")])
