"""Files written whole or not at all, and the digest of JSON data."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from hbanalysis.errors import StoreError


def digest(data: Any) -> str:
    """Return the SHA-256 of JSON data in canonical form (sorted keys, no spaces)."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it is either the old one or the complete new one.

    Raises:
        StoreError: The folder cannot be written; names it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"Cannot write {path}: {error}. Choose a folder with --store or HBANALYSIS_STORE.") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise StoreError(f"Cannot write {path}: {error}.") from error
        raise
