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


def save(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any] | None = None) -> str:
    """Write named tensors with JSON ``notes`` and return the SHA-256 of the file.

    Raises:
        StoreError: The folder cannot be written.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(whole, {"notes": json.dumps(notes or {})})
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read named tensors and their notes.

    Raises:
        StoreError: The file is missing, truncated or not of this kind; names it.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            notes = json.loads((file.metadata() or {}).get("notes", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, notes  # noqa: SIM118
    except (OSError, SafetensorError, json.JSONDecodeError) as error:
        raise StoreError(f"Cannot read the checkpoint {path}: {error}. Delete it; it is computed again.") from error


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
    return hashlib.sha256(path.read_bytes()).hexdigest()
