"""Tiny cells of studies: computed with their phases and models, or stopped at some phases and taken up again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import nn

from hbanalysis import checkpoints
from hbanalysis.errors import OutOfTimeError
from hbanalysis.store import Row, Store
from hbanalysis.studies import Study


class Computed(NamedTuple):
    """A cell with what came of it; ``model`` is the one at loss 0.5, which the row is about."""

    store: Store
    cell: Any
    row: Row
    phases: list[tuple[str, float]]
    model: nn.Module


def compute(study: Study, root: Path) -> Computed:
    """Compute the study's first tiny cell in a new store."""
    store, cell, phases = Store(root), study.cells("tiny")[0], []
    row = study.compute(cell, store, "cpu", lambda phase, fraction: phases.append((phase, fraction)))
    model = cell.training.network_on("cpu").eval()
    checkpoints.restore(model, store.checkpoint_folder(cell.training.key) / "loss-0.5.safetensors")
    return Computed(store, cell, row, phases, model)


def compute_with_stops(study: Study, cell: Any, store: Store, stops: Sequence[str]) -> Row:
    """Stop a cell when it first enters each of these phases, take it up again each time, and return its row.

    Before it is finished there is no row, afterwards no unfinished work.
    """
    left = list(stops)

    def stop(phase: str, fraction: float) -> None:
        if left and phase == left[0]:
            left.pop(0)
            raise OutOfTimeError

    for _ in stops:
        with pytest.raises(OutOfTimeError):
            study.compute(cell, store, "cpu", stop)
        assert not store.has(study.name, study.key(cell))
    row = study.compute(cell, store, "cpu", stop)
    assert not store.work_folder(study.key(cell)).exists()
    return row
