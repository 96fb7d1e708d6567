"""Rows with the checkpoints they were measured on, in one file: spectra can be checked elsewhere without retraining.

The file is a plain tar. Its first member, ``manifest.json``, names every other one with its SHA-256; nothing that the
manifest does not name is read, and nothing is written anywhere before everything was checked.
"""

import hashlib
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hbanalysis import studies
from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import write_atomically
from hbanalysis.store import Row, Store

FORMAT = 1
MANIFEST = "manifest.json"
_NAMES = re.compile(r"rows/[a-z0-9_]+/[0-9a-f]{20}\.json|checkpoints/[0-9a-f]{20}/[A-Za-z0-9.+-]+\.(safetensors|json)")


@dataclass(frozen=True)
class Contents:
    """What an archive holds.

    Attributes:
        rows: Its rows.
        checkpoints: How many trainings' checkpoints.
        sha256: Of the whole file.
    """

    rows: list[Row]
    checkpoints: int
    sha256: str


def write(target: Path, store: Store, rows: Iterable[Row]) -> Contents:
    """Write rows of a store with the checkpoints behind them.

    Args:
        target: The file; an old one is replaced at the end.
        store: Holds the checkpoints.
        rows: Rows of this store.

    Raises:
        InputError: No rows.
        StoreError: A checkpoint is missing, or the file cannot be written.
    """
    chosen = list(rows)
    if not chosen:
        raise InputError("There is nothing to put into the archive; see `hbanalysis status` for what the store holds.")
    keys = sorted({key for row in chosen for key in _trainings(row)})
    members = {f"rows/{row.study}/{row.key}.json": row.to_json().encode() for row in chosen}
    files: dict[str, Path] = {}
    for key in keys:
        folder = store.checkpoint_folder(key)
        found = sorted(p for p in folder.glob("*") if _NAMES.fullmatch(f"checkpoints/{key}/{p.name}"))
        if not (folder / "training.json").is_file():
            raise StoreError(f"{folder} holds no finished training, and a row needs it. Run its study again.")
        files |= {f"checkpoints/{key}/{path.name}": path for path in found}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in members.items()}
    sums |= {name: _sha256(path) for name, path in files.items()}
    manifest = json.dumps({"format": FORMAT, "sha256": sums}, indent=1, sort_keys=True).encode()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as beside:
            whole = Path(beside) / "archive"
            with tarfile.open(whole, mode="w") as tar:
                for member, content in {MANIFEST: manifest, **members}.items():
                    tar.addfile(_header(member, len(content)), io.BytesIO(content))
                for member, path in files.items():
                    with path.open("rb") as file:
                        tar.addfile(_header(member, path.stat().st_size), file)
            os.replace(whole, target)
    except OSError as error:
        raise StoreError(f"Cannot write {target}: {error}.") from error
    return Contents(chosen, len(keys), _sha256(target))


def read(source: Path, store: Store, sha256: str | None = None) -> Contents:
    """Check an archive and put its rows and checkpoints into a store; what is there already stays.

    Args:
        source: The file.
        store: Receives them.
        sha256: What the whole file should be, or begin with; None does not ask.

    Raises:
        InputError: The file is not the one of that checksum.
        StoreError: Not an archive, of an unknown format, or a member is missing, damaged or has no place in a store.
    """
    if not source.is_file():
        raise InputError(f"There is no file {source}.")
    whole = _sha256(source)
    if sha256 is not None and not whole.startswith(sha256.lower()):
        raise InputError(f"{source} has the SHA-256 {whole}; asked for {sha256}. It is another file, or was damaged.")
    try:
        with tarfile.open(source, mode="r:") as tar:
            sums = _manifest(tar, source)
            rows = []
            for name, expected in sums.items():
                content = _member(tar, name, source)
                if hashlib.sha256(content).hexdigest() != expected:
                    raise StoreError(f"{source}: {name} is damaged; its checksum is not that of the manifest.")
                if name.startswith("rows/"):
                    row = Row.from_json(content.decode("utf-8"), f"{source}: {name}")
                    if name != f"rows/{row.study}/{row.key}.json":
                        raise StoreError(f"{source}: {name} holds the row {row.study}/{row.key}.")
                    rows.append(row)
            for name in sums:
                path = store.root / name
                if name.startswith("checkpoints/") and not path.is_file():
                    write_atomically(path, _member(tar, name, source))
    except (tarfile.TarError, UnicodeDecodeError, EOFError) as error:
        raise StoreError(f"{source} is not a complete archive: {error}.") from error
    for row in rows:
        if not store.has(row.study, row.key):
            store.put(row)
    keys = {name.split("/")[1] for name in sums if name.startswith("checkpoints/")}
    return Contents(rows, len(keys), whole)


def _trainings(row: Row) -> list[str]:
    study = studies.get(row.study)
    return study.trainings(study.from_config(row.config))


def _manifest(tar: tarfile.TarFile, source: Path) -> dict[str, str]:
    first = tar.next()
    if first is None or first.name != MANIFEST:
        raise StoreError(f"{source} is not an archive of this project: it does not begin with {MANIFEST}.")
    try:
        found = json.loads(_member(tar, MANIFEST, source))
        known, sums = found["format"], dict(found["sha256"])
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{source}: its {MANIFEST} cannot be read: {error}.") from error
    if known != FORMAT:
        raise StoreError(f"{source} has archive format {known!r}; this version reads format {FORMAT}.")
    for name in sums:
        if not _NAMES.fullmatch(name):
            raise StoreError(f"{source} names {name!r}, which has no place in a store. Nothing was read from it.")
    return sums


def _member(tar: tarfile.TarFile, name: str, source: Path) -> bytes:
    try:
        found = tar.extractfile(tar.getmember(name))
    except KeyError:
        raise StoreError(f"{source} lacks {name}, which its manifest names.") from None
    if found is None:
        raise StoreError(f"{source}: {name} is not a plain file.")
    return found.read()


def _header(name: str, size: int) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o644
    return header


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
