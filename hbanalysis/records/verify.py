"""Recomputes one published row from its own configuration, in a store of its own, and compares."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hbanalysis import studies
from hbanalysis.errors import InputError, unknown_name
from hbanalysis.records import comparison
from hbanalysis.running import compute
from hbanalysis.store import Row, Store, published


@dataclass(frozen=True)
class Verification:
    """A published row, the row recomputed here (None if it could not be), and the comparison of both."""

    published: Row
    here: Row | None
    compared: pd.DataFrame
    outcome: compute.Outcome

    @property
    def exit_code(self) -> int:
        """0 if every value is inside its band, 1 if not or if the computation failed, 130 interrupted."""
        if self.here is None:
            return self.outcome.exit_code or 1
        return 0 if len(self.compared) and bool(self.compared["inside"].all()) else 1


def find(name: str) -> Row:
    """Return a published row by its key, the beginning of it, ``study/key`` or the path of its file.

    Raises:
        InputError: No row, or more than one, is meant.
    """
    wanted = Path(name).stem if name.endswith(".json") else name.rpartition("/")[2]
    rows = published().rows()
    found = [row for row in rows if wanted and row.key.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{name!r} could be {', '.join(row.key for row in found)}; give more of the key.")
    if not rows:
        raise InputError(f"No row is published yet below {published().root}.")
    raise unknown_name("published row", name, [row.key for row in rows])


def verify(name: str, *, device: str | None = None, threads: int = 1, show: bool | None = None) -> Verification:
    """Recompute a published row from scratch and compare it.

    Args:
        name: The row; see `find`.
        device: Where to compute; ``None`` lets the study choose.
        threads: Threads of the one worker process.
        show: ``False`` for no output on standard error.

    Raises:
        InputError: No such row, or it was made by another revision of its study.
    """
    row = find(name)
    study = studies.get(row.study)
    cell = study.from_config(row.config)
    if study.key(cell) != row.key:
        raise InputError(
            f"Row {row.key} was computed by revision {row.revision} of {row.study}; this is revision "
            f"{study.revision}. Verify it with the version of the project that published it "
            f"({row.provenance.get('hbanalysis')}, commit {row.provenance.get('commit')})."
        )
    with tempfile.TemporaryDirectory(prefix="hbanalysis-verify-") as folder:
        store = Store(folder)
        outcome = compute.run([(row.study, cell)], store, device=device, workers=1, threads=threads, show=show)
        here = store.get(row.study, row.key)
    return Verification(row, here, comparison.compare([here] if here else [], [row]), outcome)
