"""Adversarial training with each of the five attacks, beside a control (paper, section 3: Tables 3 and 4, Fig. 5)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hbanalysis import checkpoints, data, training
from hbanalysis.attacks import accuracy_under, pgd, still_correct
from hbanalysis.errors import NumericalError, require
from hbanalysis.evaluation import evaluate
from hbanalysis.landscape import along_direction
from hbanalysis.lineup import ATTACKS, MODELS, ORIGINAL
from hbanalysis.memory import keep_freed_memory
from hbanalysis.parameters import ParameterSpace
from hbanalysis.provenance import environment
from hbanalysis.store import Row, Store
from hbanalysis.studies.base import Cell, CellProgress, Parameter, Study
from hbanalysis.studies.phases import Phases, trained
from hbanalysis.studies.robust_config import PRESETS, Adversary, Robust, changed, part_of
from hbanalysis.training_config import TrainingConfig

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


ROBUST_TRAINING = {"cifar10": Robust(10, 0.01, "step(5, 0.5)")}  # the paper's; five epochs at one rate on MNIST
# On the digits, which a laptop computes while somebody waits, the strong attack is a weaker one.
_MEASURES = {
    "tiny": RobustMeasure(60, 20, 2, 1, 3, line_samples=60),
    "digits": RobustMeasure(pgd_samples=200, pgd_steps=20, pgd_restarts=1),
}


class AdversarialTraining(Study):
    """Train on with clean and with attacked images; judge every model on every set of attacked images."""

    name = "adversarial_training"
    title = "Adversarial training"
    revision = 1
    notebook = "06_adversarial_training"
    scales = ("digits", "mnist", "small", "paper")
    budget = 420.0
    parameters: ClassVar = {
        "seeds": Parameter(list[int], "Seeds of initialisation and order."),
        "batch_size": Parameter(int, "Samples a step, in 1..N."),
        "max_epochs": Parameter(int, "Epochs of the original training."),
        "train_samples": Parameter(int, "The first n training samples."),
        "test_samples": Parameter(int, "The first n test samples."),
        "eps_inf": Parameter(float, "Size in the maximum norm, in units of [0, 1]."),
        "eps_2": Parameter(float, "Size in the Euclidean norm, in units of [0, 1]."),
        "reading": Parameter(str, "H1 or H2: how the paper's attacks are read."),
        "robust_epochs": Parameter(int, "Additional epochs with attacked images."),
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
        cells = []
        for base, adversary, seeds in PRESETS[scale]:
            robust = Robust(epochs=1) if scale == "tiny" else ROBUST_TRAINING.get(base.dataset, Robust())
            parts = (
                changed(adversary, chosen),
                changed(robust, {"epochs": chosen.get("robust_epochs", robust.epochs)}),
                changed(_MEASURES.get(scale, RobustMeasure()), chosen),
            )
            for seed in chosen.get("seeds", seeds):
                cells.append(RobustCell(changed(base, {**chosen, "seed": seed}), *parts))
        return list(dict.fromkeys(cells))

    def config(self, cell: Cell) -> dict[str, Any]:
        """Return the configuration of a cell as JSON data."""
        return {name: asdict(getattr(cell, name)) for name in ("training", "adversary", "robust", "measure")}

    def from_config(self, config: Mapping[str, Any]) -> Cell:
        """Return the cell of a configuration.

        Raises:
            InputError: A field is missing or unknown.
        """
        kinds = {"training": TrainingConfig, "adversary": Adversary, "robust": Robust, "measure": RobustMeasure}
        return RobustCell(*(part_of(config, name, kind, self.name) for name, kind in kinds.items()))

    def label(self, cell: Cell) -> str:
        """Return network, data set, reading and seed."""
        t = cell.training
        return f"{t.network} {t.dataset} {cell.adversary.reading} seed {t.seed}"

    def cost(self, cell: Cell) -> float:
        """Return CPU seconds, guessed from gradients."""
        t = cell.training
        gradient = 3e-4 * t.samples
        robust = sum(1 + cost for cost in _GRADIENTS.values()) * cell.robust.epochs
        return gradient * (t.max_epochs + robust) + 0.3 * (cell.measure.pgd_samples or 10_000)

    def compute(self, cell: Cell, store: Store, device: str | None = None, progress: CellProgress | None = None) -> Row:
        """Train, train on, judge, write the row; see `Study.compute`."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        keep_freed_memory()
        work = Phases(store.work_folder(self.key(cell)), environment(device))
        family = Family(cell, store, device, work, progress or (lambda phase, fraction: None))
        records = family.train()
        original = records[ORIGINAL]
        values = {
            "status": original.status,
            "epochs": original.epochs,
            "history": {name: record.history for name, record in records.items()},
            **family.judge(),
        }
        seconds = sum(record.seconds for record in records.values())
        provenance = work.provenance(seconds, original.checkpoints[original.final])
        work.discard()
        key = self.key(cell)
        row = Row(self.name, self.scale_of(cell), self.revision, key, self.config(cell), values, provenance)
        store.put(row)
        return row


class Family:
    """The original model and those that go on from it.

    Args:
        cell: What is trained and measured.
        store: Holds the checkpoints.
        device: Where to compute.
        work: The phases of the cell.
        report: Told phase and fraction; may raise to stop.
    """

    def __init__(self, cell: RobustCell, store: Store, device: str, work: Phases, report: CellProgress) -> None:
        self.cell, self.store, self.work, self.report = cell, store, work, report
        config = cell.training
        self.samples = data.load(config.dataset, "train", samples=config.train_samples, device=device)
        self.test = data.load(config.dataset, "test", samples=cell.measure.test_samples, device=device)
        self.attacks = cell.adversary.attacks()
        self.model = config.network_on(device)
        self._paths: dict[str, Path] = {}

    def train(self) -> dict[str, training.Record]:
        """Train the original and every copy; return their records by name."""
        config, (begin, end) = self.cell.training, (0.0, _TRAINED)
        folder = self.store.checkpoint_folder(config.key)
        records = {ORIGINAL: trained(config, self.samples, folder, self.work, self.report, begin, end)}
        start = self._paths[ORIGINAL] = folder / f"{records[ORIGINAL].final}.safetensors"
        further = self.cell.robust.training(config)
        for number, name in enumerate(MODELS[1:]):
            begin, end = (_TRAINED + (_ROBUST - _TRAINED) * step / (len(MODELS) - 1) for step in (number, number + 1))
            folder = self.store.checkpoint_folder(self.cell.robust.key(config, self.cell.adversary, name))
            records[name] = trained(
                further,
                self.samples,
                folder,
                self.work,
                self.report,
                begin,
                end,
                f"training {name}",
                start=start,
                perturb=self.attacks.get(name),
            )
            self._paths[name] = folder / f"{records[name].final}.safetensors"
        lost = [name for name, record in records.items() if record.status == "diverged"]
        if lost:
            raise NumericalError(f"The training of {', '.join(lost)} diverged. Use a smaller learning rate.")
        return records

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
        checkpoints.restore(self.model, self._paths[name])
        return self.model.eval()

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
