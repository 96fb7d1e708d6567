"""What is computed first where there is no time for everything."""

import pytest

from hbanalysis import studies
from hbanalysis.cli import commands as cli
from hbanalysis.running import agenda, compute
from hbanalysis.store import Store
from tests.flow_rows import command, tiny_store


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return agenda.plan("paper", Store(tmp_path_factory.mktemp("store")), "cpu", 2, available=lambda name: True)


def test_every_missing_cell_of_the_scale_stands_in_the_plan_once(plan):
    every = {studies.get(name).key(cell) for name in studies.names() for cell in studies.get(name).cells("paper")}
    listed = [studies.get(name).key(cell) for name, cell in plan.work]
    assert len(listed) == len(set(listed)) and set(listed) == every


def test_the_order_is_what_the_book_lacks_most(plan):
    titles = [title for title, _ in plan.groups]
    assert titles == [group.title for group in agenda.ORDER if group.title in titles]
    assert titles[:2] == ["M1 on MNIST: every study, first seed", "M1 on MNIST: every study, all seeds"]
    first = [cell.training for _, cell in plan.groups[0][1]]
    assert {t.network for t in first} == {"M1"} and {t.seed for t in first} == {0}
    assert "learning_rate_factorial" in {study for study, _ in plan.groups[0][1]}
    matrix = dict(plan.groups)["C3: adversarial training, first seed"]
    assert {"adversarial_training", "robust_spectrum"} <= {study for study, _ in matrix}
    svhn = {title for title, cells in plan.groups for _, cell in cells if cell.training.dataset == "svhn_extra"}
    assert svhn == {"C1 on SVHN"}


def test_estimates_follow_the_speed_measured_here(plan):
    said = str(plan)
    assert "M1: " in said and "s an epoch of mnist (60,000 samples), measured" in said
    assert all(factor > 0 for factor in plan.speeds.values())
    slower = agenda.Plan(plan.groups, {kind: 10 * factor for kind, factor in plan.speeds.items()}, plan.workers)
    study, cell = plan.work[0]
    assert slower._seconds(study, cell) == pytest.approx(10 * plan._seconds(study, cell))


def test_rows_that_are_there_are_not_planned_again():
    store = tiny_store()
    cells = studies.get("spectrum_vs_batch").cells("paper")
    done = [studies.get("spectrum_vs_batch").key(cell) for cell in cells]
    left = agenda.plan("paper", store, "cpu", 1, done, lambda name: True)
    assert "spectrum_vs_batch" not in {study for study, _ in left.work}
    assert agenda.plan("nothing has this scale", store, "cpu", 1).work == []


def test_cells_whose_data_are_not_here_are_left_out_by_name(tmp_path, plan):
    left = agenda.plan("paper", Store(tmp_path), "cpu", 1, available=lambda name: name != "cifar10")
    assert {cell.training.dataset for _, cell in left.work} == {t.dataset for t in trainings(plan)} - {"cifar10"}
    assert left.left_out == {"cifar10": sum(training.dataset == "cifar10" for training in trainings(plan))}
    assert "cifar10 is not here" in str(left) and "`hbanalysis data fetch cifar10`" in str(left)


def trainings(plan):
    return [cell.training for _, cell in plan.work]


def test_the_command_prints_the_plan_and_takes_its_order(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path / "nothing published"))
    taken = []
    monkeypatch.setattr(compute, "run", lambda work, *_, **options: taken.append((work, options)) or compute.Outcome())
    assert cli._run(["run", "--all", "--scale", "digits", "--workers", "1", "--store", str(tmp_path)]) == 0
    errors = capsys.readouterr().err
    assert "everything else:" in errors or "every study" in errors
    assert "an epoch of digits" in errors
    ((work, options),) = taken
    assert work == agenda.plan("digits", Store(tmp_path), "cpu", 1).work and len(work) > 9
    assert not options["longest_first"]


def test_without_any_data_the_command_says_what_to_get(tmp_path):
    words = (
        "run",
        "--all",
        "--scale",
        "mnist",
        "--store",
        str(tmp_path / "store"),
        "--root",
        str(tmp_path / "no data"),
    )
    process = command(*words)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2 and "hbanalysis data fetch mnist" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scale", "digits"], "Name one study, or say --all"),
        (["spectrum_vs_batch", "--all", "--scale", "digits"], "Name one study, or say --all"),
        (["--all", "--scale", "digits", "--set", "seeds=[0]"], "--set goes with one study"),
    ],
)
def test_a_study_or_all_of_them(words, said, capsys):
    assert cli._run(["run", *words]) == 2
    assert said in capsys.readouterr().err
