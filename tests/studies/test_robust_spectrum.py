"""The study of robust models' curvature: whole tiny cells, tables, figures and the verdicts K7 and K8."""

import pytest

from hbanalysis import checkpoints, data, plots, studies
from hbanalysis.claims import verdicts, weight_findings
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError
from hbanalysis.lineup import ATTACKS, CONTROL, ORIGINAL
from hbanalysis.operators import WeightHessian
from hbanalysis.store import Row, Store
from hbanalysis.tables import robust_spectra

SPECTRA = studies.get("robust_spectrum")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def spectra(store):
    return [SPECTRA.compute(cell, store, "cpu") for cell in SPECTRA.cells("tiny")]


def test_spectra_are_those_of_the_kept_models(spectra, store):
    original, fgsm_model = spectra
    assert (original.config["model"], fgsm_model.config["model"]) == (ORIGINAL, "FGSM")
    assert original.values["own"] is None and fgsm_model.values["singles"] is None
    cell = SPECTRA.cells("tiny")[1]
    model = cell.training.network_on("cpu").eval()
    folder = store.checkpoint_folder(cell.robust.key(cell.training, cell.adversary, "FGSM"))
    checkpoints.restore(model, folder / "epoch-end.safetensors")
    train = data.load("digits", "train", samples=200)
    x, y = train.images[:40], train.labels[:40]
    moved = cell.adversary.attacks()["FGSM"](model, x, y)
    for part, images in (("clean", x), ("own", moved)):
        H = WeightHessian(model, images, y)
        found = fgsm_model.values[part]
        assert found["loss"] == pytest.approx(H.loss(), rel=1e-6)
        assert found["spectrum"] == pytest.approx(eigsh(H, 2, tol=1e-3, seed=1).values.tolist(), rel=0.15)
    ends = original.values["ends"]
    assert [entry["samples"] for entry in ends] == [1, 20, 40]
    assert all(entry["spectrum"] == sorted(entry["spectrum"], reverse=True) for entry in ends)
    single = original.values["singles"][0]
    own = WeightHessian(original_model(original, store), x[single["sample"]][None], y[single["sample"]][None])
    assert single["gradient_norm"] == pytest.approx(float(own.gradient().norm()), rel=1e-4)


def original_model(row, store):
    training = SPECTRA.from_config(row.config).training
    model = training.network_on("cpu").eval()
    checkpoints.restore(model, store.checkpoint_folder(training.key) / "epoch-end.safetensors")
    return model


def test_figures_of_spectra_show_the_rows(spectra):
    _, drawn = plots.model_spectra(spectra)
    chosen = drawn[(drawn.model == "FGSM") & (drawn.loss == "own")]
    assert list(chosen["value"]) == pytest.approx(spectra[1].values["own"]["spectrum"])
    _, drawn = plots.both_ends(spectra, [ORIGINAL])
    assert len(drawn) == 3 * 2 and list(drawn["place"][:2]) == [1, -1]
    figure, drawn = plots.model_spectra(spectra[:1])  # the original model has no attack of its own
    assert set(drawn["loss"]) == {"clean"}
    assert [[text.get_text() for text in panel.texts] for panel in figure.axes] == [[], ["not yet run"]]
    with pytest.raises(InputError):
        plots.both_ends([])


def curved(model, seed, values, singles=None, loss=0.01):
    cell = SPECTRA.cells("paper", seeds=[seed], models=[model])[0]
    clean = {"loss": loss, "gradient_norm": 0.1, "spectrum": values, "bounds": [], "converged": True, "products": 9}
    found = {"status": "finished", "clean": clean, "own": None, "ends": [], "singles": singles}
    return Row(SPECTRA.name, "paper", 1, SPECTRA.key(cell), SPECTRA.config(cell), found, {})


def test_the_verdict_on_curvature():
    def outcome(factors, seeds=5):
        laws = {CONTROL: 1.0, **dict(zip(ATTACKS, factors, strict=True))}
        rows = [
            curved(name, seed, [f * (1 + 0.02 * seed) / (i + 1) for i in range(20)])
            for name, f in laws.items()
            for seed in range(seeds)
        ]
        (found,) = verdicts.verdicts("K7", rows)
        return found.outcome

    assert outcome([0.2] * 5) == "reproduced"
    assert outcome([0.2] * 4 + [3.0]) == "reproduced"
    assert outcome([0.2] * 3 + [3.0] * 2) == "not reproduced"
    assert outcome([0.8] * 5) == "partly"
    assert outcome([2.0] * 5) == "not reproduced"
    assert outcome([0.2] * 5, seeds=2) == "undecided"


def test_curvature_is_compared_with_the_control_of_the_same_seed():
    rows = [curved(CONTROL, 0, [4.0, 2.0]), curved(CONTROL, 1, [1.0, 1.0]), curved("FGSM", 1, [3.0, 1.0])]
    table = robust_spectra.curvature(rows).set_index("model")
    assert table.loc["FGSM", "ratio"] == pytest.approx(3.0) and table.loc[CONTROL, "ratio"] == pytest.approx(1.0)
    assert robust_spectra.log_ratios(rows, 2) == {}  # a seed enters with all five models


def test_a_verdict_on_curvature_takes_seeds_that_have_every_model_and_both_measures():
    def rows(seed, first, rest):
        return [curved(name, seed, [first, rest, rest]) for name in ATTACKS] + [curved(CONTROL, seed, [1.0, 0.5, 0.5])]

    whole = [row for seed in range(5) for row in rows(seed, 0.2, 0.1)]
    broken = [curved(name, 5, [9.0, 9.0, 9.0]) for name in (CONTROL, "FGSM")]
    found = verdicts.verdict("K7", [*whole, *broken])
    assert (found.outcome, found.n_seeds) == ("reproduced", 5)
    assert weight_findings.robust_curvature([*whole, *broken]) is not None
    # The largest eigenvalue alone is lower: the criterion names the sum of the top as well.
    found = verdicts.verdict("K7", [row for seed in range(5) for row in rows(seed, 0.2, 3.0)])
    assert (found.outcome, found.same_direction) == ("not reproduced", "no")


def test_flatter_models_are_counted_with_what_they_cost_in_loss():
    laws = {CONTROL: (4.0, 0.01), "FGSM": (1.0, 0.02), "FHSM": (2.0, 0.03), "L2GRAD": (8.0, 0.5)}
    rows = [curved(name, 0, [top, 0.1], loss=loss) for name, (top, loss) in laws.items()]
    (line,) = robust_spectra.flatter(rows).to_dict("records")
    assert (line["flatter"], line["robust"], line["seeds"]) == (2, 3, 1)
    assert line["lambda1 ratio"] == pytest.approx(0.5) and line["loss ratio"] == pytest.approx(3.0)
    assert line["CLEAN+ loss"] == pytest.approx(0.01)
    assert robust_spectra.flatter(rows[1:]).empty and robust_spectra.flatter(rows[:1]).empty


def test_single_samples_are_counted_by_the_criterion():
    deep = {"sample": 0, "largest": 1.0, "smallest": -0.5, "gradient_norm": 0.1}
    singles = [deep] * 150 + [deep | {"smallest": -0.005}] * 25 + [deep | {"gradient_norm": 1e-9}] * 25
    table = robust_spectra.single_samples([curved(ORIGINAL, 0, [1.0], singles)])
    assert table["negative (%)"].item() == pytest.approx(75.0) and table["above half"].item()
    assert table["lower bound (%)"].item() == pytest.approx(68.4, abs=0.2)  # Clopper-Pearson, 150 of 200
