"""Values of a preset that a user may replace: their types, checks and help."""

import math
from dataclasses import dataclass
from typing import Any

from hbanalysis.errors import InputError

_LARGEST = 1 << 1023  # whole numbers from here on may have no float


@dataclass(frozen=True)
class Parameter:
    """A value of a preset that a user may replace.

    Attributes:
        type: ``int``, ``float``, ``str`` or ``list[int]`` and the like.
        help: What it is, units and range, in one line.
        least: Smallest whole number allowed.
    """

    type: Any
    help: str
    least: int = 1

    @property
    def type_name(self) -> str:
        """Return the type as a reader writes it, such as ``list[int]``."""
        return self.type.__name__ if isinstance(self.type, type) and not self._item else str(self.type)

    @property
    def _item(self) -> type | None:
        return self.type.__args__[0] if getattr(self.type, "__origin__", None) is list else None

    def checked(self, name: str, value: object) -> Any:
        """Return ``value`` if it has the type (an int passes for a float), a list as a tuple.

        Raises:
            InputError: Wrong type, a number that is not finite, or a whole number that is too small; says what was
                given and what is allowed.
        """
        item = self._item
        if item is None:
            return self._one(name, value, self.type)
        if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
            raise InputError(f"{name} must be a non-empty {self.type_name}; given {value!r}.")
        return tuple(self._one(name, entry, item) for entry in value)

    def _one(self, name: str, value: object, kind: type) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < _LARGEST else math.inf
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{name} must be {self.type_name}; given {value!r} ({type(value).__name__}). {self.help}")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{name} must be a finite number; given {value!r}. {self.help}")
        if kind is int and isinstance(value, int) and value < self.least:
            raise InputError(f"{name} must be at least {self.least}; given {value!r}. {self.help}")
        return value


_COMMON = {
    "activation": Parameter(str, "relu, softplus(20) or elu(1)."),
    "batch_size": Parameter(int, "Samples a step, in 1..N."),
    "batch_sizes": Parameter(list[int], "Samples a step, each in 1..N."),
    "dataset": Parameter(str, "Name of the data set: digits, mnist, fashion_mnist, cifar10, ..."),
    "eigenvalues": Parameter(int, "How many of the largest eigenvalues of the training loss."),
    "eps_2": Parameter(float, "Size in the Euclidean norm, in units of [0, 1]."),
    "eps_inf": Parameter(float, "Size in the maximum norm, in units of [0, 1]."),
    "learning_rate": Parameter(float, "Initial learning rate, positive."),
    "max_epochs": Parameter(int, "Cap on epochs."),
    "momentum": Parameter(float, "Momentum in [0, 1)."),
    "network": Parameter(str, "C1, C2, C3, M1 or CR."),
    "reading": Parameter(str, "H1 or H2: how the paper's attacks are read."),
    "robust_epochs": Parameter(int, "Additional epochs with attacked images."),
    "schedule": Parameter(str, "constant, step(5, 0.5) or milestones(0.2, 30, 60)."),
    "seeds": Parameter(list[int], "Seeds of initialisation and order, at least 0.", least=0),
    "target_loss": Parameter(float, "Mean training loss that ends a training."),
    "test_samples": Parameter(int, "The first n test samples."),
    "tolerance": Parameter(float, "Relative error allowed for each eigenvalue."),
    "train_samples": Parameter(int, "The first n training samples."),
}


def common(*names: str) -> dict[str, Parameter]:
    """Return parameters that several studies have, by name."""
    return {name: _COMMON[name] for name in names}
