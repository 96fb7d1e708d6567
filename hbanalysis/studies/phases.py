"""One cell's work in phases that are kept on disk one by one, so that an interrupted cell goes on with the next."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hbanalysis.errors import StoreError
from hbanalysis.files import write_atomically
from hbanalysis.store import finite
from hbanalysis.store.provenance import Stopwatch


class Phases:
    """Finished phases and the clock of one cell, on disk.

    Args:
        folder: Where they are kept.
        where: The provenance that is known at the start: device and versions.
    """

    def __init__(self, folder: Path, where: dict[str, Any]) -> None:
        self.folder, self._where = folder, where
        self._path = folder / "phases.json"
        notes: dict[str, Any] = {}
        if self._path.is_file():
            try:
                notes = json.loads(self._path.read_text())
            except json.JSONDecodeError as error:
                raise StoreError(f"Cannot read {self._path}: {error}. Delete it; the phases run again.") from error
        self.results: dict[str, Any] = notes.get("results", {})
        self.clock = Stopwatch(notes.get("seconds"), notes.get("cpu_seconds", 0.0))

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return the result of a phase, computed and kept the first time."""
        if name not in self.results:
            try:
                with self.clock.phase(name):
                    self.results[name] = finite(compute())
            finally:
                self.save()
        return self.results[name]

    def provenance(self, training_seconds: float, sha256: str) -> dict[str, Any]:
        """Return where and how long the cell was computed, and the checksum of its checkpoint."""
        seconds = {**self.clock.seconds, "training": training_seconds}
        return {
            **self._where,
            "seconds": {name: round(s, 1) for name, s in {**seconds, "total": sum(seconds.values())}.items()},
            "cpu_seconds": round(self.clock.cpu_seconds, 1),
            "checkpoint_sha256": sha256,
        }

    def save(self) -> None:
        """Keep results and clock."""
        notes = {
            "results": self.results,
            "seconds": self.clock.seconds,
            "cpu_seconds": self.clock.cpu_seconds,
        }
        write_atomically(self._path, json.dumps(notes))

    def discard(self) -> None:
        """Remove the folder: the row holds everything now."""
        shutil.rmtree(self.folder, ignore_errors=True)
