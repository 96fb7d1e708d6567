"""Worker processes that die, that cannot start, and that somebody stops twice; and what the terminal shows of them."""

import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from hbanalysis import studies
from hbanalysis.running import compute
from hbanalysis.running.display import Display
from hbanalysis.store import Store
from tests.flow_rows import STUDY, command, wait_for_work


def workers() -> list[psutil.Process]:
    """The worker processes of this process."""
    return [one for one in psutil.Process().children() if "hbanalysis.running.worker" in one.cmdline()]


@pytest.mark.survives("Killed processes")
def test_a_worker_that_is_killed_fails_its_cell_and_a_new_one_computes_the_others(tmp_path: Path):
    """`kill -9` of one worker in the middle of a cell: that cell is reported as failed with the signal, a new worker
    takes over the other cells, and the next run goes on with what the first had kept."""
    study = studies.get(STUDY)
    (long,) = study.cells("digits", seeds=[13], batch_sizes=[256])
    (short,) = study.cells("tiny", seeds=[3], batch_sizes=[50])
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 240
        while time.monotonic() < until and not killed:
            working = (tmp_path / "locks" / f"{study.key(long)}.lock").exists()
            for worker in workers() if working else []:
                worker.kill()
                killed.append(worker.pid)
            time.sleep(0.1)

    thread = threading.Thread(target=kill)
    thread.start()
    outcome = compute.run([(STUDY, long), (STUDY, short)], Store(tmp_path), workers=1, show=False)
    thread.join()
    assert len(killed) == 1
    assert [failure.task.key for failure in outcome.failed] == [study.key(long)]
    assert "its process ended with code -9" in outcome.failed[0].error
    assert [task.key for task in outcome.done] == [task.key for task in outcome.computed] == [study.key(short)]
    assert outcome.exit_code == 1


def test_workers_that_cannot_start_are_an_error_of_every_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    cells = studies.get(STUDY).cells("tiny")
    outcome = compute.run([(STUDY, cell) for cell in cells], Store(tmp_path), workers=2, show=False)
    assert len(outcome.failed) == len(cells)
    assert all("no worker process could start (code 1)" in failure.error for failure in outcome.failed)
    assert workers() == []


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path):
    words = ["run", STUDY, "--scale", "digits", "--set", "seeds=[14]", "--set", "batch_sizes=[256]"]
    process = command(*words, "--store", str(tmp_path))
    wait_for_work(tmp_path)
    children = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert gone and not alive


class Terminal(io.StringIO):
    """Standard error that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_bar_shows_what_runs_how_far_it_is_and_what_ended(monkeypatch: pytest.MonkeyPatch):
    seen = Terminal()
    monkeypatch.setattr(sys, "stderr", seen)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((120, 40)))
    with Display({"a": 30.0, "b": 10.0}) as display:
        display.progress("a", "first cell", "training", 0.5)
        half = seen.getvalue()
        display.finished("a", "first cell: computed")
        display.progress("b", "second cell", "spectrum", 7.0)  # more than all of it counts as all
        display.idle("b")
    text = seen.getvalue()
    assert "first cell, training" in half and "38%" in half  # 15 of 40 CPU-seconds
    assert "[1/2] first cell: computed" in text
    assert "second cell, spectrum" in text and "100%" in text
    assert "75%" in text
