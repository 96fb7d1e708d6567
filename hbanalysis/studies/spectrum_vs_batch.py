"""Spectrum of the weight Hessian against batch size (paper, section 2: Table 1, Figs. 1 and 2)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

from hbanalysis.errors import InputError, require
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import Costs, gradient_seconds, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.trained_model import measure_trained_model
from hbanalysis.training import TrainingConfig


@dataclass(frozen=True)
class Measure:
    """What is measured on a trained network.

    Attributes:
        eigenvalues: How many of the largest eigenvalues of the training loss.
        test_eigenvalues: The same for the test loss, whose crowded spectrum costs more products.
        tolerance: Relative error allowed for each.
        epsilons: FGSM sizes in units of [0, 1].
        half_width: The landscape runs over t in [-half_width, half_width] along the first eigenvector.
        points: Number of values of t, odd so that 0 is one of them.
        test_samples: The first n test samples; ``None`` takes all.
    """

    eigenvalues: int = 20
    test_eigenvalues: int = 5
    tolerance: float = 1e-4
    epsilons: tuple[float, ...] = (0.1, 0.2)
    half_width: float = 0.5
    points: int = 21
    test_samples: int | None = None

    def __post_init__(self) -> None:
        require(self.eigenvalues >= 1, f"eigenvalues must be at least 1; given {self.eigenvalues}.")
        require(self.test_eigenvalues >= 1, f"test_eigenvalues must be at least 1; given {self.test_eigenvalues}.")
        require(0 < self.tolerance < 1, f"tolerance must lie in (0, 1); given {self.tolerance}.")
        require(
            bool(self.epsilons) and all(0 <= eps <= 1 for eps in self.epsilons),
            f"epsilons must be sizes in [0, 1]; given {list(self.epsilons)}.",
        )
        require(self.half_width > 0, f"half_width must be positive; given {self.half_width}.")
        require(
            self.points >= 3 and self.points % 2 == 1,
            f"points must be odd and at least 3; given {self.points}.",
        )


@dataclass(frozen=True)
class BatchSizeCell:
    """One training and what is measured on it."""

    training: TrainingConfig
    measure: Measure


@dataclass(frozen=True)
class Block:
    """A rectangle of cells: one network on one data set, batch sizes times seeds."""

    base: TrainingConfig
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    measure: Measure


_CIFAR_EPSILONS = (0.02, 0.01)
_M1 = TrainingConfig("mnist", "M1", 64)
_C1 = TrainingConfig("cifar10", "C1", 128)
_C2 = TrainingConfig("cifar10", "C2", 256)
_CR = TrainingConfig("cifar100", "CR", 64)
PRESETS: dict[str, tuple[Block, ...]] = {
    "tiny": (
        Block(
            TrainingConfig("digits", "M1", 50, train_samples=200, target_loss=0.5, max_epochs=30),
            (50, 100),
            (0,),
            Measure(eigenvalues=3, test_eigenvalues=1, tolerance=1e-2, epsilons=(0.1,), points=5, test_samples=100),
        ),
    ),
    "digits": (Block(TrainingConfig("digits", "M1", 16), (16, 64, 256), (0, 1, 2), Measure()),),
    "mnist": (Block(_M1, (64, 256, 1024), (0,), Measure()),),
    "small": (
        Block(
            TrainingConfig("cifar10", "C1", 32, train_samples=5000),
            (32, 128, 512),
            (0,),
            Measure(epsilons=_CIFAR_EPSILONS, test_samples=2000),
        ),
        Block(
            replace(_C2, train_samples=2000), (32, 128, 512), (0,), Measure(epsilons=_CIFAR_EPSILONS, test_samples=1000)
        ),
        Block(
            replace(_CR, train_samples=500),
            (16, 64),
            (0,),
            Measure(3, 1, tolerance=1e-3, epsilons=_CIFAR_EPSILONS, points=11, test_samples=250),
        ),
    ),
    "paper": (
        Block(
            _C1,
            (16, 32, 64, 128, 256, 512, 1024, 2048),
            (0, 1, 2),
            Measure(epsilons=_CIFAR_EPSILONS),
        ),
        Block(_C2, (256, 512, 1024, 2048), (0, 1, 2), Measure(epsilons=_CIFAR_EPSILONS)),
        Block(_M1, (64, 128, 256, 512, 1024, 2048), (0, 1, 2, 3, 4), Measure()),
        Block(_CR, (64, 128, 256, 512), (0, 1, 2), Measure(epsilons=_CIFAR_EPSILONS)),
        Block(
            replace(_C1, dataset="svhn_extra"),
            (256, 1024, 4096, 16384),
            (0, 1, 2),
            Measure(epsilons=(0.05, 0.02)),
        ),
    ),
}

# Accuracies of C1 differ by so little that these two batch sizes are compared over five seeds (claim K2).
_CONTRAST = Block(_C1, (256, 2048), (3, 4), Measure(epsilons=_CIFAR_EPSILONS))


class SpectrumVsBatch(Study):
    """Train to loss 1e-3 at several batch sizes; compare top eigenvalues, landscapes and FGSM accuracy."""

    cell_type = BatchSizeCell
    name = "spectrum_vs_batch"
    title = "Spectrum against batch size"
    revision = 1
    notebook = "01_spectrum_vs_batch"
    elsewhere: ClassVar = dict.fromkeys(("cifar100", "svhn", "svhn_extra"), "10_cifar100_svhn")
    scales: ClassVar[tuple[str, ...]] = ("digits", "mnist", "small", "paper")
    budget = 420.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "dataset", "network", "activation", "learning_rate", "momentum", "schedule"),
        *("target_loss", "max_epochs", "train_samples", "test_samples", "eigenvalues", "tolerance"),
    ) | {
        "test_eigenvalues": Parameter(int, "How many of the largest eigenvalues of the test loss."),
        "epsilons": Parameter(list[float], "FGSM sizes in units of [0, 1]."),
        "half_width": Parameter(float, "The landscape runs over +- this distance along v1."),
        "points": Parameter(int, "Distances at which the landscape is measured, odd."),
    }
    bands: ClassVar = {
        "epochs": (0.6, 1.7),
        "at_target.accuracy_train": (0.995, 1.005),
        "at_target.accuracy_test": (0.97, 1.03),
        "at_target.lambda1_train": (0.5, 2.0),
        "at_target.lambda1_test": (0.5, 2.0),
        "at_target.fgsm.0.accuracy_test": (0.75, 1.35),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        found = [BatchSizeCell(config, changed(block.measure, chosen)) for block, config in trainings(scale, chosen)]
        if scale == "paper" and any(block.base == _C1 for block in blocks(scale, chosen)):
            for size, seed in product(_CONTRAST.batch_sizes, _CONTRAST.seeds):
                if size in chosen.get("batch_sizes", [size]) and seed in chosen.get("seeds", [seed]):
                    config = changed(_CONTRAST.base, {**chosen, "batch_size": size, "seed": seed})
                    found.append(BatchSizeCell(config, changed(_CONTRAST.measure, chosen)))
        return list(dict.fromkeys(found))

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: products as seen on digits and MNIST."""
        products = 2.2 * cell.measure.eigenvalues + 20
        return Costs(training_seconds(cell.training), gradient_seconds(cell.training) * (3.3 * products + 8) + 1)

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        return measure_trained_model(run, cell.measure, self.costs(cell).share)


def blocks(scale: str, chosen: Mapping[str, Any]) -> list[Block]:
    """Return the blocks of a preset; ``dataset`` and ``network`` select among several and replace in a single one."""
    every = PRESETS[scale]
    if len(every) == 1:
        return list(every)
    wanted = {name: chosen[name] for name in ("dataset", "network") if name in chosen}
    match = [b for b in every if all(getattr(b.base, name) == value for name, value in wanted.items())]
    if not match:
        offered = sorted({f"{b.base.network} on {b.base.dataset}" for b in every})
        raise InputError(
            f"The scale {scale!r} has {', '.join(offered)}; given {wanted}. Use a scale of a single network "
            "(digits or mnist) to replace both."
        )
    return match


def trainings(scale: str, chosen: Mapping[str, Any]) -> Iterator[tuple[Block, TrainingConfig]]:
    """Yield the trainings of a preset, batch size by batch size and seed by seed, each with its block."""
    for block in blocks(scale, chosen):
        for size, seed in product(chosen.get("batch_sizes", block.batch_sizes), chosen.get("seeds", block.seeds)):
            yield block, changed(block.base, {**chosen, "batch_size": size, "seed": seed})
