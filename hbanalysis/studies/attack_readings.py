"""The five attacks in two readings, on the model that the paper attacks first (paper, Table 3, first line)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hbanalysis import data
from hbanalysis.attacks import READINGS, accuracy_under, newton_step, still_correct
from hbanalysis.errors import require
from hbanalysis.store import pictures
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.robust_config import SOFTMAX, AttackSizes, families
from hbanalysis.training import TrainingConfig
from hbanalysis.training.evaluation import evaluate

INVISIBLE = 6e-8  # a float32 loss below this is rounding: the gradient that the attack follows is 0 or noise


@dataclass(frozen=True)
class ReadingMeasure:
    """What is measured on the original model.

    Attributes:
        iterations: Numbers of conjugate gradient iterations that are tried.
        test_samples: The first n test samples; ``None`` takes all.
        sweep_samples: The first n test samples for the sweep over iterations; ``None`` takes all.
        pictures: Samples whose perturbed images are kept for the page.
    """

    iterations: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20)
    test_samples: int | None = None
    sweep_samples: int | None = 2000
    pictures: int = 3

    def __post_init__(self) -> None:
        require(
            bool(self.iterations) and min(self.iterations) >= 1,
            f"iterations must be numbers of at least 1; given {list(self.iterations)}.",
        )
        require(self.pictures >= 1, f"pictures must be at least 1; given {self.pictures}.")


@dataclass(frozen=True)
class ReadingCell:
    """One trained model, attacked in every way that the text allows."""

    training: TrainingConfig
    adversary: AttackSizes
    measure: ReadingMeasure


_MEASURES = {
    "tiny": ReadingMeasure((1, 3), 60, 40, 1),
    "small": ReadingMeasure(test_samples=1000, sweep_samples=500),
}


class AttackReadings(Study):
    """Accuracy of the original model under the five attacks, in both readings and over CG iterations."""

    cell_type = ReadingCell
    name = "attack_readings"
    title = "Two readings of the attacks"
    revision = 1
    notebook = "05_attacks"
    scales = ("digits", "mnist", "small", "paper")
    budget = 120.0
    parameters: ClassVar = common(
        *("seeds", "batch_size", "learning_rate", "schedule", "train_samples", "test_samples", "eps_inf", "eps_2")
    ) | {
        "max_epochs": Parameter(int, "Epochs of the original training."),
        "iterations": Parameter(list[int], "Numbers of conjugate gradient iterations that are tried."),
    }
    bands: ClassVar = {
        "clean.accuracy_test": (0.97, 1.03),
        "readings.H1.FGSM": (0.75, 1.35),
        "readings.H2.FGSM": (0.7, 1.4),
        "readings.H2.FHSM": (0.8, 1.25),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        measure = changed(_MEASURES.get(scale, ReadingMeasure()), chosen)
        cells = []
        for config, adversary, _ in families(scale, chosen):
            cells.append(ReadingCell(config, AttackSizes(adversary.eps_inf, adversary.eps_2), measure))
        return list(dict.fromkeys(cells))

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: some 150 gradients over the test set."""
        tested = 150 * (cell.measure.test_samples or data.describe(cell.training.dataset).splits["test"])
        return Costs(training_seconds(cell.training), GRADIENT_SECONDS[cell.training.network] * tested)

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        trained = run.train(self.costs(cell).share).demanded(self.label(cell))
        model, test = trained.load(run.network()), run.test(cell.measure.test_samples)
        sets = (run.samples.images, run.samples.labels), (test.images, test.labels)
        record = trained.record
        values = {"status": record.status, "epochs": record.epochs, "history": record.history}
        return values | _measured(cell, model, *sets, run), trained


def _measured(
    cell: ReadingCell,
    model: nn.Module,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    run: CellRun,
) -> dict[str, Any]:
    """Return what the row holds besides the training."""
    (x, y), work, report = test, run.work, run.report
    report("evaluation", 0.6)
    values: dict[str, Any] = {"clean": work.once("clean", partial(_clean, model, train, test))}
    for form, name in (("readings", SOFTMAX), ("readings_exact_softmax", "relative")):
        values[form] = {}
        for number, reading in enumerate(READINGS.values()):
            attacks = reading.attacks(cell.adversary.eps_inf, cell.adversary.eps_2, softmax=name)
            found = {}
            for attack_name, attack in attacks.items():
                report(f"{reading.name}, {name} softmax, {attack_name}", 0.62 + 0.08 * number)
                found[attack_name] = work.once(
                    f"{form} {reading.name} {attack_name}", partial(accuracy_under, model, attack, x, y)
                )
            values[form][reading.name] = found
    few = slice(0, cell.measure.sweep_samples)
    values["sweep"] = []
    for number, count in enumerate(cell.measure.iterations):
        report(f"{count} CG iterations", 0.8 + 0.15 * number / len(cell.measure.iterations))
        values["sweep"].append(
            work.once(f"sweep {count}", partial(_by_iterations, model, x[few], y[few], cell.adversary, count))
        )
    report("pictures", 0.96)
    values["pictures"] = work.once("pictures", partial(_pictures, cell, model, x, y))
    return values


def _clean(model: nn.Module, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> dict[str, float]:
    """Return losses, accuracies, and the share of samples whose float32 loss is too small to have a gradient."""
    values = {}
    for name, (x, y) in (("train", train), ("test", test)):
        values[f"loss_{name}"], values[f"accuracy_{name}"] = evaluate(model, x, y)
        with torch.no_grad():
            each = partial(nn.functional.cross_entropy, reduction="none")
            losses = torch.cat([each(model(a), b) for a, b in zip(x.split(500), y.split(500), strict=True)])
        values[f"invisible_{name}"] = float((losses < INVISIBLE).double().mean())
    return values


def _by_iterations(model: nn.Module, x: Tensor, y: Tensor, adversary: AttackSizes, count: int) -> dict[str, Any]:
    """Return the accuracies under FHSM and L2HESS, clipped and not, from one Newton direction."""
    direction = newton_step(model, x, y, iterations=count, softmax=SOFTMAX)
    length = direction.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny).view(-1, *[1] * (x.dim() - 1))
    found: dict[str, Any] = {"iterations": count}
    for name, moved in (
        ("FHSM", x + adversary.eps_inf * direction.sign()),
        ("L2HESS", x + adversary.eps_2 * direction / length),
    ):
        found[name] = float(still_correct(model, moved, y).double().mean())
        found[f"{name} clipped"] = float(still_correct(model, moved.clamp(0, 1), y).double().mean())
    return found


def _pictures(cell: ReadingCell, model: nn.Module, x: Tensor, y: Tensor) -> list[dict[str, Any]]:
    """Return the first correctly classified samples with what the attacks of the second reading make of them."""
    chosen = still_correct(model, x[:200], y[:200]).nonzero().flatten()[: cell.measure.pictures]
    images, labels = x[chosen], y[chosen]
    attacks = READINGS["H2"].attacks(cell.adversary.eps_inf, cell.adversary.eps_2, softmax=SOFTMAX)
    versions = {"clean": images} | {name: attack(model, images, labels) for name, attack in attacks.items()}
    found: list[dict[str, Any]] = [{"label": int(label), "versions": {}} for label in labels]
    for name, moved in versions.items():
        with torch.no_grad():
            p = model(moved).softmax(1)
        for entry, image, row in zip(found, moved, p, strict=True):
            entry["versions"][name] = {
                "image": pictures.encoded(image),
                "predicted": int(row.argmax()),
                "confidence": float(row.max()),
            }
    return found
