"""One cell while it is computed: its device and data, its trainings, its phases, and its provenance in the end."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hbanalysis import checkpoints, data, training
from hbanalysis.errors import NumericalError
from hbanalysis.memory import keep_freed_memory
from hbanalysis.store import Store
from hbanalysis.store.locks import KeyLock
from hbanalysis.store.provenance import environment
from hbanalysis.studies.phases import Phases

CellProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        record: Its course.
        folder: Its checkpoints.
    """

    record: training.Record
    folder: Path

    @property
    def path(self) -> Path:
        """The checkpoint at the target, or of the last state."""
        return self.folder / f"{self.record.final}.safetensors"

    @property
    def diverged(self) -> bool:
        """Whether it ended at a loss that is not finite."""
        return self.record.status == "diverged"

    def load(self, model: nn.Module, name: str | None = None) -> nn.Module:
        """Write a checkpoint into the model, the one at ``path`` unless named, and return it in eval mode."""
        checkpoints.restore(model, self.folder / f"{name}.safetensors" if name else self.path)
        return model.eval()

    def demanded(self, label: str) -> "Trained":
        """Return the training itself.

        Raises:
            NumericalError: It diverged; the message carries the label.
        """
        if self.diverged:
            raise NumericalError(f"The training of {label} diverged. Use a smaller learning rate.")
        return self


class CellRun:
    """What computing a cell of any study needs besides its measurements.

    Args:
        config: The training that the cell begins with.
        store: Holds checkpoints and unfinished work.
        key: Of the cell; names its unfinished work.
        device: ``None`` means CUDA where present, else the CPU.
        progress: Called at safe points with phase and fraction; may raise to stop.

    Attributes:
        config: The training that the cell begins with.
        device: Where to compute.
        report: ``progress``, or a function that does nothing.
        work: The phases of the cell.
        samples: The training set.
    """

    def __init__(
        self,
        config: training.TrainingConfig,
        store: Store,
        key: str,
        device: str | None = None,
        progress: CellProgress | None = None,
    ) -> None:
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.report: CellProgress = progress or (lambda phase, fraction: None)
        keep_freed_memory()
        self.config, self._store = config, store
        self._training_seconds = 0.0
        self.work = Phases(store.work_folder(key), environment(self.device))
        self.samples = self._data("train", config.train_samples)

    def test(self, samples: int | None) -> data.Samples:
        """Return the first ``samples`` test samples, all if None."""
        return self._data("test", samples)

    def network(self) -> nn.Module:
        """Return the cell's network, freshly initialised."""
        return self.config.network_on(self.device)

    def part(self, begin: float, end: float) -> CellProgress:
        """Return a progress function for a stretch of the cell: it maps fractions 0 to 1 to ``begin`` to ``end``."""
        return lambda phase, fraction: self.report(phase, begin + (end - begin) * fraction)

    def train(self, end: float) -> Trained:
        """Train the cell's network, or take the training that is there; ``end`` is the cell's fraction done then."""
        return self.continued(self.config, self.config.key, self.part(0.0, end))

    def continued(
        self,
        config: training.TrainingConfig,
        key: str,
        report: CellProgress,
        phase: str = "training",
        folder: Path | None = None,
        **how: Any,
    ) -> Trained:
        """Run a training of any kind, or finish it; what was done so far is kept if ``report`` raises.

        Studies share trainings: a process that finds another at the same one waits for it.

        Args:
            config: The training.
            key: Names its checkpoints.
            report: Told the phase and the fraction of the training done.
            phase: What the progress calls it.
            folder: Where its checkpoints go instead of the store's folder for the key.
            how: See `training.train`.
        """

        def step(fraction: float) -> None:
            try:
                report(phase, fraction)
            except BaseException:
                self.work.save()
                raise

        folder = folder or self._store.checkpoint_folder(key)
        lock = KeyLock(self._store.root, f"training-{key}")
        lock.acquire(check=partial(report, f"waiting for the same {phase}", 0.0))
        with lock:
            record = training.train(config, self.samples, folder, step, **how)
        self._training_seconds += record.seconds
        return Trained(record, folder)

    def provenance(self, trained: Trained) -> dict[str, Any]:
        """Return where and how long the cell was computed, and the checksum of the checkpoint that it is about."""
        return self.work.provenance(self._training_seconds, trained.record.checkpoints[trained.record.final])

    def _data(self, split: str, samples: int | None) -> data.Samples:
        return data.load(self.config.dataset, split, samples=samples, device=self.device)
