"""Rows and checkpoints on disk, found by the hash of what they are.

A row is one computed cell: its configuration, its values and where they came from. The key hashes study, revision and
configuration, so the same cell asked twice is computed once. Every write goes to a temporary file that is renamed.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import digest, write_atomically
from hbanalysis.folders import user_cache

SCHEMA = 1
STORE_VARIABLE = "HBANALYSIS_STORE"
PUBLISHED_VARIABLE = "HBANALYSIS_PUBLISHED"
_FIELDS = ("study", "scale", "revision", "key", "config", "values", "provenance")


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

    def to_json(self) -> str:
        """Return the row as text with sorted keys.

        Raises:
            StoreError: A value is not finite; rows hold ``null`` instead.
        """
        body = {"schema": SCHEMA, **{name: getattr(self, name) for name in _FIELDS}}
        try:
            return json.dumps(body, indent=1, sort_keys=True, allow_nan=False) + "\n"
        except ValueError as error:
            raise StoreError(f"Row {self.study}/{self.key} holds a number that is not finite: {error}") from error

    @classmethod
    def from_json(cls, text: str, where: str = "given text") -> "Row":
        """Read a row back; ``where`` names its file in errors.

        Raises:
            StoreError: Truncated or foreign text, an unknown schema, or a key that does not fit the configuration.
        """
        try:
            body = json.loads(text)
        except json.JSONDecodeError as error:
            raise StoreError(
                f"{where} is not a complete row ({error}). Delete it; the cell is computed again."
            ) from error
        if not isinstance(body, dict) or body.get("schema") != SCHEMA:
            found = body.get("schema") if isinstance(body, dict) else type(body).__name__
            raise StoreError(f"{where} has row schema {found!r}; this version reads schema {SCHEMA}.")
        missing = [name for name in _FIELDS if name not in body]
        if missing:
            raise StoreError(f"{where} is not a row: it lacks {', '.join(missing)}.")
        row = cls(**{name: body[name] for name in _FIELDS})
        if row.key != row_key(row.study, row.revision, row.config):
            raise StoreError(f"{where}: the key {row.key} does not fit its configuration; it was edited.")
        return row


def row_key(study: str, revision: int, config: Mapping[str, Any]) -> str:
    """Return the first 20 hexadecimal digits of the SHA-256 of study, revision and configuration."""
    return digest({"study": study, "revision": revision, "config": config})[:20]


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
    def _rows(self) -> Path:
        return self.root / "rows"

    def path(self, study: str, key: str) -> Path:
        """Return where a row lies or would lie."""
        return self._rows / study / f"{key}.json"

    def has(self, study: str, key: str) -> bool:
        """Tell whether a row is there, without reading it."""
        return self.path(study, key).is_file()

    def get(self, study: str, key: str) -> Row | None:
        """Return a row, or ``None`` if there is none.

        Raises:
            StoreError: The file is truncated, edited or foreign; names it.
        """
        path = self.path(study, key)
        return self._read(path) if path.is_file() else None

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
        return [self._read(path) for path in sorted(self._rows.glob(f"{study or '*'}/*.json"))]

    def checkpoint_folder(self, key: str) -> Path:
        """Return the folder of one training's checkpoints (made when written to)."""
        return self.root / "checkpoints" / key

    def work_folder(self, key: str) -> Path:
        """Return the folder of one cell's unfinished work (made when written to)."""
        return self.root / "work" / key

    def _read(self, path: Path) -> Row:
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
        beside = Path(__file__).resolve().parents[1] / "book" / "results"
        super().__init__(root or os.environ.get(PUBLISHED_VARIABLE) or beside)

    @property
    def _rows(self) -> Path:
        return self.root

    def put(self, row: Row) -> Path:
        """Refuse: published rows are written by `publish`.

        Raises:
            StoreError: Always.
        """
        raise StoreError(f"{self.root} holds published rows; use `hbanalysis publish` for {row.key}.")


def default_store() -> Store:
    """Return the local store of this user."""
    return Store()


def published() -> PublishedRows:
    """Return the rows that stand in the book."""
    return PublishedRows()


def publish(rows: Iterable[Row], root: Path | str | None = None) -> list[Path]:
    """Write rows into the book and return their paths.

    Raises:
        InputError: A row whose label is ``tiny``, made for tests.
        StoreError: The folder cannot be written.
    """
    chosen = list(rows)
    for row in chosen:
        if row.scale == "tiny":
            raise InputError(f"Row {row.key} has the scale 'tiny', made for tests; it is not published.")
    book = PublishedRows(root)
    paths = []
    for row in chosen:
        path = book.path(row.study, row.key)
        write_atomically(path, row.to_json())
        paths.append(path)
    return paths
