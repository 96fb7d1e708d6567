"""Curvature of the loss in the input against batch size, and the theorem behind it (paper, section 3 and A.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

from torch import nn

from hbanalysis import data, training
from hbanalysis.errors import require
from hbanalysis.studies import input_measures
from hbanalysis.studies import spectrum_vs_batch as batch_sizes
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, training_seconds
from hbanalysis.studies.input_measures import Pair
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.phases import Phases
from hbanalysis.training import TrainingConfig


@dataclass(frozen=True)
class InputMeasure:
    """What is measured on a trained network.

    Attributes:
        epsilons: Sizes of FGSM and PGD in the maximum norm, in units of [0, 1]; the first makes the attacked images.
        train_measured: The first n training samples enter; ``None`` takes all.
        test_samples: The first n test samples enter; ``None`` takes all.
        pgd_samples: The first n test samples are attacked by PGD.
        pgd_steps: Steps of PGD, from one random start.
        distance_samples: The first n test samples whose smallest size for PGD is searched for.
        course_samples: The first n test samples on which checkpoints at higher losses are measured.
        theorem_samples: The first n test samples whose Hessian is made by automatic differentiation.
        theorem_vectors: Random vectors a sample where inputs are too large for that.
        pictures: Samples whose gradient and eigenvectors are kept as images.
    """

    epsilons: tuple[float, ...] = (0.1, 0.2)
    train_measured: int | None = 10_000
    test_samples: int | None = None
    pgd_samples: int = 1000
    pgd_steps: int = 20
    distance_samples: int = 100
    course_samples: int = 1000
    theorem_samples: int = 200
    theorem_vectors: int = 3
    pictures: int = 2

    def __post_init__(self) -> None:
        require(
            bool(self.epsilons) and all(0 < eps <= 1 for eps in self.epsilons),
            f"epsilons must be sizes in (0, 1]; given {list(self.epsilons)}.",
        )
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            require(value is None or value >= 1, f"{field.name} must be at least 1; given {value}.")


@dataclass(frozen=True)
class CurvatureCell:
    """One training and what is measured on it."""

    training: TrainingConfig
    measure: InputMeasure

    def __post_init__(self) -> None:
        given = self.training.activation
        require(given == "relu", f"input_curvature measures networks with ReLU; given {given!r}.")


_CIFAR_EPSILONS = (0.02, 0.01)
_MEASURES = {
    "tiny": InputMeasure((0.1,), 100, 100, 50, 3, 10, 50, 2, 2, 1),
    "digits": InputMeasure(train_measured=None, theorem_samples=30),
    "mnist": InputMeasure(),
    "small": InputMeasure(_CIFAR_EPSILONS, train_measured=5000, test_samples=2000, theorem_samples=50),
}
# At scale paper by data set: the epsilons of the paper's tables.
_PAPER = {"mnist": _MEASURES["mnist"], "cifar10": InputMeasure(_CIFAR_EPSILONS)}


class InputCurvature(Study):
    """Train as `spectrum_vs_batch` does; measure the Hessians of the loss in the inputs, and robustness beside them."""

    cell_type = CurvatureCell
    name = "input_curvature"
    title = "Curvature in the input"
    revision = 1
    notebook = "04_rank_c_input_hessian"
    scales = ("digits", "mnist", "small", "paper")
    budget = 420.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "dataset", "network", "learning_rate", "momentum", "schedule"),
        *("target_loss", "max_epochs", "train_samples", "test_samples"),
    ) | {
        "epsilons": Parameter(list[float], "Sizes of FGSM and PGD in units of [0, 1]."),
        "train_measured": Parameter(int, "The first n training samples are measured."),
        "pgd_samples": Parameter(int, "The first n test samples are attacked by PGD."),
        "pgd_steps": Parameter(int, "Steps of PGD."),
        "distance_samples": Parameter(int, "The first n test samples whose smallest size for PGD is searched for."),
        "course_samples": Parameter(int, "The first n test samples are followed along the training."),
        "theorem_samples": Parameter(int, "The first n test samples whose dense Hessian is checked."),
    }
    bands: ClassVar = {
        "test.accuracy": (0.97, 1.03),
        "train.effective_rank.mean": (0.85, 1.18),
        "test.lambda1.mean": (0.4, 2.5),
        "test.gradient_norm.mean": (0.5, 2.0),
        "test.distance.median": (0.75, 1.35),
        "robustness.0.fgsm_test": (0.75, 1.35),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        for _, config in batch_sizes.trainings(scale, chosen):
            if scale in ("small", "paper") and (config.activation != "relu" or config.dataset not in _PAPER):
                continue  # the theorem holds for ReLU; the paper measures inputs in Table 1 alone
            measure = _PAPER[config.dataset] if scale == "paper" else _MEASURES[scale]
            cells.append(CurvatureCell(config, changed(measure, chosen)))
        return list(dict.fromkeys(cells))

    def costs(self, cell: Cell) -> Costs:
        """Return guesses, from gradients."""
        t, m = cell.training, cell.measure
        description = data.describe(t.dataset)
        test = m.test_samples or description.splits["test"]
        sets = (description.classes + 1) / 2 * (min(m.train_measured or t.samples, t.samples) + 2 * test)
        inputs = description.shape[0] * description.shape[1] * description.shape[2]
        columns = inputs if inputs <= input_measures.LARGEST_DENSE else m.theorem_vectors
        gradients = 2 * sets + 6 * columns * m.theorem_samples
        return Costs(training_seconds(t), GRADIENT_SECONDS[t.network] * gradients)

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        begin, measure = self.costs(cell).share, cell.measure
        trained = run.train(begin)
        values: dict[str, Any] = {"status": trained.record.status, "epochs": trained.record.epochs}
        if trained.diverged:
            return values, trained
        test = run.test(measure.test_samples)
        count = measure.train_measured
        sets = (run.samples.images[:count], run.samples.labels[:count]), (test.images, test.labels)
        model = trained.load(run.network())
        values |= _measured(measure, model, *sets, run.work, run.part(begin, 1.0))
        few = (test.images[: measure.course_samples], test.labels[: measure.course_samples])
        values["course"] = []
        for crossing in trained.record.crossings:
            name = training.stem(crossing["threshold"])
            run.part(begin, 1.0)(f"course {name}", 0.97)
            trained.load(model, name)
            found = run.work.once(f"course {name}", partial(_course, measure, model, few))
            values["course"].append({"loss_train": crossing["loss_train"], **found})
        return values, trained


def _measured(
    measure: InputMeasure, model: nn.Module, train: Pair, test: Pair, work: Phases, report: CellProgress
) -> dict[str, Any]:
    """Return what is measured at the target."""
    epsilons = measure.epsilons
    first = (test[0][: measure.theorem_samples], test[1][: measure.theorem_samples])
    few = (test[0][: measure.course_samples], test[1][: measure.course_samples])
    near = (test[0][: measure.distance_samples], test[1][: measure.distance_samples])
    robust = partial(input_measures.robustness, model, train, test, epsilons, measure.pgd_samples, measure.pgd_steps)
    phases = (
        ("train", 0.0, partial(input_measures.on_a_set, model, train, epsilons)),
        ("test", 0.1, partial(input_measures.on_test, model, test, epsilons)),
        ("robustness", 0.2, robust),
        ("distances", 0.3, partial(input_measures.distances, model, near, measure.pgd_steps)),
        ("pictures", 0.35, partial(input_measures.images, model, few, measure.pictures)),
        ("theorem", 0.4, partial(input_measures.theorem, model, first, measure.theorem_vectors)),
    )
    values = {}
    for name, done, compute in phases:
        report(name, done)
        values[name] = work.once(name, compute)
    return values


def _course(measure: InputMeasure, model: nn.Module, few: Pair) -> dict[str, Any]:
    """Return what is followed along the training, on some test samples."""
    found = input_measures.on_a_set(model, few, measure.epsilons)
    del found["by_doubt"], found["spectrum"]
    found["robustness"] = input_measures.robustness(model, few, few, measure.epsilons[:1], 1, 1)[0]["fgsm_test"]
    return found
