"""Processes that tests kill, starve or lock out.

They are forked from a server that has imported everything already, so that a random moment of their life falls into
work and not into imports. What runs in them stands here, since a process finds its function by its module.
"""

import ctypes
import errno
import importlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch

from hbanalysis import files, store, studies, training
from hbanalysis.running.worker import compute_cell
from hbanalysis.store import Row, Store, provenance
from hbanalysis.studies.spectrum_vs_batch import SpectrumVsBatch
from tests.flow_rows import PROJECT, STUDY, made_up_row

# The scale tiny, made smaller still.
OVERRIDES: dict[str, Any] = {
    "seeds": [0],
    "batch_sizes": [20, 10],
    "train_samples": 20,
    "test_samples": 10,
    "target_loss": 2.1,
    "eigenvalues": 1,
    "tolerance": 0.5,
    "points": 3,
}
WORDS = ["--scale", "tiny", *(word for key, value in OVERRIDES.items() for word in ("--set", f"{key}={value}"))]


@cache
def server() -> Any:
    """Start the server once a test process, and wait for its imports; it ends with the test process."""
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults"])
    first = context.Process(target=nothing)
    first.start()
    first.join()
    assert first.exitcode == 0
    return context


def start(target: Callable[..., None], *given: Any) -> Any:
    """Run a function of this module in a process of its own."""
    process = server().Process(target=target, args=given, daemon=True)
    process.start()
    return process


def finish(target: Callable[..., None], *given: Any) -> float:
    """Run a function to its end and return its wall seconds."""
    began = time.monotonic()
    process = start(target, *given)
    process.join(300)
    assert process.exitcode == 0, f"{target.__name__} ended with {process.exitcode}"
    return time.monotonic() - began


def error_of(target: Callable[..., None], *given: Any) -> str:
    """Run a function to its end and return the type and text of the error that it raised, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "error"
        os.chmod(folder, 0o755)
        note.touch()
        process = start(_noting, str(note), target, *given)
        process.join(300)
        assert process.exitcode == 0
        return note.read_text()


def _noting(note: str, target: Callable[..., None], *given: Any) -> None:
    file = os.open(note, os.O_WRONLY)
    try:
        target(*given)
    except Exception as error:
        os.write(file, f"{type(error).__name__}: {error}".encode())


def kill_within(seconds: float, target: Callable[..., None], *given: Any) -> bool:
    """Start a function, kill it with SIGKILL at a random moment of so many seconds, and tell whether it still ran."""
    process = start(target, *given)
    process.join(random.uniform(0, seconds))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def nothing() -> None:
    """End at once: what a first process waits for is the server."""


def cells() -> list[Any]:
    return studies.get(STUDY).cells("tiny", **OVERRIDES)


def compute_all(root: str, count: int = 2) -> None:
    """What a worker of ``hbanalysis run`` does with the first cells, the state of a training kept at every step."""
    torch.set_num_threads(1)
    training.loop.SAVE_EVERY = 0.0
    place = Store(root)
    files.sweep(place.root)
    for cell in cells()[:count]:
        compute_cell(studies.get(STUDY), cell, place, device="cpu")


def compute_all_starved(root: str, count: int, most: int) -> None:
    """The same where no file can grow beyond ``most`` bytes: the kernel refuses the write, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    compute_all(root, count)


def compute_all_killed(root: str, count: int, number: int, after: bool) -> None:
    """The same, killed just before or after the file of that number gets its name."""
    _kill_at_rename(number, after)
    compute_all(root, count)


def put_row_without_rights(root: str) -> None:
    """Write a row as a user who may not, root included: without capabilities root obeys the permissions of files."""
    _drop_capabilities()
    Store(root).put(made_up_row(cells()[0]))


def read_rows_without_rights(root: str) -> None:
    _drop_capabilities()
    assert len(Store(root).rows()) == len(cells())


def run_without_rights(root: str, study: str) -> None:
    from hbanalysis.running import compute

    _drop_capabilities()
    compute.run([(study, studies.get(study).cells("tiny")[0])], Store(root), show=False)


def publish_rows(root: str, rows: list[Row]) -> None:
    store.publish(rows, root)


def publish_rows_killed(root: str, rows: list[Row], number: int, after: bool) -> None:
    _kill_at_rename(number, after)
    publish_rows(root, rows)


def write_file_forever(path: str, size: int) -> None:
    """Replace a file by A, B, C, ... of one size, again and again."""
    while True:
        for letter in b"ABC":
            files.write_atomically(Path(path), bytes([letter]) * size)


@cache
def rows(count: int, factor: float = 1.0) -> list[Row]:
    study = studies.get(STUDY)
    return [made_up_row(cell, factor) for cell in study.cells("digits", batch_sizes=[16], seeds=list(range(count)))]


class Brief(SpectrumVsBatch):
    """The study with its computation replaced by a nap."""

    def compute(self, cell: Any, place: Store, device: str | None = None, progress: Any = None) -> Row:
        time.sleep(0.002)
        row = made_up_row(cell)
        place.put(row)
        return row


def compute_shared(root: str, count: int, note: str) -> None:
    """Ask for the same cells as others do, in an order of its own, and note how many were computed here."""
    study = Brief()
    wanted = study.cells("digits", batch_sizes=[16], seeds=list(range(count)))
    random.Random(os.getpid()).shuffle(wanted)
    Path(note).write_text(json.dumps([compute_cell(study, cell, Store(root))[1] for cell in wanted].count(True)))


def values_of(root: Path) -> dict[str, str]:
    """The values of every row as text, by key."""
    return {row.key: json.dumps(row.values, sort_keys=True) for row in Store(root).rows()}


def unfinished(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file() and files.is_part(path.name)]


@cache
def undisturbed() -> tuple[Path, float]:
    """A store with the rows of `cells`, computed without any fault, and its wall seconds. Copy it to change it."""
    root = Path(tempfile.mkdtemp(prefix="hbanalysis-tests-"))
    return root / "store", finish(compute_all, str(root / "store"))


def full_disk(*given: Any, **more: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _kill_at_rename(number: int, after: bool) -> None:
    renamed, count = os.replace, 0

    def replace(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        renamed(source, target)
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]


def _drop_capabilities() -> None:
    if os.geteuid() or sys.platform != "linux":
        return
    header, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


# Asked for and imported once here, not late by every process that is forked.
provenance.environment("cpu")
for late in ("pandas", "sklearn.datasets", "torch._dynamo"):
    importlib.import_module(late)
