"""Goes through every file of a store, and of the data sets beside it, and names those that cannot be trusted.

A row has a checksum of its content in itself, a checkpoint has its SHA-256 in the record of its training, that record
has a checksum of its own, and so has a state to resume from. Finished phases of an unfinished cell have none: they are
checked for being complete only. Files of data sets are compared with their published checksums.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbanalysis import checkpoints, data, data_files, studies, training
from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import is_part
from hbanalysis.store import Row, Store

PHASES = "phases.json"
_FOREIGN = "foreign: nothing that this version writes here"


@dataclass
class Report:
    """What `check` found.

    Attributes:
        root: The folder of the store.
        checked: How many files of each kind were looked at.
        damaged: Why a file cannot be trusted, by its path.
        notes: What is no damage and worth knowing, by path.
    """

    root: Path
    checked: dict[str, int] = field(default_factory=dict)
    damaged: dict[Path, str] = field(default_factory=dict)
    notes: dict[Path, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 if every file can be trusted, else 1."""
        return 1 if self.damaged else 0

    def text(self) -> str:
        """Return one line a damaged file, one a note, and the counts."""
        lines = [f"DAMAGED {_about(path, why)}" for path, why in sorted(self.damaged.items())]
        lines += [f"note    {_about(path, why)}" for path, why in sorted(self.notes.items())]
        counts = ", ".join(f"{number} {kind}" for kind, number in self.checked.items()) or "no files"
        return "\n".join([*lines, f"{self.root}: {counts} checked, {len(self.damaged)} damaged."])


def check(store: Store, data_root: Path | None = None) -> Report:
    """Look at every file of a store and of the data sets that are in a folder. Cost: each is read once.

    Args:
        store: The store; one of published rows has rows only.
        data_root: The folder of the data sets; ``None`` passes over them.

    Raises:
        InputError: There is no such folder.
    """
    for folder in (store.root, data_root):
        if folder is not None and not folder.is_dir():
            raise InputError(f"There is no folder {folder}. Name one that exists with --store, or --root for data.")
    report = Report(store.root)
    rows = _rows(store, report)
    if store.row_folder != store.root:
        sums = _checkpoints(store, report)
        _work(store, report)
        _strangers(store, report)
        for path, row in rows.items():
            sha256 = row.provenance.get("checkpoint_sha256")
            if sha256 is not None and sha256 not in sums:
                report.notes[path] = f"its checkpoint, SHA-256 {sha256}, is not in this store (any more)"
    if data_root is not None:
        _data(data_root, report)
    return report


def _rows(store: Store, report: Report) -> dict[Path, Row]:
    rows = {}
    for path in _files(store.row_folder, report, depth=2, suffix=".json"):
        _count(report, "rows")
        try:
            row = store.read(path)
            _fit(row, path)
        except StoreError as error:
            report.damaged[path] = str(error)
            continue
        rows[path] = row
        if json.loads(path.read_text(encoding="utf-8"))["schema"] == 1:
            report.notes[path] = "schema 1 has no checksum; an edited value would not be found"
        elif row.revision != studies.get(row.study).revision:
            report.notes[path] = f"revision {row.revision} of its study, which is at another now; it is not used"
    return rows


def _fit(row: Row, path: Path) -> None:
    """Raise unless the row belongs to a study of this version and its configuration is one of that study's cells."""
    try:
        study = studies.get(row.study)
        if row.revision > study.revision:
            raise StoreError(
                f"{path} is of revision {row.revision} of {row.study}; this version knows {study.revision}."
            )
        if row.revision == study.revision and study.key(study.from_config(row.config)) != row.key:
            raise StoreError(f"{path}: the key {row.key} does not fit the cell of its configuration.")
    except InputError as error:
        raise StoreError(f"{path} is of no study of this version: {error}") from error


def _checkpoints(store: Store, report: Report) -> set[str]:
    """Check every training and return the SHA-256 of the checkpoints that can be trusted."""
    sums: set[str] = set()
    found: dict[Path, list[Path]] = {}
    for path in _files(store.root / "checkpoints", report, depth=2):
        found.setdefault(path.parent, []).append(path)
    for folder, paths in found.items():
        _count(report, "checkpoints", len(paths))
        expected = _record(folder, report) if folder / training.RECORD in paths else None
        for path in paths:
            if path.name == training.RECORD:
                continue
            if path.suffix != ".safetensors":
                report.damaged[path] = _FOREIGN
            elif path.name == training.RESUME or expected is None:
                _readable(path, report)
            elif path.stem not in expected:
                report.damaged[path] = f"foreign: not in {folder / training.RECORD}"
            elif (sha256 := checkpoints.sha256(path)) != expected[path.stem]:
                report.damaged[path] = f"SHA-256 {sha256}; its record says {expected[path.stem]}"
            else:
                sums.add(sha256)
        for stem in expected or ():
            if folder / f"{stem}.safetensors" not in paths:
                report.damaged[folder / f"{stem}.safetensors"] = f"missing; {training.RECORD} names it"
    return sums


def _record(folder: Path, report: Report) -> dict[str, str] | None:
    path = folder / training.RECORD
    try:
        record = training.load_record(folder, check=False)
    except StoreError as error:
        report.damaged[path] = str(error)
        return None
    body = json.loads(path.read_text(encoding="utf-8"))
    if body.get("key", folder.name) != folder.name:
        report.damaged[path] = f"belongs to the training {body['key']}; the folder was moved or renamed"
    elif "sha256" not in body:
        report.notes[path] = "written before records had a checksum; an edited one would not be found"
    return record.checkpoints


def _work(store: Store, report: Report) -> None:
    for path in _files(store.root / "work", report, depth=2):
        _count(report, "files of unfinished work")
        if path.suffix == ".safetensors":
            _readable(path, report)
        elif path.name == PHASES:
            _phases(path, report)
        else:
            report.damaged[path] = _FOREIGN


def _phases(path: Path, report: Report) -> None:
    try:
        body: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        report.damaged[path] = f"not complete: {error}"
        return
    if not isinstance(body, dict) or not isinstance(body.get("results"), dict):
        report.damaged[path] = _FOREIGN


def _readable(path: Path, report: Report) -> None:
    try:
        _, notes = checkpoints.load(path)
    except StoreError as error:
        report.damaged[path] = str(error)
        return
    if path.name == training.RESUME and set(notes) != training.STATE_NOTES:
        report.damaged[path] = "foreign: no state of a training"


def _strangers(store: Store, report: Report) -> None:
    """Name what lies in the root or among the locks and belongs to nothing."""
    for path in sorted(store.root.iterdir()):
        if path.name not in ("rows", "checkpoints", "work", "locks") or not path.is_dir():
            _stranger(path, report)
    _count(report, "locks", len(list(_files(store.root / "locks", report, depth=1, suffix=".lock"))))


def _stranger(path: Path, report: Report) -> None:
    if is_part(path.name):
        report.notes[path] = "unfinished; removed by the next run unless a process is writing it now"
    else:
        report.damaged[path] = _FOREIGN


def _files(folder: Path, report: Report, depth: int, suffix: str = "") -> Iterator[Path]:
    """Yield the files of one kind ``depth`` levels below a folder; everything else is foreign or unfinished."""
    for path in sorted(folder.rglob("*")):
        level = len(path.relative_to(folder).parts)
        if path.is_dir() and level < depth:
            continue
        if level == depth and path.is_file() and path.name.endswith(suffix) and not path.name.startswith("."):
            yield path
        else:
            _stranger(path, report)


def _data(root: Path, report: Report) -> None:
    for loader in dict.fromkeys(data.describe(name).loader for name in data.names()):
        if loader is not None:
            there = [file for file in data_files.files(loader, root) if file.path.is_file()]
            _count(report, "files of data sets", len(there))
            report.damaged.update(data_files.damaged(loader, root))


def _count(report: Report, kind: str, number: int = 1) -> None:
    if number:
        report.checked[kind] = report.checked.get(kind, 0) + number


def _about(path: Path, why: str) -> str:
    return why if str(path) in why else f"{path}: {why}"
