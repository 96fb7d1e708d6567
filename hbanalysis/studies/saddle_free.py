"""The saddle-free theorem on the paper's trained networks (paper, Theorem 1 and Proposition 2)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from hbanalysis import data
from hbanalysis.errors import require
from hbanalysis.studies import input_measures
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.training import TrainingConfig
from hbanalysis.training.evaluation import evaluate


@dataclass(frozen=True)
class TheoremMeasure:
    """What is checked on a trained network.

    Attributes:
        theorem_samples: The first n test samples whose Hessian is made by automatic differentiation.
        theorem_vectors: Random vectors a sample where inputs are too large for a dense Hessian.
    """

    theorem_samples: int = 200
    theorem_vectors: int = 3

    def __post_init__(self) -> None:
        require(self.theorem_samples >= 1, f"theorem_samples must be at least 1; given {self.theorem_samples}.")
        require(self.theorem_vectors >= 1, f"theorem_vectors must be at least 1; given {self.theorem_vectors}.")


@dataclass(frozen=True)
class TheoremCell:
    """One training and what is checked on it."""

    training: TrainingConfig
    measure: TheoremMeasure

    def __post_init__(self) -> None:
        given = self.training.activation
        require(given == "relu", f"saddle_free checks networks with ReLU; given {given!r}.")


def _small(dataset: str, network: str, samples: int) -> TrainingConfig:
    return TrainingConfig(dataset, network, 32, train_samples=samples)


# But for the small scale, trainings are some of those that other studies of these networks ask for.
_NETWORKS = {
    "tiny": (TrainingConfig("digits", "M1", 50, train_samples=200, target_loss=0.5, max_epochs=30),),
    "digits": (TrainingConfig("digits", "M1", 16),),
    "mnist": (TrainingConfig("mnist", "M1", 64),),
    "small": (
        *(_small("cifar10", name, 1000) for name in ("C1", "C2", "C3")),
        _small("cifar100", "CR", 500),
    ),
    "paper": (
        TrainingConfig("cifar10", "C1", 128),
        TrainingConfig("cifar10", "C2", 256),
        TrainingConfig("cifar10", "C3", 128, schedule="step(5, 0.5)", target_loss=None, max_epochs=100),
        TrainingConfig("cifar100", "CR", 64),
    ),
}
_MEASURES = {"tiny": TheoremMeasure(5, 2), "digits": TheoremMeasure(30), "small": TheoremMeasure(50)}


class SaddleFree(Study):
    """Train the paper's networks; compare autograd's Hessian in the input with the theorem's, sample by sample."""

    cell_type = TheoremCell
    name = "saddle_free"
    title = "The saddle-free theorem on trained networks"
    revision = 1
    notebook = "04_rank_c_input_hessian"
    scales = ("digits", "mnist", "small", "paper")
    budget = 1800.0
    parameters: ClassVar = common("seeds", "dataset", "network", "train_samples", "target_loss", "max_epochs") | {
        "theorem_samples": Parameter(int, "The first n test samples whose Hessian is checked."),
        "theorem_vectors": Parameter(int, "Random vectors a sample where inputs are too large for a dense Hessian."),
    }
    bands: ClassVar = {"train.accuracy": (0.97, 1.03)}

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        measure = changed(_MEASURES.get(scale, TheoremMeasure()), chosen)
        every = _NETWORKS[scale]
        # Names select among several networks, and replace a single one.
        selected = {name: chosen[name] for name in ("dataset", "network") if name in chosen and len(every) > 1}
        found = [one for one in every if all(getattr(one, name) == value for name, value in selected.items())]
        offered = ", ".join(f"{one.network} on {one.dataset}" for one in every)
        require(bool(found), f"The scale {scale!r} has {offered}; given {selected}.")
        trainings = [changed(one, {**chosen, "seed": seed}) for one in found for seed in chosen.get("seeds", (0,))]
        return [TheoremCell(training, measure) for training in dict.fromkeys(trainings)]

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: a column of a Hessian, or a product, takes some 12 gradients in float64."""
        t, m = cell.training, cell.measure
        inputs = math.prod(data.describe(t.dataset).shape)
        columns = inputs if inputs <= input_measures.LARGEST_DENSE else m.theorem_vectors
        return Costs(training_seconds(t), GRADIENT_SECONDS[t.network] * 12 * columns * m.theorem_samples)

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        begin, measure = self.costs(cell).share, cell.measure
        trained = run.train(begin)
        values: dict[str, Any] = {"status": trained.record.status, "epochs": trained.record.epochs}
        if trained.diverged:
            return values, trained
        model, test = trained.load(run.network()), run.test(measure.theorem_samples)
        loss, accuracy = evaluate(model, run.samples.images, run.samples.labels)
        values["train"] = {"loss": {"mean": loss}, "accuracy": accuracy}
        run.part(begin, 1.0)("theorem", 0.0)
        check = partial(input_measures.theorem, model, (test.images, test.labels), measure.theorem_vectors)
        values["theorem"] = run.work.once("theorem", check)
        return values, trained
