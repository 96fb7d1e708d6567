"""What a store survives: processes killed at any moment, several at once, a full disk, no rights, an odd path."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from hbanalysis import files, studies
from hbanalysis.cli import commands as cli
from hbanalysis.errors import StoreError
from hbanalysis.records import store_check
from hbanalysis.running import compute
from hbanalysis.store import PublishedRows, Store
from hbanalysis.store.locks import KeyLock
from tests import faults
from tests.flow_rows import PROJECT, STUDY

pytestmark = pytest.mark.begun_first
FEW_OR_MANY = pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.full)])
ODD = "Läufe für λ₁ (neu)"


def assert_same_rows(root: Path, count: int = 2) -> None:
    keys = [studies.get(STUDY).key(cell) for cell in faults.cells()[:count]]
    undisturbed = faults.values_of(faults.undisturbed()[0])
    assert faults.values_of(root) == {key: undisturbed[key] for key in keys}
    assert faults.unfinished(root) == []
    assert store_check.check(Store(root)).text().splitlines()[:-1] == []
    assert not list((root / "work").iterdir())


@pytest.mark.parametrize(("kills", "cells"), [(5, 1), pytest.param(50, 2, marks=pytest.mark.full)])
@pytest.mark.survives("Killed processes")
def test_kill_at_random_moments_of_a_sweep(kills: int, cells: int, tmp_path: Path):
    """`kill -9` at a random moment of a worker's training, spectrum or writing: whatever is on disk then is whole, and
    a restart ends with the same rows, byte for byte in their values, and leaves nothing half-written."""
    seconds = faults.undisturbed()[1] * cells / 2
    for number in range(kills):
        root = tmp_path / str(number)
        while not faults.kill_within(seconds, faults.compute_all, str(root), cells):
            shutil.rmtree(root)
        if root.exists():
            assert store_check.check(Store(root)).damaged == {}
        faults.finish(faults.compute_all, str(root), cells)
        assert_same_rows(root, cells)
        shutil.rmtree(root)


@pytest.mark.full
@pytest.mark.survives("Killed processes")
def test_kill_around_every_write_of_a_cell(tmp_path: Path):
    """`kill -9` just before and just after each single file of a cell gets its name, one after the other: the same."""
    for after in (False, True):
        for number in range(1, 500):
            root = tmp_path / f"{number}{after}"
            process = faults.start(faults.compute_all_killed, str(root), 1, number, after)
            process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            faults.finish(faults.compute_all, str(root), 1)
            assert_same_rows(root, 1)
            shutil.rmtree(root)
        assert 10 < number < 499


def start_run(root: Path, *more: str) -> "subprocess.Popen[str]":
    """Start `hbanalysis run` in a process group of its own and wait until its worker computes."""
    script = "import sys; from hbanalysis import cli; cli.main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run", STUDY, *faults.WORDS, *more, "--workers", "1", "--store", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        start_new_session=True,
    )
    began = time.monotonic()
    while not list(root.glob("locks/*.lock")) and process.poll() is None:
        assert time.monotonic() < began + 240
        time.sleep(0.02)
    return process


def end(process: "subprocess.Popen[str]") -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    return out, err


@pytest.mark.survives("Killed processes", "Stores in odd places")
def test_kill_of_the_command_alone_in_a_store_with_spaces_and_letters_of_other_alphabets(tmp_path: Path):
    """`kill -9` of `hbanalysis run` while its worker lives on: the worker stops by itself, and a restart beside it ends
    with the same rows. The store's path has spaces, parentheses and letters that are not ASCII."""
    root = tmp_path / ODD
    words = ("--set", f"batch_sizes={faults.OVERRIDES['batch_sizes'][:1]}")
    process = start_run(root, *words)
    time.sleep(random.uniform(0, faults.undisturbed()[1] / 2))
    process.kill()
    again = start_run(root, *words)
    out, err = end(again)
    end(process)
    assert again.returncode == 0, err
    assert "0 missing, 0 failed" in out and str(root) in out
    assert_same_rows(root, 1)
    assert cli._run(["store", "verify", "--store", str(root)]) == 0
    assert cli._run(["export", "--store", str(root), "--output", str(root / "rows.csv")]) == 0


@pytest.mark.full
@pytest.mark.survives("Killed processes")
def test_kill_of_command_and_worker_again_and_again(tmp_path: Path):
    """`kill -9` of `hbanalysis run` and its worker together at 50 random moments, each run going on from what the last
    left: every state left behind is whole, and a copy of it is brought to its end with the same rows."""
    seconds, kills, root = faults.undisturbed()[1], 0, tmp_path / "store"
    while kills < 50:
        process = start_run(root)
        time.sleep(random.uniform(0, seconds))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            end(process)
            copy = shutil.copytree(root, tmp_path / "copy")
            assert store_check.check(Store(copy)).damaged == {}
            faults.finish(faults.compute_all, str(copy))
            assert_same_rows(copy)
            shutil.rmtree(copy)
        else:
            end(process)
            assert_same_rows(root)
            shutil.rmtree(root)


@FEW_OR_MANY
@pytest.mark.survives("Killed processes")
def test_kill_at_random_moments_of_a_publish(kills: int, tmp_path: Path):
    """`kill -9` at a random moment while rows are published over older ones: each row is the old or the new one,
    complete; publishing again ends with all of the new ones and leaves nothing half-written."""
    old, new = faults.rows(20), faults.rows(20, 2.0)
    texts = {row.key: (row.to_json(), again.to_json()) for row, again in zip(old, new, strict=True)}
    seconds = faults.finish(faults.publish_rows, str(tmp_path / "new"), new)
    for number in range(kills):
        root = tmp_path / str(number)
        faults.publish_rows(str(root), old)
        while not faults.kill_within(seconds, faults.publish_rows, str(root), new):
            faults.publish_rows(str(root), old)
        there = {row.key: row.to_json() for row in PublishedRows(root).rows()}
        assert there.keys() == texts.keys()
        assert all(text in texts[key] for key, text in there.items())
        faults.publish_rows(str(root), new)
        assert {row.key: row.to_json() for row in PublishedRows(root).rows()} == {k: v[1] for k, v in texts.items()}
        assert len([path for path in root.rglob("*") if path.is_file()]) == len(new)


@pytest.mark.survives("Killed processes")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_kill_around_each_row_of_a_publish(after: bool, tmp_path: Path):
    """`kill -9` just before and just after a published row gets its name, for each row in turn: the same."""
    for number in (1, 2, 3):
        root = tmp_path / str(number)
        process = faults.start(faults.publish_rows_killed, str(root), faults.rows(3), number, after)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(PublishedRows(root).rows()) == number - (not after)
        assert len(faults.unfinished(root)) == (not after)
        faults.publish_rows(str(root), faults.rows(3))
        assert len(PublishedRows(root).rows()) == 3
        assert faults.unfinished(root) == []


@FEW_OR_MANY
@pytest.mark.survives("Killed processes")
def test_kill_while_a_large_file_is_replaced(kills: int, tmp_path: Path):
    """`kill -9` while a published notebook, or any large file, is replaced: it is the old or the new one, whole. What
    is left unfinished beside it is removed later, and never while a living process writes it."""
    path, size = tmp_path / "05_attacks.ipynb", 3_000_000
    left = 0
    for _ in range(kills):
        assert faults.kill_within(0.5, faults.write_file_forever, str(path), size)
        if path.exists():
            content = path.read_bytes()
            assert len(content) == size and len(set(content)) == 1
        left += len(files.sweep(tmp_path))
        assert faults.unfinished(tmp_path) == []
    process = faults.start(faults.write_file_forever, str(path), size)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        left += len(files.sweep(tmp_path))
    assert process.is_alive(), "a file was taken from its writer"
    process.kill()
    process.join()


def test_the_next_run_removes_what_was_left_unfinished(tmp_path: Path):
    root = shutil.copytree(faults.undisturbed()[0], tmp_path / "store")
    left = [root / "rows" / STUDY / ".a.json.x1.part", root / "checkpoints" / ".b.y2.part", root / ".writable-1.part"]
    for path in left:
        path.write_text("half")
    assert set(store_check.check(Store(root)).notes) >= set(left)
    outcome = compute.run([(STUDY, cell) for cell in faults.cells()], Store(root), show=False)
    assert len(outcome.present) == len(faults.cells())
    assert not any(path.exists() for path in left)


@pytest.mark.survives("Several processes at once")
@pytest.mark.parametrize(("processes", "cells"), [(2, 60), pytest.param(8, 400, marks=pytest.mark.full)])
def test_processes_that_share_a_store(processes: int, cells: int, tmp_path: Path):
    """Two and eight processes that ask one store for the same cells in orders of their own (60 and 400 cells): every
    row is there and whole, and not one cell is computed twice."""
    root, notes = tmp_path / "store", [tmp_path / str(number) for number in range(processes)]
    all_of_them = [faults.start(faults.compute_shared, str(root), cells, str(note)) for note in notes]
    for process in all_of_them:
        process.join(300)
        assert process.exitcode == 0
    computed = [json.loads(note.read_text()) for note in notes]
    assert sum(computed) - cells == 0
    assert min(computed) > 0, "one process did everything, so that nothing was shown"
    assert {row.key: row.to_json() for row in Store(root).rows()} == {r.key: r.to_json() for r in faults.rows(cells)}
    assert store_check.check(Store(root)).damaged == {}
    assert not list((root / "locks").iterdir())


@pytest.mark.full
@pytest.mark.survives("Several processes at once")
def test_commands_that_share_a_store(tmp_path: Path):
    """Eight times `hbanalysis run` of one sweep on one store at once: all end with code 0, every row is there and as it
    would be otherwise, and not one cell is computed twice."""
    commands = [start_run(tmp_path / "store") for _ in range(8)]
    said = [end(process) for process in commands]
    assert [process.returncode for process in commands] == 8 * [0], said
    computed = sum(int(out.split(" computed")[0].rsplit(" ", 1)[1]) for out, _ in said)
    assert computed == len(faults.cells())
    assert_same_rows(tmp_path / "store")


@pytest.mark.survives("Full disk")
def test_a_disk_that_fills_during_a_sweep(tmp_path: Path):
    """The kernel refuses to let a checkpoint grow (a limit on the size of files stands in for a full disk): the error
    names the file and says what to try, nothing on disk is damaged or half-written, and with space again the sweep
    ends with the same rows."""
    root = tmp_path / "store"
    said = faults.error_of(faults.compute_all_starved, str(root), 1, 100_000)
    assert said.startswith(f"StoreError: Cannot write {root}")
    assert os.strerror(errno.EFBIG) in said and "--store or HBANALYSIS_STORE" in said
    assert store_check.check(Store(root)).damaged == {}
    assert faults.unfinished(root) == []
    faults.finish(faults.compute_all, str(root), 1)
    assert_same_rows(root, 1)


@pytest.mark.survives("Full disk")
@pytest.mark.parametrize("step", ["mkdir", "mkstemp", "fdopen", "fsync", "chmod", "replace"])
def test_no_space_left_at_any_step_of_a_write(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """ "No space left on device" at each step of a write in turn: the old row stays as it was, nothing is left beside
    it, and the error names the file and says what to try."""
    (row,), (new,) = faults.rows(1), faults.rows(1, 2.0)
    path = Store(tmp_path).put(row)
    before = path.read_text()
    owner = {"mkdir": Path, "mkstemp": tempfile}.get(step, os)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, faults.full_disk)
        with pytest.raises(StoreError, match="No space left on device.*--store or HBANALYSIS_STORE") as caught:
            Store(tmp_path).put(new)
    assert str(path) in str(caught.value)
    assert path.read_text() == before
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]
    Store(tmp_path).put(new)
    assert Store(tmp_path).get(STUDY, row.key) == new


@pytest.mark.survives("Full disk")
def test_publishing_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """`hbanalysis publish` without space: exit code 1, one line that names the file, and no row is changed."""
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path / "published"))
    for row in faults.rows(2):
        Store(tmp_path / "store").put(row)
    monkeypatch.setattr(os, "fsync", faults.full_disk)
    assert cli._run(["publish", "--study", STUDY, "--store", str(tmp_path / "store")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: Cannot write {tmp_path / 'published'}") and "No space left" in line
    assert not [path for path in (tmp_path / "published").rglob("*") if path.is_file()]


def test_a_lock_holds_where_its_owner_cannot_be_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "write", faults.full_disk)
    with KeyLock(tmp_path, "k") as lock:
        assert lock.held and lock.owner() is None
        assert not KeyLock(tmp_path, "k").acquire(wait=False)
    assert KeyLock(tmp_path, "k").acquire(wait=False)


@pytest.mark.survives("Read-only store")
def test_a_store_that_may_only_be_read(tmp_path: Path):
    """A store without the right to write: its rows are read as ever; a write, and a run that lacks a row, are refused
    with an error that names the folder and what to try; nothing in it changes. The test gives up root's privileges."""
    root = shutil.copytree(faults.undisturbed()[0], tmp_path / "store")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert faults.error_of(faults.read_rows_without_rights, str(root)) == ""
        said = faults.error_of(faults.put_row_without_rights, str(root))
        assert said.startswith(f"StoreError: Cannot write {root}")
        assert "Permission denied" in said and "--store or HBANALYSIS_STORE" in said
        said = faults.error_of(faults.run_without_rights, str(root), STUDY)
        assert said.startswith(f"InputError: The store {root} cannot be written: Permission denied")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


@pytest.mark.survives("Stores in odd places")
def test_rows_published_from_and_to_odd_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`publish`, `status`, `export` and `store verify` where every path has spaces and letters that are not ASCII."""
    here, there = tmp_path / ODD / "store", tmp_path / ODD / "veröffentlicht"
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(there))
    monkeypatch.setenv("HBANALYSIS_STORE", str(here))
    for row in faults.rows(2):
        Store().put(row)
    for words in (["publish", "--study", STUDY], ["status"], ["export", "--output", str(tmp_path / ODD / "ω.csv")]):
        assert cli._run(words) == 0
    assert cli._run(["store", "verify", "--published"]) == 0
    assert f"{there}: 2 rows checked, 0 damaged." in capsys.readouterr().out
    assert len(PublishedRows().rows()) == 2 and (tmp_path / ODD / "ω.csv").is_file()
    assert studies.get(STUDY).name == STUDY
