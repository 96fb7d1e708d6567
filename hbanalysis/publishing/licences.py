"""Licences of the pinned packages, read from what is installed and committed as a list.

``python -m hbanalysis.publishing.licences`` writes ``licences.csv`` beside ``constraints.txt`` anew; a test holds the
one against the other.
"""

import csv
import sys
from importlib import metadata
from pathlib import Path

from hbanalysis.errors import InputError
from hbanalysis.folders import PROJECT

PINS, FILE = PROJECT / "constraints.txt", PROJECT / "licences.csv"
COLUMNS = ("package", "version", "licence")
_CLASSIFIER = "License :: "
_BSD = ("Redistribution and use in source and binary forms", "Neither the names of")
_LONGEST = 80  # characters; a longer field holds the text of a licence, not its name


def pinned(path: Path = PINS) -> dict[str, str]:
    """Return the exact versions that a file of constraints names.

    Raises:
        InputError: A line is neither a comment nor ``name==version``.

    Example:
        >>> pinned()["torch"].split(".")[0]
        '2'
    """
    versions = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, version = line.partition("==")
        if not version:
            raise InputError(f"{path.name} pins exact versions, name==version; given {line!r}.")
        versions[name] = version
    return versions


def licence(name: str) -> str:
    """Return the licence that an installed package states: its expression, its field, or its classifiers.

    Some state none in their metadata and have a licence file alone; then it is that file's first line, or BSD-3-Clause
    where the file has the text of that licence without its name.

    Raises:
        InputError: The package is not installed, or says nothing of a licence.
    """
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError as error:
        raise InputError(f"{name} is not installed. Install what is pinned: pip install -r {PINS.name}.") from error
    fields = found.metadata
    stated = next((fields[name] for name in ("License-Expression", "License") if name in fields), "")
    if stated and stated != "UNKNOWN" and len(stated) <= _LONGEST and "\n" not in stated:
        return stated
    classified = [text.split(" :: ")[-1] for text in fields.get_all("Classifier") or () if text.startswith(_CLASSIFIER)]
    if classified:
        return "; ".join(classified)
    for file in found.files or ():
        if "licen" in file.name.lower():
            text = file.read_text(encoding="utf-8")
            unnamed = all(" ".join(words.split()) in " ".join(text.split()) for words in _BSD)
            return "BSD-3-Clause (its text)" if unnamed else text.strip().splitlines()[0].strip()
    raise InputError(f"{name} states no licence. Look at its source before it is pinned.")


def listed(path: Path = FILE) -> list[dict[str, str]]:
    """Return the committed list, a mapping of `COLUMNS` for each package.

    Example:
        >>> {"package", "version", "licence"} == set(listed()[0])
        True
    """
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path = FILE) -> None:
    """Write the list of what is pinned and installed.

    Raises:
        InputError: A package is not installed in its pinned version, or states no licence.
    """
    lines = []
    for name, version in pinned().items():
        stated = licence(name)
        if metadata.version(name) != version:
            raise InputError(f"{name} {version} is pinned and {metadata.version(name)} is installed.")
        lines.append((name, version, stated))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *lines])


if __name__ == "__main__":
    try:
        write()
    except InputError as error:
        sys.exit(f"error: {error}")
