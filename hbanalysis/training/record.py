"""What a training leaves behind beside its weights: its course, and the names of its checkpoints."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from hbanalysis import checkpoints
from hbanalysis.errors import StoreError
from hbanalysis.files import digest

EPOCH_END = "epoch-end"
RECORD = "training.json"


@dataclass
class Record:
    """The course of a training; what `train` returns and keeps beside the checkpoints.

    Attributes:
        status: ``reached``, ``cap`` (target not reached in ``max_epochs``), ``finished`` (there was no target) or
            ``diverged``.
        epochs: Epochs until the target was crossed (a multiple of a quarter), or all of them; one in which the training
            diverged counts as a whole one.
        steps: Steps taken until then.
        crossings: For each threshold reached: threshold, epoch, step and the exact mean loss.
        history: For each epoch: epoch, step, running loss, learning rate.
        seconds: Wall time of the training steps and measurements.
        checkpoints: SHA-256 of each file by its stem.
    """

    status: str = "running"
    epochs: float = 0.0
    steps: int = 0
    crossings: list[dict[str, int | float]] = field(default_factory=list)
    history: list[dict[str, int | float]] = field(default_factory=list)
    seconds: float = 0.0
    checkpoints: dict[str, str] = field(default_factory=dict)

    @property
    def final(self) -> str:
        """Return the stem of the checkpoint at the target, or of the last state if it was not reached."""
        return stem(self.crossings[-1]["threshold"]) if self.status == "reached" else EPOCH_END


def stem(threshold: float) -> str:
    """Return the file stem of the checkpoint at the first crossing of a threshold."""
    return f"loss-{threshold:g}"


def load_record(folder: Path, *, check: bool = True) -> Record:
    """Return the record of a finished training.

    Args:
        folder: Its checkpoints.
        check: Compare the checkpoints with the SHA-256 that the record has of each.

    Raises:
        StoreError: The record or a checkpoint is not there, was edited or is of another kind; names the file.
    """
    path = folder / RECORD
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        seal = body.pop("sha256", None)
        if seal is not None and seal != digest(body, allow_nan=True):
            raise ValueError("its checksum does not fit; it was edited")
        body.pop("key", None)
        record = Record(**body)
        sums = [(folder / f"{name}.safetensors", expected) for name, expected in record.checkpoints.items()]
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"Cannot read {path}: {error}. Delete {folder} to train again.") from error
    for file, expected in sums:
        if file.parent != folder:
            raise StoreError(f"{path} names a checkpoint outside its folder: {file}. Delete {folder} to train again.")
        if check and not (file.is_file() and checkpoints.sha256(file) == expected):
            what = "does not fit the SHA-256 in its record; it was edited" if file.is_file() else "is missing"
            raise StoreError(f"The checkpoint {file} {what}. Delete {folder} to train again.")
    return record
