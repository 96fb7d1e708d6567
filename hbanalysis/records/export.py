"""Rows as one tidy CSV file, with a dictionary that says what every column and quantity means."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hbanalysis.errors import InputError
from hbanalysis.records.dictionary import CONFIGURATION, meaning
from hbanalysis.store import Row

LEADING = {
    "key": "identifies the cell: hash of the study, its revision and the configuration",
    "study": "the study the row belongs to",
    "scale": "label: paper (a cell of the paper), the name of a preset, or custom",
    "origin": "published (committed with the project) or here (computed in the local store)",
    "revision": "the study's revision; raised when its code changes meaning",
}
TRAILING = {
    "quantity": "what was measured: a dotted path, a number in it counting from 0 into a list",
    "value": "the measured value; accuracies and epsilons are fractions in [0, 1]",
}


def long_lines(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield one line for every measured value of every row, the configuration beside it."""
    for row in rows:
        fixed = {name: getattr(row, name) for name in LEADING}
        fixed |= {name: _text(value) for name, value in _two_levels(row.config)}
        for quantity, value in _leaves(row.values):
            yield fixed | {"quantity": quantity, "value": value}


def write(rows: Iterable[Row], target: Path | str) -> tuple[Path, Path]:
    """Write the rows as ``target`` and its dictionary beside it as ``<name>_dictionary.csv``.

    Raises:
        InputError: The target cannot be written, or is not named ``.csv``.
    """
    target = Path(target)
    if target.suffix != ".csv":
        raise InputError(f"The export is a CSV file; given {str(target)!r}. Try {str(target.with_suffix('.csv'))!r}.")
    lines = list(long_lines(rows))
    configuration = sorted({name for line in lines for name in line} - {*LEADING, *TRAILING})
    columns = [*LEADING, *configuration, *TRAILING]
    dictionary = target.with_name(f"{target.stem}_dictionary.csv")
    _write(target, columns, lines)
    _write(dictionary, ["kind", "name", "meaning"], describe(columns, (line["quantity"] for line in lines)))
    return target, dictionary


def describe(columns: Iterable[str], quantities: Iterable[str]) -> list[dict[str, str]]:
    """Return the dictionary of the columns and quantities that occur; a list's items share one line.

    Example:
        >>> describe([], ["at_target.spectrum_train.0", "at_target.spectrum_train.1"])[0]["name"]
        'at_target.spectrum_train.*'
    """
    texts = LEADING | CONFIGURATION | TRAILING
    lines = [{"kind": "column", "name": name, "meaning": texts.get(name, "")} for name in columns]
    patterns = dict.fromkeys(pattern(quantity) for quantity in quantities)
    return lines + [{"kind": "quantity", "name": name, "meaning": meaning(name)} for name in patterns]


def pattern(quantity: str) -> str:
    """Return a quantity with its places in lists replaced by ``*``."""
    return ".".join("*" if step.isdigit() else step for step in quantity.split("."))


def _two_levels(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            yield name, value


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        if value is not None:
            yield path, value
        return
    for name, item in items:
        yield from _leaves(item, f"{path}.{name}" if path else str(name))


def _text(value: Any) -> Any:
    return " ".join(str(item) for item in value) if isinstance(value, list) else value


def _write(target: Path, columns: list[str], lines: Iterable[Mapping[str, Any]]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(lines)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error.strerror}. Name a file you may write to.") from error
