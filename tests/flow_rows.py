"""Rows of real cells for the flow's tests: with made-up values at no cost, or computed once a process at scale tiny."""

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

from hbanalysis import studies
from hbanalysis.files import write_atomically
from hbanalysis.running import compute
from hbanalysis.store import Row, Store

STUDY = "spectrum_vs_batch"
PROJECT = Path(__file__).resolve().parents[1]


def made_up_row(cell: Any, factor: float = 1.0) -> Row:
    """A row of this cell whose measured values are plausible and scale with ``factor``."""
    study = studies.get(STUDY)
    batch_size = study.config(cell)["training"]["batch_size"]
    at_target = {
        "loss_train": 9.5e-4,
        "loss_test": 0.1,
        "accuracy_train": 1.0,
        "accuracy_test": 0.96,
        "gradient_norm_train": 0.01,
        "lambda1_train": 0.01 * batch_size * factor,
        "lambda1_test": 0.4 * batch_size * factor,
        "spectrum_train": [0.01 * batch_size * factor / (i + 1) for i in range(3)],
        "spectrum_test": [0.4 * batch_size * factor],
        "fgsm": [{"epsilon": 0.1, "accuracy_train": 0.6, "accuracy_test": 0.5}],
    }
    values = {"status": "reached", "epochs": 20.25, "steps": 1800, "crossings": [], "history": []}
    return Row(
        study=study.name,
        scale=study.scale_of(cell),
        revision=study.revision,
        key=study.key(cell),
        config=study.config(cell),
        values={**values, "at_target": at_target, "epoch_end": None, "landscape": None},
        provenance={"device": "cpu", "device_name": "a CPU", "cpu_seconds": 10.0, "seconds": {"total": 10.0}},
    )


def publish_into(folder: Path, rows: list[Row]) -> None:
    """Write rows as published ones, those of scale tiny included."""
    for row in rows:
        write_atomically(folder / row.study / f"{row.key}.json", row.to_json())


@cache
def tiny_store() -> Store:
    """A store with the two rows of scale tiny, computed by two worker processes; copy it before writing to it."""
    store = Store(tempfile.mkdtemp(prefix="hbanalysis-tests-"))
    cells = studies.get(STUDY).cells("tiny")
    outcome = compute.run([(STUDY, cell) for cell in [*cells, cells[0]]], store, show=False)
    assert not outcome.failed, outcome.failed
    assert len(outcome.computed) == len(cells)
    assert outcome.cpu_seconds[STUDY] > 0
    return store


def wait_for_work(folder: Path, seconds: float = 240) -> None:
    """Wait until a command computes into a store."""
    until = time.monotonic() + seconds
    while not list(folder.glob("locks/*.lock")) and time.monotonic() < until:
        time.sleep(0.1)


def command(*words: str, **environment: str) -> "subprocess.Popen[str]":
    """Start ``hbanalysis`` with the given words in a process of its own."""
    script = "import sys; from hbanalysis import cli; cli.main(sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **environment},
    )
