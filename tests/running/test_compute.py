import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.running import compute
from hbanalysis.running.worker import SafePoints, compute_cell
from hbanalysis.store import Store
from tests.flow_rows import STUDY, command, made_up_row, tiny_store, wait_for_work

SMALL = {"batch_sizes": [50], "seeds": [3]}


def test_rows_of_a_store_are_not_computed_again():
    cells = studies.get(STUDY).cells("tiny")
    outcome = compute.run([(STUDY, cell) for cell in cells], tiny_store(), show=False)
    assert (len(outcome.present), outcome.computed, outcome.exit_code) == (2, [], 0)


def test_a_failing_cell_is_reported_and_the_others_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("HBANALYSIS_DATA", str(tmp_path / "nothing"))
    study = studies.get(STUDY)
    good, bad = study.cells("tiny", **SMALL)[0], study.cells("mnist")[0]
    outcome = compute.run([(STUDY, bad), (STUDY, good)], Store(tmp_path / "store"), workers=1)
    assert [task.key for task in outcome.computed] == [study.key(good)]
    assert "hbanalysis data fetch mnist" in outcome.failed[0].error
    assert outcome.exit_code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    assert len(lines) == 2
    assert "FAILED" in lines[0] + lines[1]


def test_two_processes_that_ask_for_the_same_cell_compute_it_once(tmp_path: Path):
    words = ["run", STUDY, "--scale", "tiny", "--set", "batch_sizes=[50]", "--set", "seeds=[4]"]
    both = [command(*words, "--store", str(tmp_path)) for _ in range(2)]
    texts = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sorted("1 computed" in out for out, _ in texts) == [False, True], texts
    assert not list((tmp_path / "locks").iterdir())


def test_an_interrupted_cell_goes_on_and_gives_the_same_row(tmp_path: Path):
    study = studies.get(STUDY)
    cell = study.cells("tiny")[0]
    whole = tiny_store().get(STUDY, study.key(cell))
    assert whole is not None
    store, stops = Store(tmp_path), 0
    for allowed in (1, 2, 3, 5, 8, 13):
        calls = iter(range(allowed))

        def progress(phase: str, fraction: float, calls=calls) -> None:
            if next(calls, None) is None:
                raise OutOfTimeError("enough")

        try:
            row, computed = compute_cell(study, cell, store, device="cpu", progress=progress)
            break
        except OutOfTimeError:
            stops += 1
            assert not list((tmp_path / "locks").iterdir())
    else:
        row, computed = compute_cell(study, cell, store, device="cpu")
    assert stops >= 2
    assert computed
    assert row is not None
    if row.provenance["threads"] == whole.provenance["threads"]:
        assert row.values == whole.values


def test_a_time_budget_stops_a_run_inside_it_and_keeps_the_work(tmp_path: Path):
    cell = studies.get(STUDY).cells("digits", seeds=[11], batch_sizes=[256])[0]
    for budget in (15.0, 60.0, 240.0):  # on a busy machine the worker alone takes longer to start than the first
        began = time.monotonic()
        outcome = compute.run([(STUDY, cell)], Store(tmp_path), time_budget=budget, workers=1, show=False)
        assert time.monotonic() - began < budget + 5
        assert (outcome.exit_code, len(outcome.missing)) == (3, 1)
        if (tmp_path / "work").exists():
            break
    assert list((tmp_path / "work").iterdir())


@pytest.mark.survives("Killed processes")
def test_a_time_budget_that_ends_before_a_worker_is_ready(tmp_path: Path):
    """A time budget that is over before a worker could even start: the run ends in time, with nothing lost, computed
    or failed."""
    cells = studies.get(STUDY).cells("tiny")
    began = time.monotonic()
    outcome = compute.run([(STUDY, cell) for cell in cells], Store(tmp_path), time_budget=2.1, workers=2, show=False)
    assert time.monotonic() - began < 2.1 + 5
    assert (outcome.exit_code, len(outcome.missing), outcome.failed) == (3, len(cells), [])
    assert Store(tmp_path).rows() == []


def test_ctrl_c_stops_cleanly_with_130_and_a_second_run_goes_on(tmp_path: Path):
    words = ["run", STUDY, "--scale", "digits", "--set", "seeds=[12]", "--set", "batch_sizes=[256]"]
    process = command(*words, "--store", str(tmp_path))
    wait_for_work(tmp_path)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "1 missing" in out
    assert "Traceback" not in err
    assert list(tmp_path.glob("work/*/phases.json"))
    assert not list(tmp_path.glob("rows/*/*"))


def test_a_truncated_row_is_reported_by_file_and_stays(tmp_path: Path):
    cells = studies.get(STUDY).cells("tiny")
    shutil.copytree(tiny_store().root, tmp_path / "store")
    store = Store(tmp_path / "store")
    broken = store.path(STUDY, studies.get(STUDY).key(cells[0]))
    broken.write_text(broken.read_text()[:200])
    outcome = compute.run([(STUDY, cell) for cell in cells], store, show=False)
    assert len(outcome.present) == 1
    assert str(broken) in outcome.failed[0].error
    assert outcome.exit_code == 1


def test_a_store_that_cannot_be_written_is_refused_before_any_work():
    cell = studies.get(STUDY).cells("tiny")[0]
    with pytest.raises(InputError, match="/dev/null/store cannot be written"):
        compute.run([(STUDY, cell)], Store("/dev/null/store"), show=False)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"threads": -1}, {"time_budget": 0.0}])
def test_numbers_must_be_positive(tmp_path: Path, wrong: dict):
    with pytest.raises(InputError, match="must be positive"):
        compute.run([], Store(tmp_path), **wrong)


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="is not a device"):
        compute.uses_cuda("gpu3")


@pytest.mark.parametrize("longest_first", [True, False])
def test_longest_cells_come_first_unless_the_order_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest_first: bool
):
    monkeypatch.setenv("HBANALYSIS_DATA", str(tmp_path / "nothing"))  # every cell fails at once, in its turn
    cells = studies.get(STUDY).cells("mnist", batch_sizes=[1024, 64, 2048, 256])
    work = [(STUDY, cell) for cell in cells]
    outcome = compute.run(work, Store(tmp_path), workers=1, show=False, longest_first=longest_first)
    costs = [failure.task.cost for failure in outcome.failed]
    given = [studies.get(STUDY).cost(cell) for cell in cells]
    assert given != sorted(given, reverse=True)
    assert costs == (sorted(given, reverse=True) if longest_first else given)


def test_safe_points_stop_before_the_next_one_would_be_too_late():
    passed = []
    points = SafePoints(1.0, report=lambda phase, fraction: passed.append(fraction))
    points("training", 0.1)
    time.sleep(0.6)
    with pytest.raises(OutOfTimeError):
        points("training", 0.2)
    assert passed == [0.1]


def test_safe_points_obey_a_stop():
    stop = threading.Event()
    points = SafePoints(stop=stop)
    points("training", 0.1)
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        points("training", 0.2)


def test_a_row_that_another_process_wrote_meanwhile_is_read(tmp_path: Path):
    study = studies.get(STUDY)
    cell = study.cells("tiny")[0]
    store = Store(tmp_path)
    store.put(made_up_row(cell))
    row, computed = compute_cell(study, cell, store)
    assert row == made_up_row(cell)
    assert not computed


def test_low_priority_gives_way_to_other_terminals_too():
    script = (
        "import os; from pathlib import Path; from hbanalysis.running.worker import _lower_priority; _lower_priority();"
        "group = Path('/proc/self/autogroup');"
        "print(os.nice(0), group.read_text().split()[-1] if group.exists() else 19)"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=600)
    assert found.stdout.split() == ["19", "19"]
