"""What every study has: presets of cells by scale, checked parameters, keys and labels."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hbanalysis.errors import InputError, unknown_name
from hbanalysis.store import Row, Store, row_key

Cell = Any
CellProgress = Callable[[str, float], None]
PRIVATE_SCALE = "tiny"


@dataclass(frozen=True)
class Parameter:
    """A value of a preset that a user may replace.

    Attributes:
        type: ``int``, ``float``, ``str`` or ``list[int]`` and the like.
        help: What it is, units and range, in one line.
    """

    type: Any
    help: str

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
            InputError: Wrong type; says what was given and what is allowed.
        """
        item = self._item
        if item is None:
            return self._one(name, value, self.type)
        if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
            raise InputError(f"{name} must be a non-empty {self.type_name}; given {value!r}.")
        return tuple(self._one(name, entry, item) for entry in value)

    def _one(self, name: str, value: object, kind: type) -> Any:
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise InputError(f"{name} must be {self.type_name}; given {value!r} ({type(value).__name__}). {self.help}")
        return value


class Study(ABC):
    """One experiment: cells in, rows out.

    Attributes:
        name: Name of the study; its rows and folders carry it.
        title: Title for readers.
        revision: Raised when the code changes what a row means; part of the key.
        notebook: Stem of the notebook that tells it.
        scales: Public presets.
        parameters: What may be overridden.
        bands: For each compared value (dotted path into ``values``) the ratio here / published that counts as the same
            result on another machine.
        budget: CPU seconds that the study may take in the live book (scale ``digits``, first seed).
    """

    name: ClassVar[str]
    title: ClassVar[str]
    revision: ClassVar[int]
    notebook: ClassVar[str]
    scales: ClassVar[tuple[str, ...]]
    parameters: ClassVar[Mapping[str, Parameter]]
    bands: ClassVar[Mapping[str, tuple[float, float]]]
    budget: ClassVar[float]

    def cells(self, scale: str, **overrides: object) -> list[Cell]:
        """Return the cells of a preset, in reading order, with some of its values replaced.

        Args:
            scale: One of ``scales`` (or the private ``tiny``).
            overrides: Parameters by name; ``None`` leaves the preset's value.

        Raises:
            InputError: Unknown scale or parameter, wrong type, or a value out of range.
        """
        if scale not in (*self.scales, PRIVATE_SCALE):
            raise unknown_name("scale", scale, self.scales)
        chosen = {}
        for name, value in overrides.items():
            if name not in self.parameters:
                raise unknown_name(f"parameter of {self.name}", name, self.parameters)
            if value is not None:
                chosen[name] = self.parameters[name].checked(name, value)
        return self._cells(scale, chosen)

    def key(self, cell: Cell) -> str:
        """Return the key of a cell's row."""
        return row_key(self.name, self.revision, self.config(cell))

    def scale_of(self, cell: Cell) -> str:
        """Return the label of a cell: ``paper`` if it is a cell of the paper, its preset's name, or ``custom``."""
        key = self.key(cell)
        for scale in ("paper", *(s for s in self.scales if s != "paper"), PRIVATE_SCALE):
            if any(self.key(other) == key for other in self.cells(scale)):
                return scale
        return "custom"

    @abstractmethod
    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]: ...

    @abstractmethod
    def config(self, cell: Cell) -> dict[str, Any]:
        """Return the configuration of a cell as JSON data."""

    @abstractmethod
    def from_config(self, config: Mapping[str, Any]) -> Cell:
        """Return the cell of a configuration.

        Raises:
            InputError: The configuration does not belong to this study.
        """

    @abstractmethod
    def label(self, cell: Cell) -> str:
        """Return a short name for progress bars and tables."""

    @abstractmethod
    def cost(self, cell: Cell) -> float:
        """Return a rough estimate of CPU seconds on one thread, for order and progress."""

    @abstractmethod
    def compute(self, cell: Cell, store: Store, device: str | None = None, progress: CellProgress | None = None) -> Row:
        """Compute a cell, write its row into the store and return it.

        Args:
            cell: The cell.
            store: Receives the row; its checkpoints and unfinished work are reused.
            device: ``None`` means CUDA where present, else the CPU.
            progress: Called at safe points with the phase and the fraction of the cell done. An exception raised
                there stops the cell; what was done is kept and a later call goes on.
        """
