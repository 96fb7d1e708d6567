"""Files written whole or not at all, what a killed process leaves of them, and the digest of JSON data."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hbanalysis.errors import StoreError

PART = ".part"  # ends the name of a file that is being written


def digest(data: Any, *, allow_nan: bool = False) -> str:
    """Return the SHA-256 of JSON data in canonical form (sorted keys, no spaces).

    Args:
        data: JSON data.
        allow_nan: Take numbers that are not finite, too; keys never do.

    Raises:
        ValueError: A number is not finite and ``allow_nan`` is false.
    """
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old one or the complete new one, whenever the process is killed.

    Raises:
        StoreError: The folder cannot be written, or the disk is full; names the file and says what to try.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _temporary(path)
    except OSError as error:
        raise _unwritten(path, error) from error
    try:
        # Renamed before the file is closed: its lock tells `sweep` that somebody still writes.
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _unwritten(path, error) from error
        raise


def sweep(folder: Path) -> list[Path]:
    """Remove the unfinished files that killed processes left below a folder, and return their paths.

    A file that a living process writes is locked by it and stays; so does one that may not be removed.
    """
    removed = []
    # os.walk passes over folders that another process removes meanwhile.
    for place, _, names in os.walk(folder):
        for path in (Path(place) / name for name in sorted(names) if is_part(name)):
            with contextlib.suppress(OSError):
                handle = os.open(path, os.O_RDONLY)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed.append(path)
                finally:
                    os.close(handle)
    return removed


def is_part(name: str) -> bool:
    """Tell whether a file name is one that `write_atomically` uses until the file is whole."""
    return name.startswith(".") and name.endswith(PART)


def _temporary(path: Path) -> tuple[int, str]:
    while True:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=PART)
        # A file system without locks: `sweep` gets none either, and removes nothing.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)  # swept between its creation and its lock


def _unwritten(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Cannot write {path}: {error}. Choose a folder with --store or HBANALYSIS_STORE that may be written and has "
        "space left, and start again; nothing was changed."
    )
