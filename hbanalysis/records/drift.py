"""How far rows of one cell lie apart: measured in float32 and in float64, or by other threads and versions."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import nn

from hbanalysis.data import Samples
from hbanalysis.records.export import pattern
from hbanalysis.store import Store
from hbanalysis.studies import Study
from hbanalysis.studies.base import Cell
from hbanalysis.studies.cell_run import CellRun

# What a row takes over from the record of its training: the measurement has no part in it.
OF_THE_TRAINING = ("status", "epochs", "steps", "samples", "replayed", "crossings", "history")
_DECIMALS = 3  # significant digits kept of a difference


class Spread(NamedTuple):
    """Relative differences of one quantity: how many numbers, their median and their maximum."""

    numbers: int
    median: float
    worst: float


def differences(here: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, list[float]]:
    r"""Return the relative differences of two rows' values, quantity by quantity.

    .. math:: d_i = \frac{|a_i - b_i|}{\max_j \max(|a_j|, |b_j|)}

    with :math:`j` over the entries of the quantity in these rows: a small eigenvalue beside a large one, or the loss
    in the middle of a landscape, is measured by the scale of its list. Texts, truth values and numbers that one side
    lacks differ by 0 or 1.

    Args:
        here: Values of a row, JSON data.
        reference: Values of the same cell's other row.

    Returns:
        Lists of differences in [0, 2] by quantity, its places in lists written as ``*``.

    Example:
        >>> differences({"lambda1": 2.0, "spectrum": [2.0, 0.5]}, {"lambda1": 2.0, "spectrum": [2.0, 0.25]})
        {'lambda1': [0.0], 'spectrum.*': [0.0, 0.125]}
    """
    mine, theirs = _leaves(here), _leaves(reference)
    groups: dict[str, list[tuple[Any, Any]]] = {}
    for path in dict.fromkeys([*theirs, *mine]):
        groups.setdefault(pattern(path), []).append((mine.get(path), theirs.get(path)))
    return {name: _relative(pairs) for name, pairs in groups.items()}


def spreads(found: Iterable[Mapping[str, list[float]]]) -> dict[str, Spread]:
    """Return the spread of every quantity over the differences of several cells, rounded to three digits.

    Example:
        >>> spreads([{"lambda1": [0.1]}, {"lambda1": [0.3]}, {"lambda1": [0.2]}])
        {'lambda1': Spread(numbers=3, median=0.2, worst=0.3)}
    """
    together: dict[str, list[float]] = {}
    for one in found:
        for name, values in one.items():
            together.setdefault(name, []).extend(values)
    return {
        name: Spread(len(values), _rounded(statistics.median(values)), _rounded(max(values)))
        for name, values in together.items()
    }


class DoubleRun(CellRun):
    """A cell whose measurements are computed in float64, on the trainings that its float32 run has finished.

    Model and data are cast; random numbers are the same, since all are drawn in float64. Measurements that the float32
    run left in the work folder are not reused.

    Args:
        given: As for `CellRun`.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.work.results.clear()
        self.samples = _double(self.samples)

    def test(self, samples: int | None) -> Samples:
        """Return the first ``samples`` test samples in float64."""
        return _double(super().test(samples))

    def network(self) -> nn.Module:
        """Return the cell's network in float64."""
        return super().network().double()


def drift(
    study: Study,
    cell: Cell,
    store: Store,
    device: str | None = None,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, list[float]]:
    """Measure a cell in float32 and in float64 on one and the same training; return the differences.

    Trainings are taken from the store, or run in float32 and left there. No row is written. What the row takes over
    from the training's record is left out: a training in float64 would be another one.

    Args:
        study: The study.
        cell: One of its cells.
        store: Holds the trainings.
        device: ``None`` means CUDA where present, else the CPU.
        progress: As for `Study.compute`.

    Returns:
        Relative differences by quantity; see `differences`.

    Raises:
        NumericalError: A training diverged, in studies that need one that did not.
    """
    found = []
    run: CellRun
    for kind in (CellRun, DoubleRun):
        run = kind(cell.training, store, study.key(cell), device, progress)
        values = study.values(cell, run)
        found.append({name: value for name, value in values.items() if name not in OF_THE_TRAINING})
    run.work.discard()
    return differences(*found)


def _double(samples: Samples) -> Samples:
    return replace(samples, images=samples.images.to(torch.float64))


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in items:
        found |= _leaves(inner, f"{path}.{name}" if path else str(name))
    return found


def _relative(pairs: list[tuple[Any, Any]]) -> list[float]:
    numbers = [abs(value) for pair in pairs for value in pair if _is_number(value)]
    largest = max(numbers, default=0.0)
    return [
        abs(a - b) / largest if _is_number(a) and _is_number(b) and a != b else float(a != b or type(a) is not type(b))
        for a, b in pairs
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DECIMALS - 1}e}")
