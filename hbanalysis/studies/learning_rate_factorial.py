"""Learning rate by batch size: is it the batch, or the ratio of the two? A control that the paper lacks."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

from hbanalysis import paper
from hbanalysis.studies.base import Cell
from hbanalysis.studies.cells import changed
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.spectrum_vs_batch import BatchSizeCell, Measure, SpectrumVsBatch
from hbanalysis.training import TrainingConfig

_MEASURE = Measure(eigenvalues=1, test_eigenvalues=1, tolerance=1e-3, epsilons=(0.1,), points=3)
_CIFAR = replace(_MEASURE, epsilons=(0.02,))


@dataclass(frozen=True)
class Factorial:
    """Learning rates times batch sizes times seeds.

    Attributes:
        base: The rest of the training.
        learning_rates: Initial learning rates.
        batch_sizes: Samples a step.
        seeds: Seeds of initialisation and order.
        without: Pairs of learning rate and batch size that are left out.
        measure: What is measured at the target loss.
    """

    base: TrainingConfig
    learning_rates: tuple[float, ...]
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    without: tuple[tuple[float, int], ...] = ()
    measure: Measure = _MEASURE


def _of_the_criteria(base: TrainingConfig, measure: Measure) -> Factorial:
    """Return the design that was fixed beforehand for a network."""
    design = paper.criteria().factorial["designs"][base.network]
    return Factorial(
        base,
        tuple(design["learning_rates"]),
        tuple(design["batch_sizes"]),
        tuple(range(design["seeds"])),
        tuple((rate, size) for rate, size in design["without"]),
        measure,
    )


_M1, _C1 = TrainingConfig("mnist", "M1", 64), TrainingConfig("cifar10", "C1", 128)
_TINY = TrainingConfig("digits", "M1", 50, train_samples=200, target_loss=0.5, max_epochs=30)
PRESETS: dict[str, tuple[Factorial, ...]] = {
    "tiny": (Factorial(_TINY, (0.01, 0.02), (50, 100), (0,), measure=replace(_MEASURE, test_samples=100)),),
    "digits": (Factorial(TrainingConfig("digits", "M1", 16), (0.01, 0.04), (16, 64, 256), (0, 1, 2)),),
    "mnist": (replace(_of_the_criteria(_M1, _MEASURE), seeds=(0,)),),
    "small": (
        Factorial(
            replace(_C1, train_samples=5000),
            (0.01, 0.04),
            (32, 128, 512),
            (0,),
            measure=replace(_CIFAR, test_samples=2000),
        ),
    ),
    "paper": (_of_the_criteria(_M1, _MEASURE), _of_the_criteria(_C1, _CIFAR)),
}


class LearningRateFactorial(SpectrumVsBatch):
    """Train to loss 1e-3 at every pair of learning rate and batch size; compare lambda1 and accuracies."""

    name = "learning_rate_factorial"
    title = "Learning rate or batch size"
    revision = 1
    notebook = "13_learning_rate_or_batch_size"
    elsewhere: ClassVar = {}
    budget = 240.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "max_epochs", "target_loss", "momentum", "train_samples", "test_samples"),
    ) | {
        "learning_rates": Parameter(list[float], "Initial learning rates, positive."),
        "epsilons": Parameter(list[float], "FGSM sizes in units of [0, 1]."),
    }
    bands: ClassVar = {
        "at_target.accuracy_test": (0.97, 1.03),
        "at_target.lambda1_train": (0.4, 2.5),
        "at_target.fgsm.0.accuracy_test": (0.7, 1.4),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        for design in PRESETS[scale]:
            measure = changed(design.measure, chosen)
            rates = chosen.get("learning_rates", design.learning_rates)
            sizes = chosen.get("batch_sizes", design.batch_sizes)
            for rate, size, seed in product(rates, sizes, chosen.get("seeds", design.seeds)):
                if (rate, size) not in design.without:
                    own = {**chosen, "learning_rate": rate, "batch_size": size, "seed": seed}
                    cells.append(BatchSizeCell(changed(design.base, own), measure))
        return list(dict.fromkeys(cells))

    def distinction(self, cell: Cell) -> str:
        """Return learning rate and batch size."""
        return f"lr {cell.training.learning_rate:g} B={cell.training.batch_size}"
