"""Adversarial training with each of the five attacks, beside a control (paper, section 3: Tables 3 and 4, Fig. 5)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from hbanalysis.attacks import accuracy_under, pgd, still_correct
from hbanalysis.errors import require
from hbanalysis.lineup import ATTACKS, MODELS, ORIGINAL
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, gradient_seconds, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.robust_config import Adversary, Robust, families, trained_copy
from hbanalysis.training import TrainingConfig
from hbanalysis.training.evaluation import evaluate
from hbanalysis.training.landscape import along_direction

# Share of a cell's time after which a phase begins, roughly.
_TRAINED, _ROBUST, _JUDGED = 0.4, 0.75, 0.92
_GRADIENTS = {"FGSM": 1, "FGSM-10": 10, "L2GRAD": 1, "FHSM": 14, "L2HESS": 14}  # that an attack costs


@dataclass(frozen=True)
class RobustMeasure:
    """What is measured on the seven models.

    Attributes:
        test_samples: The first n test samples; ``None`` takes all.
        pgd_samples: The first n test samples for the strong attack.
        pgd_steps: Its steps.
        pgd_restarts: Its restarts.
        points: Values of a along the line from the original model (a = 0) to a robust one (a = 1).
        low: The smallest a.
        high: The largest a.
        line_samples: The first n training samples for the loss along the line; ``None`` takes all.
    """

    test_samples: int | None = None
    pgd_samples: int | None = 1000
    pgd_steps: int = 50
    pgd_restarts: int = 5
    points: int = 21
    low: float = -0.5
    high: float = 1.5
    line_samples: int | None = 5000

    def __post_init__(self) -> None:
        require(self.pgd_steps >= 1, f"pgd_steps must be at least 1; given {self.pgd_steps}.")
        require(self.pgd_restarts >= 1, f"pgd_restarts must be at least 1; given {self.pgd_restarts}.")
        require(self.points >= 3, f"points must be at least 3; given {self.points}.")
        require(self.low < self.high, f"low must be smaller than high; given {self.low} and {self.high}.")


@dataclass(frozen=True)
class RobustCell:
    """One original model, its control and its five robust copies."""

    training: TrainingConfig
    adversary: Adversary
    robust: Robust
    measure: RobustMeasure


# Where a CPU computes while somebody waits, the strong attack is a weaker one.
_MEASURES = {
    "tiny": RobustMeasure(60, 20, 2, 1, 3, line_samples=60),
    "digits": RobustMeasure(pgd_samples=200, pgd_steps=20, pgd_restarts=1),
    "small": RobustMeasure(1000, 200, 20, 1, line_samples=1000),
}


class AdversarialTraining(Study):
    """Train on with clean and with attacked images; judge every model on every set of attacked images."""

    cell_type = RobustCell
    name = "adversarial_training"
    title = "Adversarial training"
    revision = 1
    notebook = "06_adversarial_training"
    scales = ("digits", "mnist", "small", "paper")
    budget = 420.0
    parameters: ClassVar = common(
        *("seeds", "batch_size", "train_samples", "test_samples", "eps_inf", "eps_2", "reading", "robust_epochs")
    ) | {
        "max_epochs": Parameter(int, "Epochs of the original training."),
        "pgd_samples": Parameter(int, "The first n test samples for the strong attack."),
        "points": Parameter(int, "Models along each line from the original to a robust one."),
    }
    bands: ClassVar = {
        "models.ORI.accuracy_test": (0.97, 1.03),
        "models.FGSM.accuracy_test": (0.95, 1.05),
        "static.ORI.FGSM": (0.7, 1.4),
        "static.FGSM.FGSM": (0.9, 1.1),
        "static.L2GRAD.L2GRAD": (0.75, 1.3),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        measure = changed(_MEASURES.get(scale, RobustMeasure()), chosen)
        return list(dict.fromkeys(RobustCell(*family, measure) for family in families(scale, chosen)))

    def trainings(self, cell: Cell) -> list[str]:
        """Return the keys of the original model's checkpoints and of those of its six copies."""
        copies = [cell.robust.key(cell.training, cell.adversary, name) for name in MODELS[1:]]
        return [cell.training.key, *copies]

    def distinction(self, cell: Cell) -> str:
        """Return the reading of the attacks."""
        return cell.adversary.reading

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: the seven trainings, and the strong attack, which is most of the measuring."""
        robust = sum(1 + gradients for gradients in _GRADIENTS.values()) * cell.robust.epochs
        judged = cell.measure.pgd_steps * (cell.measure.pgd_samples or 10_000) * len(MODELS)
        gradient = gradient_seconds(cell.training)
        return Costs(
            training_seconds(cell.training) + gradient * robust, 2 * GRADIENT_SECONDS[cell.training.network] * judged
        )

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        family = Family(cell, run)
        original = family.trained[ORIGINAL]
        values = {
            "status": original.record.status,
            "epochs": original.record.epochs,
            "history": {name: one.record.history for name, one in family.trained.items()},
        }
        return values | family.judge(), original


class Family:
    """The original model and those that go on from it, trained at once.

    Args:
        cell: What is trained and measured.
        run: Its trainings, phases and progress.

    Raises:
        NumericalError: A training diverged.
    """

    def __init__(self, cell: RobustCell, run: CellRun) -> None:
        self.cell, self.samples, self.work, self.report = cell, run.samples, run.work, run.report
        self.test = run.test(cell.measure.test_samples)
        self.attacks = cell.adversary.attacks()
        self.model = run.network()
        original = run.train(_TRAINED).demanded(ORIGINAL)
        self.trained = {ORIGINAL: original}
        step = (_ROBUST - _TRAINED) / (len(MODELS) - 1)
        for number, name in enumerate(MODELS[1:]):
            report = run.part(_TRAINED + number * step, _TRAINED + (number + 1) * step)
            self.trained[name] = trained_copy(run, cell.adversary, cell.robust, original, name, report)

    def judge(self) -> dict[str, Any]:
        """Return losses and accuracies of every model on every set, and the losses along the lines between them."""
        crafted: dict[str, Tensor] = {}  # D_* of the paper, made when first needed
        values: dict[str, Any] = {"models": {}, "static": {}, "white_box": {}, "pgd": {}, "lines": {}}
        for number, name in enumerate(MODELS):
            self.report(f"judging {name}", _ROBUST + (_JUDGED - _ROBUST) * number / len(MODELS))
            found = self.work.once(f"judged {name}", partial(self._judged, name, crafted))
            for part, value in found.items():
                values[part][name] = value
        for number, name in enumerate(ATTACKS):
            self.report(f"line to {name}", _JUDGED + (1 - _JUDGED) * number / len(ATTACKS))
            values["lines"][name] = self.work.once(f"line {name}", partial(self._line, name, crafted))
        return values

    def _set(self, name: str, crafted: dict[str, Tensor]) -> Tensor:
        """Return the test images that an attack made of the original model's."""
        if name not in crafted:
            crafted[name] = self.attacks[name](self._load(ORIGINAL), self.test.images, self.test.labels)
        return crafted[name]

    def _load(self, name: str) -> nn.Module:
        return self.trained[name].load(self.model)

    def _judged(self, name: str, crafted: dict[str, Tensor]) -> dict[str, Any]:
        x, y, measure = self.test.images, self.test.labels, self.cell.measure
        sets = {attack: self._set(attack, crafted) for attack in ATTACKS}
        model = self._load(name)
        own = {}
        for split, pair in (("train", (self.samples.images, self.samples.labels)), ("test", (x, y))):
            own[f"loss_{split}"], own[f"accuracy_{split}"] = evaluate(model, *pair)
        few = slice(0, measure.pgd_samples)
        strong = partial(
            pgd,
            eps=self.cell.adversary.eps_inf,
            steps=measure.pgd_steps,
            restarts=measure.pgd_restarts,
            loss="margin",
        )
        return {
            "models": own,
            "static": {attack: float(still_correct(model, moved, y).double().mean()) for attack, moved in sets.items()},
            "white_box": {attack: accuracy_under(model, run, x, y) for attack, run in self.attacks.items()},
            "pgd": accuracy_under(model, strong, x[few], y[few]),
        }

    def _line(self, name: str, crafted: dict[str, Tensor]) -> dict[str, Any]:
        """Return losses at (1 - a) ORI + a NAME on the training set, the test set, and the attacked test set."""
        measure = self.cell.measure
        step = (measure.high - measure.low) / (measure.points - 1)
        places = [measure.low + step * i for i in range(measure.points)]
        moved = self._set(name, crafted)
        end = ParameterSpace(self._load(name)).vector()
        direction = end - ParameterSpace(self._load(ORIGINAL)).vector()
        few = slice(0, measure.line_samples)
        curves = along_direction(
            self.model,
            direction,
            places,
            (self.samples.images[few], self.samples.labels[few]),
            (self.test.images, self.test.labels),
            (moved, self.test.labels),
        )
        length = float(direction.double().norm())
        names = ("loss_train", "loss_test", "loss_attacked")
        return {"a": places, "length": length, **dict(zip(names, curves, strict=True))}
