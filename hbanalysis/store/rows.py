"""Rows and checkpoints on disk, found by the hash of what they are.

A row is one computed cell: its configuration, its values and where they came from. The key hashes study, revision and
configuration, so the same cell asked twice is computed once. Every write goes to a temporary file that is renamed.

A row's file carries its schema. Schema 2 has a checksum of everything else in the row, so that an edited value is
found; schema 1, which had none, is still read.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import digest, sweep, write_atomically
from hbanalysis.folders import PROJECT, user_cache

SCHEMA = 2
SCHEMAS = (1, SCHEMA)  # those that can be read
STORE_VARIABLE = "HBANALYSIS_STORE"
PUBLISHED_VARIABLE = "HBANALYSIS_PUBLISHED"
_FIELDS = {
    "study": str,
    "scale": str,
    "revision": int,
    "key": str,
    "config": dict,
    "values": dict,
    "provenance": dict,
}
# Studies and keys become names of files and folders: no separators, no dots, so that none leads out of the store.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True)
class Row:
    """One computed cell.

    Attributes:
        study: Name of the study.
        scale: Label: ``paper``, a preset's name or ``custom``; not part of the key.
        revision: Revision of the study's code that made it.
        key: See `row_key`.
        config: The configuration, JSON data.
        values: The results, JSON data; ``None`` where a number is missing or not finite.
        provenance: Device, versions, threads, date, seconds, commit, checksum of the checkpoint.
        origin: ``"here"`` or ``"published"``; says where the row was read and is not stored.
    """

    study: str
    scale: str
    revision: int
    key: str
    config: dict[str, Any]
    values: dict[str, Any]
    provenance: dict[str, Any]
    origin: str = field(default="here", compare=False)

    def to_json(self, schema: int = SCHEMA) -> str:
        """Return the row as text with sorted keys.

        Args:
            schema: 2, with the checksum, as files are written; 1, without it, is what pages print digests of.

        Raises:
            StoreError: A value is not finite; rows hold ``null`` instead.
        """
        body = {name: getattr(self, name) for name in _FIELDS}
        try:
            if schema > 1:
                body["sha256"] = digest(body)
            return json.dumps({"schema": schema, **body}, indent=1, sort_keys=True, allow_nan=False) + "\n"
        except ValueError as error:
            raise StoreError(f"Row {self.study}/{self.key} holds a number that is not finite: {error}") from error

    @classmethod
    def from_json(cls, text: str, where: str = "given text") -> "Row":
        """Read a row back; ``where`` names its file in errors.

        Raises:
            StoreError: Truncated, edited or foreign text, an unknown schema, a key that does not fit the
                configuration, or a name that would lead out of the store.
        """
        try:
            body = json.loads(text, parse_constant=_number, parse_float=_number)
        except (ValueError, RecursionError) as error:
            raise StoreError(
                f"{where} is not a complete row ({error}). Delete it; the cell is computed again."
            ) from error
        schema = body.get("schema") if isinstance(body, dict) else type(body).__name__
        if not isinstance(body, dict) or type(schema) is not int or schema not in SCHEMAS:
            known = " and ".join(map(str, SCHEMAS))
            raise StoreError(f"{where} has row schema {schema!r}; this version reads schemas {known}.")
        missing = [name for name in (*_FIELDS, *(["sha256"] if schema > 1 else [])) if name not in body]
        if missing:
            raise StoreError(f"{where} is not a row: it lacks {', '.join(missing)}.")
        for name, kind in _FIELDS.items():
            if type(body[name]) is not kind:
                found = type(body[name]).__name__
                raise StoreError(f"{where} is not a row: {name} must be {kind.__name__}, and is {found}.")
        for name in ("study", "key"):
            if not _NAME.fullmatch(body[name]):
                raise StoreError(f"{where}: {name} {body[name]!r} is no plain name and could lead out of the store.")
        row = cls(**{name: body[name] for name in _FIELDS})
        if row.key != row_key(row.study, row.revision, row.config):
            raise StoreError(f"{where}: the key {row.key} does not fit its configuration; it was edited.")
        if schema > 1 and body["sha256"] != digest({name: body[name] for name in _FIELDS}):
            raise StoreError(
                f"{where}: the checksum does not fit its content; it was edited. Delete it; the cell is computed again."
            )
        return row


def row_key(study: str, revision: int, config: Mapping[str, Any]) -> str:
    """Return the first 20 hexadecimal digits of the SHA-256 of study, revision and configuration."""
    return digest({"study": study, "revision": revision, "config": config})[:20]


def plain_name(kind: str, name: str) -> str:
    """Return a name that becomes part of a path in the store.

    Raises:
        InputError: It has a separator, a dot or anything else but letters, digits, ``_`` and ``-``.

    Example:
        >>> plain_name("key", "0058dd802cbf410ac33f")
        '0058dd802cbf410ac33f'
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"The {kind} {name!r} could lead out of the store. Use letters, digits, '_' and '-' only, at most 100."
        )
    return name


def finite(data: Any) -> Any:
    """Return JSON data with every number that is not finite replaced by ``None``."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return data


class Store:
    """A folder of rows and checkpoints.

    Args:
        root: The folder; ``None`` means ``HBANALYSIS_STORE``, else the user's cache folder. It is made when needed.
    """

    origin = "here"

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get(STORE_VARIABLE) or user_cache() / "store").absolute()

    @property
    def row_folder(self) -> Path:
        """The folder of the rows, one folder a study below it."""
        return self.root / "rows"

    def path(self, study: str, key: str) -> Path:
        """Return where a row lies or would lie.

        Raises:
            InputError: A name that could lead out of the store.
        """
        return self.row_folder / plain_name("study", study) / f"{plain_name('key', key)}.json"

    def has(self, study: str, key: str) -> bool:
        """Tell whether a row is there, without reading it."""
        return self.path(study, key).is_file()

    def get(self, study: str, key: str) -> Row | None:
        """Return a row, or ``None`` if there is none.

        Raises:
            StoreError: The file is truncated, edited or foreign; names it.
        """
        path = self.path(study, key)
        return self.read(path) if path.is_file() else None

    def put(self, row: Row) -> Path:
        """Write a row and return its path.

        Raises:
            StoreError: The folder cannot be written, or a value is not finite.
        """
        path = self.path(row.study, row.key)
        write_atomically(path, row.to_json())
        return path

    def rows(self, study: str | None = None) -> list[Row]:
        """Return every row, or those of one study, in the order of their keys.

        Raises:
            StoreError: A file is truncated, edited or foreign; names it.
        """
        folder = "*" if study is None else plain_name("study", study)
        return [self.read(path) for path in sorted(self.row_folder.glob(f"{folder}/*.json"))]

    def checkpoint_folder(self, key: str) -> Path:
        """Return the folder of one training's checkpoints (made when written to)."""
        return self.root / "checkpoints" / plain_name("key", key)

    def work_folder(self, key: str) -> Path:
        """Return the folder of one cell's unfinished work (made when written to)."""
        return self.root / "work" / plain_name("key", key)

    def discard_work(self, key: str) -> None:
        """Remove what a cell that has its row left of unfinished work, as a process killed at that moment does."""
        shutil.rmtree(self.work_folder(key), ignore_errors=True)

    def read(self, path: Path) -> Row:
        """Read the row in a file of this store.

        Raises:
            StoreError: The file is truncated, edited, foreign or not where its row belongs; names it.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"Cannot read {path}: {error}.") from error
        row = Row.from_json(text, str(path))
        if path.stem != row.key or path.parent.name != row.study:
            raise StoreError(f"{path} holds the row {row.study}/{row.key}; it was moved or renamed.")
        return replace(row, origin=self.origin)


class PublishedRows(Store):
    """The rows that stand in the book, ``book/results/<study>/<key>.json``; written by `publish` alone."""

    origin = "published"

    def __init__(self, root: Path | str | None = None) -> None:
        super().__init__(root or os.environ.get(PUBLISHED_VARIABLE) or PROJECT / "book" / "results")

    @property
    def row_folder(self) -> Path:
        """The folder of the rows: the root itself."""
        return self.root

    def put(self, row: Row) -> Path:
        """Refuse: published rows are written by `publish`.

        Raises:
            StoreError: Always.
        """
        raise StoreError(f"{self.root} holds published rows; use `hbanalysis publish` for {row.key}.")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not finite")
    return value


def default_store() -> Store:
    """Return the local store of this user."""
    return Store()


def published() -> PublishedRows:
    """Return the rows that stand in the book."""
    return PublishedRows()


def publish(rows: Iterable[Row], root: Path | str | None = None) -> list[Path]:
    """Write rows into the book and return their paths; what a killed publish left unfinished is removed first.

    Raises:
        InputError: A row whose label is ``tiny``, made for tests.
        StoreError: The folder cannot be written.
    """
    chosen = list(rows)
    for row in chosen:
        if row.scale == "tiny":
            raise InputError(f"Row {row.key} has the scale 'tiny', made for tests; it is not published.")
    book = PublishedRows(root)
    sweep(book.root)
    paths = []
    for row in chosen:
        path = book.path(row.study, row.key)
        write_atomically(path, row.to_json())
        paths.append(path)
    return paths
