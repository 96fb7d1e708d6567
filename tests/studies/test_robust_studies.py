"""The studies of attacks and adversarial training: whole tiny cells, their tables, figures and bad input."""

import dataclasses

import numpy as np
import pytest
import torch

from hbanalysis import checkpoints, data, plots, studies
from hbanalysis.attacks import fgsm, still_correct
from hbanalysis.claims import verdicts
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.lineup import ATTACKS, CONTROL, MODELS, ORIGINAL
from hbanalysis.store import Row, Store
from hbanalysis.store.pictures import decoded, encoded
from hbanalysis.studies.robust_config import Adversary, Robust
from hbanalysis.tables import robustness
from hbanalysis.tables.frames import families

READINGS, ROBUST = studies.get("attack_readings"), studies.get("adversarial_training")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def attacked(store):
    return READINGS.compute(READINGS.cells("tiny")[0], store, "cpu")


@pytest.fixture(scope="module")
def robust(store):
    return ROBUST.compute(ROBUST.cells("tiny")[0], store, "cpu")


@pytest.mark.parametrize("study", [READINGS, ROBUST], ids=lambda study: study.name)
def test_cells_and_configurations_are_the_same_thing(study):
    for scale in study.scales:
        for cell in study.cells(scale):
            assert study.from_config(study.config(cell)) == cell
    assert {study.scale_of(cell) for cell in study.cells("mnist")} == {"paper"}
    assert {study.scale_of(cell) for cell in study.cells("digits", seeds=[9])} == {"custom"}
    assert all(cell.training.target_loss is None for cell in study.cells("paper"))
    with pytest.raises(InputError, match="no configuration of"):
        study.from_config({"training": {}})


def test_the_papers_schedule():
    mnist, cifar = (ROBUST.cells("paper")[i] for i in (0, -1))
    assert (mnist.training.max_epochs, mnist.training.schedule, mnist.training.learning_rate) == (
        *(100, "step(5, 0.5)"),
        0.01,
    )
    assert (mnist.adversary.eps_inf, mnist.adversary.eps_2, mnist.robust.epochs) == (0.1, 2.8, 5)
    assert (cifar.training.network, cifar.adversary.eps_inf, cifar.adversary.eps_2) == ("C3", 0.02, 1.2)
    assert (cifar.robust.epochs, cifar.robust.schedule) == (10, "step(5, 0.5)")


def test_readings_are_the_accuracies_of_the_kept_model(attacked, store):
    cell = READINGS.cells("tiny")[0]
    model = cell.training.network_on("cpu").eval()
    checkpoints.restore(model, store.checkpoint_folder(cell.training.key) / "epoch-end.safetensors")
    test = data.load("digits", "test", samples=60)
    for reading, clip in (("H1", (0.0, 1.0)), ("H2", None)):
        moved = fgsm(model, test.images, test.labels, 0.1, clip=clip, softmax="plain")
        known = float(still_correct(model, moved, test.labels).double().mean())
        assert attacked.values["readings"][reading]["FGSM"] == pytest.approx(known)
    one = attacked.values["sweep"][0]
    assert one["iterations"] == 1  # then the Newton attacks are the gradient attacks, on the first samples
    few = slice(0, 40)
    moved = fgsm(model, test.images[few], test.labels[few], 0.1, clip=None, softmax="plain")
    assert one["FHSM"] == pytest.approx(float(still_correct(model, moved, test.labels[few]).double().mean()))


def test_every_model_is_judged_on_every_set(robust):
    values = robust.values
    assert set(values["models"]) == set(values["static"]) == set(values["pgd"]) == set(MODELS)
    assert all(set(line) == set(ATTACKS) for part in ("static", "white_box") for line in values[part].values())
    # Sets crafted on the original model are its white-box sets.
    assert values["static"][ORIGINAL] == values["white_box"][ORIGINAL]
    assert set(values["lines"]) == set(ATTACKS)
    for name in ATTACKS:
        line = values["lines"][name]
        assert line["a"] == [-0.5, 0.5, 1.5] and all(len(line[k]) == 3 for k in ("loss_train", "loss_test"))


def test_copies_start_from_the_original_and_differ_from_the_control(robust, store):
    cell = ROBUST.cells("tiny")[0]
    folders = [store.checkpoint_folder(cell.robust.key(cell.training, cell.adversary, name)) for name in MODELS[1:]]
    states = [checkpoints.load(folder / "epoch-end.safetensors")[0] for folder in folders]
    start = checkpoints.load(store.checkpoint_folder(cell.training.key) / "epoch-end.safetensors")[0]
    moved = [max(float((state[n] - start[n]).abs().max()) for n in start) for state in states]
    assert all(0 < one < 0.1 for one in moved)
    assert all(any(not torch.equal(states[0][n], other[n]) for n in start) for other in states[1:])


def test_the_control_depends_on_no_attack():
    base = ROBUST.cells("tiny")[0].training
    keys = {Robust().key(base, adversary, CONTROL) for adversary in (Adversary(), Adversary(eps_inf=0.2))}
    assert len(keys) == 1
    assert len({Robust().key(base, Adversary(reading=r), "FGSM") for r in ("H1", "H2")}) == 2


def test_a_stopped_cell_goes_on(tmp_path):
    cell, store = dataclasses.replace(READINGS.cells("tiny", seeds=[3])[0]), Store(tmp_path)

    def stop(phase, fraction):
        if phase.startswith("H2, plain"):
            raise OutOfTimeError

    with pytest.raises(OutOfTimeError):
        READINGS.compute(cell, store, "cpu", stop)
    assert not store.rows(READINGS.name)
    phases = []
    row = READINGS.compute(cell, store, "cpu", lambda phase, fraction: phases.append(phase))
    assert row.values["status"] == "finished"
    assert READINGS.compute(cell, Store(tmp_path / "other"), "cpu").values["readings"] == row.values["readings"]


def test_images_keep_their_values_to_a_step():
    image = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(0)) * 3 - 1
    back = decoded(encoded(image))
    assert back.shape == (3, 5, 4)
    assert np.abs(back - image.numpy()).max() <= float(image.max() - image.min()) / 255 / 2 + 1e-6
    assert np.array_equal(decoded(encoded(torch.ones(1, 2, 2))), np.ones((1, 2, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ROBUST.cells("digits", reading="H3"), "H1"),
        (lambda: ROBUST.cells("digits", eps_inf=-0.1), "eps_inf must lie in"),
        (lambda: ROBUST.cells("digits", robust_epochs=0), "robust_epochs must be at least 1"),
        (lambda: READINGS.cells("digits", iterations=[0]), "iterations must be at least 1"),
        (lambda: READINGS.cells("digits", eps=[0.1]), "eps_2"),
    ],
)
def test_bad_parameters_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def made_up(scale="paper", seed=0, shift=0.0):
    """A row of M1 on MNIST that is exactly the paper's first line under H2, and off by ``shift`` under H1."""
    cell = READINGS.cells("mnist", seeds=[seed])[0]
    theirs = dict(zip(ATTACKS, (0.6037, 0.7727, 0.1432, 0.8204, 0.3321), strict=True))
    readings = {"H1": {a: v + shift for a, v in theirs.items()}, "H2": theirs}
    values = {"readings": readings, "readings_exact_softmax": readings, "clean": {}, "sweep": [], "status": "finished"}
    return Row(READINGS.name, scale, 1, READINGS.key(cell), READINGS.config(cell), values, {})


def test_the_reading_is_decided_by_the_rule():
    assert robustness.reading_verdict([]) == "not yet run"
    assert robustness.reading_verdict([made_up("digits")]) == "not yet run"
    two = [made_up(seed=s, shift=0.1) for s in (0, 1)]
    assert robustness.reading_verdict(two).startswith("undecided: 2 of the 3 seeds")
    assert robustness.reading_verdict([*two, made_up(seed=2, shift=0.1)]).startswith("H2; ")
    assert robustness.reading_verdict([*two, made_up(seed=2, shift=0.019)]).startswith("undecided; ")
    theirs = robustness.paper_matrix(next(iter(families(two))))
    assert robustness.distances(two[0], theirs) == pytest.approx({"H1": 10.0, "H2": 0.0}, abs=1e-9)


def test_the_papers_line_is_of_the_whole_data_set():
    config = READINGS.config(READINGS.cells("small")[0])
    table = robustness.first_line([dataclasses.replace(made_up("small"), config=config)]).set_index("reading")
    assert table.loc["the paper's table", ["scale", "trained"]].tolist() == ["paper", "C3 on CIFAR-10"]
    assert (table.loc[["H1", "H2"], "trained"] == "C3 on CIFAR-10 (first 2,000)").all()


def test_the_papers_matrices_have_the_papers_means():
    """The printed means are those of the five printed columns, truncated."""
    for network, dataset in (("M1", "mnist"), ("C3", "cifar10")):
        one = dataclasses.replace(next(iter(families([made_up()]))), network=network, dataset=dataset)
        theirs = robustness.paper_matrix(one)
        assert list(theirs.index) == [ORIGINAL, *ATTACKS]
        assert np.abs(theirs[list(ATTACKS)].mean(axis=1) - theirs["mean of attacked"]).max() < 0.01


def test_tables_and_figures_show_the_rows(attacked, robust):
    matrix = robustness.matrix([robust])
    assert matrix.loc["FGSM", "L2GRAD"] == pytest.approx(100 * robust.values["static"]["FGSM"]["L2GRAD"])
    assert matrix.loc["FGSM", "mean of attacked"] == pytest.approx(matrix.loc["FGSM", list(ATTACKS)].mean())
    figure, drawn = plots.accuracy_matrices([robust])
    assert len(figure.axes) == 1 and len(drawn) == 49
    assert float(drawn[(drawn.model == "FGSM") & (drawn.set == "L2GRAD")].value.iloc[0]) == matrix.loc["FGSM", "L2GRAD"]
    _, drawn = plots.lines_between([robust])
    assert len(drawn) == 5 * 3 * 3
    _, drawn = plots.cg_sweep([attacked])
    assert len(drawn) == 2 * 4
    _, drawn = plots.examples(attacked)
    assert list(drawn["version"]) == ["clean", *ATTACKS]
    gains = robustness.gains([robust])
    assert list(gains["model"]) == list(ATTACKS) and (gains["seeds"] == 1).all()
    assert list(robustness.strong([robust]).columns) == ["clean", "FGSM", "FGSM-10", "PGD"]
    assert len(robustness.first_line([attacked])) == 4
    for draw in (plots.accuracy_matrices, plots.lines_between, plots.cg_sweep):
        with pytest.raises(InputError):
            draw([])


def robust_row(seed=0, gain=0.2, control=0.05, clean_loss=0.001, dataset="mnist"):
    """A row whose original model is right on .5 of the attacked images, the control on more, robust models on most."""
    scale = "mnist" if dataset == "mnist" else "paper"
    cell = next(c for c in ROBUST.cells(scale, seeds=[seed]) if c.training.dataset == dataset)
    attacked = {name: 0.5 + gain for name in MODELS} | {ORIGINAL: 0.5, CONTROL: 0.5 + control}
    clean = {name: 0.99 - clean_loss for name in MODELS} | {ORIGINAL: 0.99, CONTROL: 0.99}
    values = {
        "status": "finished",
        "static": {name: dict.fromkeys(ATTACKS, value) for name, value in attacked.items()},
        "models": {name: {"accuracy_test": value} for name, value in clean.items()},
    }
    return Row(ROBUST.name, "paper", 1, ROBUST.key(cell), ROBUST.config(cell), values, {})


def test_the_verdict_on_adversarial_training():
    def outcome(**law):
        rows = [robust_row(seed, **law) for seed in range(5)]
        (found,) = verdicts.verdicts("K6", rows)
        return found.outcome

    assert verdicts.verdicts("K6", [])[0].outcome == "not yet run"
    assert verdicts.verdicts("K6", [robust_row()])[0].outcome == "undecided"  # one seed of five
    assert outcome() == "reproduced"
    assert outcome(clean_loss=0.01) == "partly"  # more than half a point of clean accuracy on MNIST
    assert outcome(gain=0.04) == "not reproduced"  # less than the control gains
    assert outcome(dataset="cifar10", clean_loss=0.04) == "reproduced"
    assert outcome(dataset="cifar10", clean_loss=0.01) == "partly"
    assert not any(v.outcome == "reproduced" for v in verdicts.verdicts("K1", [robust_row()]))


def test_the_papers_matrix_is_not_headed_by_our_samples_and_scale():
    rows = [robust_row(dataset="cifar10")]
    figure, drawn = plots.accuracy_matrices(rows)
    heads = [panel.get_title(loc="left") for panel in figure.axes]
    assert heads[1] == "C3 on CIFAR-10\nthe paper's" and heads[0].endswith("\nours")
    assert set(drawn["matrix"]) == {"ours", "the paper's", "ours minus the paper's"}
