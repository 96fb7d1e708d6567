"""Weights on disk as safetensors, written whole or not at all."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from hbanalysis.errors import StoreError
from hbanalysis.files import write_atomically

SEAL = "sha256"  # the note with the checksum of a state to resume from


def save(
    path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None, *, sealed: bool = False
) -> str:
    """Write named tensors with JSON ``notes`` and return the SHA-256 of the file.

    Args:
        path: The file.
        tensors: What to keep.
        notes: What to keep beside them.
        sealed: Put a checksum into the file itself, which `load` checks; for a file whose SHA-256 nobody records.

    Raises:
        StoreError: The folder cannot be written.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    noted = dict(notes or {})
    if sealed:
        noted[SEAL] = _seal(whole, noted)
    content = safetensors.torch.save(whole, {"notes": json.dumps(noted)})
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read named tensors and their notes.

    Raises:
        StoreError: The file is missing, truncated, not of this kind, or does not fit the checksum in it; names it.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise StoreError(f"Cannot read the checkpoint {path}: {error}. Delete it; it is computed again.") from error
    if not isinstance(notes, dict):
        raise StoreError(f"The checkpoint {path} is of another kind: its notes are no mapping.")
    seal = notes.pop(SEAL, None)
    if seal is not None and seal != _seal(tensors, notes):
        raise StoreError(f"The checkpoint {path} does not fit its checksum; it was edited. Delete it.")
    return tensors, notes


def restore(model: nn.Module, path: Path) -> None:
    """Load a model's state from a checkpoint.

    Raises:
        StoreError: The file is damaged or belongs to another network.
    """
    tensors, _ = load(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise StoreError(f"The checkpoint {path} does not fit the network: {error}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> str:
    # One key alone: the order of several in a file's header is not fixed.
    content = safetensors.torch.save(dict(tensors), {"notes": json.dumps(notes, sort_keys=True)})
    return hashlib.sha256(content).hexdigest()
