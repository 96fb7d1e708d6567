"""Guesses of one thread's CPU seconds; they order the work and feed progress bars only."""

from typing import NamedTuple

from hbanalysis.training import TrainingConfig

GRADIENT_SECONDS = {"M1": 2e-4, "C1": 2.8e-3, "C2": 4e-3, "C3": 4e-3, "CR": 3e-2}  # of one sample


class Costs(NamedTuple):
    """Seconds of training and of measuring."""

    training: float
    measuring: float

    @property
    def share(self) -> float:
        """The share of training."""
        return self.training / (self.training + self.measuring)


def gradient_seconds(config: TrainingConfig) -> float:
    """Guess the seconds of one gradient over the training samples."""
    return GRADIENT_SECONDS[config.network] * config.samples


def training_seconds(config: TrainingConfig) -> float:
    """Guess the seconds of a training: to its target, with epochs as seen on digits and MNIST, else all of its epochs.

    Example:
        >>> config = TrainingConfig("mnist", "M1", 64, target_loss=None, max_epochs=10)
        >>> training_seconds(config) == 10 * gradient_seconds(config) * (1 + 8 / 64)
        True
    """
    epochs: float = config.max_epochs
    if config.target_loss is not None:
        epochs = 38 * (config.batch_size / 64) ** 0.7 * (1433 / config.samples) ** 0.3
    return gradient_seconds(config) * epochs * (1 + 8 / config.batch_size)
