"""Curvature with running statistics and with those of each batch: a control that the paper lacks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from hbanalysis.batch_statistics import train_mode_hessian
from hbanalysis.eigen import eigsh
from hbanalysis.errors import require
from hbanalysis.lineup import COMMON, MODES, OWN
from hbanalysis.operators import WeightHessian
from hbanalysis.studies import spectrum_vs_batch
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.spectra import largest
from hbanalysis.training import TrainingConfig

NORMALISED = ("C1", "C2", "CR")  # the networks that have batch normalisation
_SMALLEST_TOLERANCE = 5e-2  # relative, of the smallest eigenvalue, which shows sign and size
_FIRST = ("0.weight", "0.bias")  # the convolution whose outputs are normalised first, after ReLU in C1 and C2


@dataclass(frozen=True)
class ModeMeasure:
    """What is measured on a trained network, in eval mode and in train mode.

    Attributes:
        eigenvalues: How many of the largest eigenvalues of the training loss.
        tolerance: Relative error allowed for each.
        samples: The first n training samples; ``None`` takes all. Where every batch size divides it, all modes see the
            same samples.
        common_batch: Samples that share statistics in the train mode that is the same for every training.
    """

    eigenvalues: int = 5
    tolerance: float = 1e-2
    samples: int | None = None
    common_batch: int = 128

    def __post_init__(self) -> None:
        require(self.eigenvalues >= 1, f"eigenvalues must be at least 1; given {self.eigenvalues}.")
        require(0 < self.tolerance < 1, f"tolerance must lie in (0, 1); given {self.tolerance}.")
        require(self.samples is None or self.samples >= 2, f"samples must be at least 2; given {self.samples}.")
        require(self.common_batch >= 2, f"common_batch must be at least 2; given {self.common_batch}.")


@dataclass(frozen=True)
class ModeCell:
    """One training and what is measured on it."""

    training: TrainingConfig
    measure: ModeMeasure

    def __post_init__(self) -> None:
        t, m = self.training, self.measure
        require(
            t.network in NORMALISED,
            f"network must be one with batch normalisation ({', '.join(NORMALISED)}); given {t.network!r}.",
        )
        for name, size in (("batch_sizes", t.batch_size), ("common_batch", m.common_batch)):
            require(
                2 <= size <= self.samples,
                f"{name} must lie in 2..{self.samples}, the samples measured; given {size}.",
            )

    @property
    def samples(self) -> int:
        """Number of training samples measured."""
        return min(self.measure.samples or self.training.samples, self.training.samples)


_TINY = TrainingConfig("digits", "C1", 8, train_samples=32, target_loss=0.5, max_epochs=60)
# Numbers of samples that all batch sizes divide: 1,024 for the first 1,000, 49,152 for all of CIFAR-10 but 848.
_MEASURES = {
    "tiny": ModeMeasure(1, 1e-1, 32, 16),
    "digits": ModeMeasure(2, 1e-2, 128, 64),
    "mnist": ModeMeasure(3, samples=1024),
    "small": ModeMeasure(3, samples=1024),
    "paper": ModeMeasure(samples=49_152),
}
# Scales whose trainings are this study's own: first training and batch sizes.
_TRAININGS = {
    "tiny": (_TINY, (8, 16)),
    "digits": (TrainingConfig("digits", "C1", 16, train_samples=256), (16, 128)),
    "mnist": (TrainingConfig("mnist", "C1", 32, train_samples=1024), (32, 128, 512)),
}


class BatchStatistics(Study):
    """Train C1 at several batch sizes; compare the Hessian in eval mode, the paper's, with that in train mode."""

    cell_type = ModeCell
    name = "batch_statistics"
    title = "Batch normalisation in a Hessian"
    revision = 1
    notebook = "16_batch_normalisation"
    scales: ClassVar[tuple[str, ...]] = ("digits", "mnist", "small", "paper")
    budget = 180.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "dataset", "network", "learning_rate", "target_loss", "max_epochs"),
        *("train_samples", "eigenvalues", "tolerance"),
    ) | {
        "samples": Parameter(int, "The first n training samples for the spectra.", least=2),
        "common_batch": Parameter(int, "Samples that share statistics in the common train mode.", least=2),
    }
    # Two threads move the first eigenvalue of eval mode by more than a band may hold: no band, the page says so.
    bands: ClassVar = {"train_own.spectrum.0": (0.25, 4.0)}

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        measure = changed(_MEASURES[scale], chosen)
        if scale in _TRAININGS:
            base, sizes = _TRAININGS[scale]
            found = [
                changed(base, {**chosen, "batch_size": size, "seed": seed})
                for size in chosen.get("batch_sizes", sizes)
                for seed in chosen.get("seeds", (0,))
            ]
        else:
            wanted = {"seeds": (0,), **chosen}
            if "network" not in chosen and "dataset" not in chosen:
                wanted |= {"network": "C1", "dataset": "cifar10"}
            found = [training for _, training in spectrum_vs_batch.trainings(scale, wanted)]
        return [ModeCell(training, measure) for training in dict.fromkeys(found)]

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: some 60 products in each of three modes, of 3.3 gradients each."""
        gradient = GRADIENT_SECONDS[cell.training.network] * cell.samples
        return Costs(training_seconds(cell.training), 3 * gradient * 3.3 * (50 + 2.2 * cell.measure.eigenvalues))

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        begin = self.costs(cell).share
        trained = run.train(begin)
        record = trained.record
        values: dict[str, Any] = {"status": record.status, "epochs": record.epochs}
        if trained.diverged:
            return values | dict.fromkeys(MODES), trained
        model, few = trained.load(run.network()), slice(0, cell.samples)
        x, y = run.samples.images[few], run.samples.labels[few]
        own, shared = cell.training.batch_size, cell.measure.common_batch
        for number, (name, size) in enumerate(zip(MODES, (None, own, shared), strict=True)):
            if name == COMMON and shared == own:
                values[COMMON] = values[OWN]
                continue
            place = partial(_tell, run.part(begin, 1.0), name, number)
            place(0.0)
            values[name] = run.work.once(name, partial(_measured, cell, model, x, y, size, place))
        return values, trained


def _tell(report: CellProgress, name: str, number: int, done: float) -> None:
    report(f"spectrum, {name}", min((number + done) / len(MODES), 0.99))


def _measured(
    cell: ModeCell, model: nn.Module, x: Tensor, y: Tensor, batch_size: int | None, place: Callable[[float], None]
) -> dict[str, Any]:
    """Return what the row holds of one mode: eval mode where there is no batch size, train mode otherwise."""
    if batch_size is None:
        H = WeightHessian(model, x, y)
    else:
        H = train_mode_hessian(model, x, y, batch_size, seed=cell.training.seed)
    m = cell.measure
    top = largest(H, m.eigenvalues, m.tolerance, lambda done: place(0.5 * done))
    lowest = eigsh(
        H,
        1,
        which="SA",
        tol=max(m.tolerance, _SMALLEST_TOLERANCE),
        check=False,
        show=lambda done, worst: place(0.5 + 0.5 * min(1.0, done / 60)),
    )
    filters = H.space.join(
        p.detach() if name in _FIRST else None for name, p in zip(H.space.names, H.space.tensors, strict=True)
    )
    filters, gradient = filters / filters.norm(), H.gradient().double()
    return {
        "batch_size": batch_size,
        "samples": round(H.total),
        **top,
        "smallest": float(lowest.values[0]),
        "smallest_bound": float(lowest.bounds[0]),
        "smallest_converged": lowest.converged,
        "smallest_products": lowest.products,
        "slope_along_filters": float(gradient @ filters.double()),
        "curvature_along_filters": float(filters.double() @ (H @ filters).double()),
    }
