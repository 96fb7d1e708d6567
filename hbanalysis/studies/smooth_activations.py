"""Spectrum against batch size with smooth activations (paper, appendix: Softplus and ELU in place of ReLU)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar

from hbanalysis.studies.base import Cell
from hbanalysis.studies.cells import changed
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.spectrum_vs_batch import BatchSizeCell, Measure, SpectrumVsBatch
from hbanalysis.training import TrainingConfig

SMOOTH = ("softplus(20)", "elu(1)")  # those of the paper


@dataclass(frozen=True)
class Design:
    """Activations times batch sizes times seeds.

    Attributes:
        base: The rest of the training.
        batch_sizes: Samples a step.
        seeds: Seeds of initialisation and order.
        measure: What is measured at the target loss.
        activations: See `hbanalysis.networks.activation`.
    """

    base: TrainingConfig
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    measure: Measure
    activations: tuple[str, ...] = SMOOTH


_C1 = TrainingConfig("cifar10", "C1", 128)
_TINY = TrainingConfig("digits", "M1", 50, train_samples=200, target_loss=0.5, max_epochs=30)
_FEW = Measure(eigenvalues=1, test_eigenvalues=1, tolerance=1e-3, points=3)
PRESETS: dict[str, Design] = {
    "tiny": Design(_TINY, (50,), (0,), replace(_FEW, epsilons=(0.1,), test_samples=100), SMOOTH[1:]),
    "digits": Design(TrainingConfig("digits", "M1", 16), (16, 128), (0, 1, 2), _FEW),
    "mnist": Design(TrainingConfig("mnist", "M1", 64), (64, 256, 1024), (0,), _FEW),
    "small": Design(
        replace(_C1, train_samples=5000), (32, 128, 512), (0,), replace(_FEW, epsilons=(0.02,), test_samples=2000)
    ),
    "paper": Design(_C1, (128, 256, 512, 1024, 2048), (0, 1, 2), Measure(epsilons=(0.02,))),
}


class SmoothActivations(SpectrumVsBatch):
    """Train networks with Softplus(20) and ELU to loss 1e-3 at several batch sizes; compare lambda1 and accuracies."""

    name = "smooth_activations"
    title = "Smooth activations"
    revision = 1
    notebook = "09_smooth_activations"
    elsewhere: ClassVar = {}
    scales = ("digits", "mnist", "small", "paper")
    budget = 180.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "learning_rate", "momentum", "max_epochs", "target_loss"),
        *("train_samples", "test_samples", "eigenvalues"),
    ) | {
        "activations": Parameter(list[str], "Each softplus(beta), elu(alpha) or relu."),
        "epsilons": Parameter(list[float], "FGSM sizes in units of [0, 1]."),
    }
    bands: ClassVar = {
        "at_target.accuracy_test": (0.97, 1.03),
        "at_target.lambda1_train": (0.4, 2.5),
        "at_target.fgsm.0.accuracy_test": (0.7, 1.4),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        design = PRESETS[scale]
        measure = changed(design.measure, chosen)
        cells = []
        for name, size, seed in product(
            chosen.get("activations", design.activations),
            chosen.get("batch_sizes", design.batch_sizes),
            chosen.get("seeds", design.seeds),
        ):
            own = {**chosen, "activation": name, "batch_size": size, "seed": seed}
            cells.append(BatchSizeCell(changed(design.base, own), measure))
        return list(dict.fromkeys(cells))

    def distinction(self, cell: Cell) -> str:
        """Return activation and batch size."""
        return f"{cell.training.activation} B={cell.training.batch_size}"
