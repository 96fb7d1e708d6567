"""What every study has: presets of cells by scale, checked parameters, keys and labels."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from hbanalysis.errors import InputError, unknown_name
from hbanalysis.store import Row, Store, finite, row_key
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.cells import as_data, from_data
from hbanalysis.studies.costs import Costs
from hbanalysis.studies.parameters import Parameter

Cell = Any
PRIVATE_SCALE = "tiny"


class Study(ABC):
    """One experiment: cells in, rows out.

    Attributes:
        cell_type: The frozen dataclass of its cells, JSON data all through, with a field ``training``.
        name: Name of the study; its rows and folders carry it.
        title: Title for readers.
        revision: Raised when the code changes what a row means; part of the key.
        notebook: Stem of the notebook that tells it.
        elsewhere: Stems of other notebooks that show its rows on some data sets, by data set.
        scales: Public presets.
        parameters: What may be overridden.
        bands: For each compared value (dotted path into ``values``) the ratio here / published that counts as the same
            result on another machine.
        budget: CPU seconds that the study may take in the live book (scale ``digits``, first seed).
    """

    cell_type: ClassVar[type]
    name: ClassVar[str]
    title: ClassVar[str]
    revision: ClassVar[int]
    notebook: ClassVar[str]
    elsewhere: ClassVar[Mapping[str, str]] = {}
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
            InputError: Unknown scale or parameter, wrong type, a value out of range, or values that no cell of the
                preset has; the message names the parameter.
        """
        if scale not in (*self.scales, PRIVATE_SCALE):
            raise unknown_name("scale", scale, self.scales)
        chosen = {}
        for name, value in overrides.items():
            if name not in self.parameters:
                raise unknown_name(f"parameter of {self.name}", name, self.parameters)
            if value is not None:
                chosen[name] = self.parameters[name].checked(name, value)
        try:
            found = self._cells(scale, chosen)
        except InputError as error:
            if any(name in str(error) for name in chosen):
                raise
            raise InputError(f"{error} It comes from {_listed(chosen)}.") from error
        if chosen and not found:
            raise InputError(
                f"No cell of {self.name} at scale {scale!r} has {_listed(chosen)}; leave some of them out."
            )
        return found

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
    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        """Return what the row of a cell holds, and the training that it is about."""

    def values(self, cell: Cell, run: CellRun) -> dict[str, Any]:
        """Return what the row of a cell holds, computed by a run of the caller's, and write no row."""
        return finite(self._values(cell, run)[0])

    def config(self, cell: Cell) -> dict[str, Any]:
        """Return the configuration of a cell as JSON data."""
        return as_data(cell)

    def from_config(self, config: Mapping[str, Any]) -> Cell:
        """Return the cell of a configuration.

        Raises:
            InputError: The configuration does not belong to this study.
        """
        return from_data(self.cell_type, config, f"configuration of {self.name}")

    def trainings(self, cell: Cell) -> list[str]:
        """Return the keys of the checkpoints that a cell's row rests on."""
        return [cell.training.key]

    def label(self, cell: Cell) -> str:
        """Return a short name for progress bars and tables: its setting, and the seed."""
        return f"{self.setting(cell)} seed {cell.training.seed}"

    def setting(self, cell: Cell) -> str:
        """Return what cells that differ in the seed share: network, activation, data set, what tells them apart."""
        t = cell.training
        network = t.network if t.activation == "relu" else f"{t.network} {t.activation}"
        return f"{network} {t.dataset} {self.distinction(cell)}"

    def page(self, cell: Cell) -> str:
        """Return the stem of the notebook that shows a cell's row."""
        return self.elsewhere.get(cell.training.dataset, self.notebook)

    def distinction(self, cell: Cell) -> str:
        """Return what tells a cell from others of its network, data set and seed: here the batch size."""
        return f"B={cell.training.batch_size}"

    @abstractmethod
    def costs(self, cell: Cell) -> Costs:
        """Return rough estimates of CPU seconds on one thread, of training and of measuring."""

    def cost(self, cell: Cell) -> float:
        """Return a rough estimate of CPU seconds on one thread, for order and progress."""
        return sum(self.costs(cell))

    def compute(self, cell: Cell, store: Store, device: str | None = None, progress: CellProgress | None = None) -> Row:
        """Compute a cell, write its row into the store and return it.

        Args:
            cell: The cell.
            store: Receives the row; its checkpoints and unfinished work are reused.
            device: ``None`` means CUDA where present, else the CPU.
            progress: Called at safe points with the phase and the fraction of the cell done. An exception raised
                there stops the cell; what was done is kept and a later call goes on.
        """
        run = CellRun(cell.training, store, self.key(cell), device, progress)
        values, trained = self._values(cell, run)
        row = Row(
            self.name,
            self.scale_of(cell),
            self.revision,
            self.key(cell),
            self.config(cell),
            finite(values),
            run.provenance(trained),
        )
        store.put(row)
        run.work.discard()
        return row


def _listed(chosen: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={list(value) if isinstance(value, tuple) else value!r}" for name, value in chosen.items())
