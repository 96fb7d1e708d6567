"""Attacks of one step, of ten and of many on the networks of `spectrum_vs_batch` (paper, section 3.3)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hbanalysis import data
from hbanalysis.attacks import fgsm, iterated_fgsm, masking_report, still_correct
from hbanalysis.attacks.masking import TINY_LOSS
from hbanalysis.errors import require
from hbanalysis.operators.losses import cross_entropy
from hbanalysis.studies import spectrum_vs_batch as batch_sizes
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.training import TrainingConfig
from hbanalysis.training.evaluation import evaluate

Pair = tuple[Tensor, Tensor]  # images and labels
STEPS = 10  # of FGSM-10
_CHUNK = 1000


@dataclass(frozen=True)
class AttackMeasure:
    """What is measured on a trained network.

    Attributes:
        epsilons: Sizes of all attacks in the maximum norm, in units of [0, 1].
        train_measured: The first n training samples are attacked by FGSM and FGSM-10; ``None`` takes all.
        test_samples: The same of the test set.
        pgd_samples: The first n test samples are attacked by PGD on the margin loss and searched for masked gradients.
        pgd_steps: Steps of PGD.
        pgd_restarts: Its restarts, the first one from the image itself.
    """

    epsilons: tuple[float, ...] = (0.1, 0.2)
    train_measured: int | None = 5000
    test_samples: int | None = None
    pgd_samples: int = 1000
    pgd_steps: int = 50
    pgd_restarts: int = 5

    def __post_init__(self) -> None:
        require(
            bool(self.epsilons) and all(0 < eps <= 0.5 for eps in self.epsilons),
            f"epsilons must be sizes in (0, 0.5], half the range of images at most; given {list(self.epsilons)}.",
        )
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            require(value is None or value >= 1, f"{field.name} must be at least 1; given {value}.")


@dataclass(frozen=True)
class RobustnessCell:
    """One training and what is measured on it."""

    training: TrainingConfig
    measure: AttackMeasure


# The sizes of the attacks are those of `spectrum_vs_batch`, block by block.
_MEASURES = {
    "tiny": AttackMeasure(train_measured=80, test_samples=60, pgd_samples=20, pgd_steps=3, pgd_restarts=2),
    "digits": AttackMeasure(train_measured=None, pgd_samples=200, pgd_steps=20),
}


class RobustnessVsBatch(Study):
    """Train as `spectrum_vs_batch` does; compare FGSM with FGSM-10, with the exact softmax and with a strong attack."""

    cell_type = RobustnessCell
    name = "robustness_vs_batch"
    title = "Robustness against batch size"
    revision = 1
    notebook = "05_attacks"
    scales = ("digits", "mnist", "small", "paper")
    budget = 180.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "dataset", "network", "activation", "learning_rate", "momentum", "schedule"),
        *("target_loss", "max_epochs", "train_samples", "test_samples"),
    ) | {
        "epsilons": Parameter(list[float], "Sizes of all attacks in the maximum norm, in units of [0, 1]."),
        "train_measured": Parameter(int, "The first n training samples are attacked."),
        "pgd_samples": Parameter(int, "The first n test samples are attacked by PGD."),
        "pgd_steps": Parameter(int, "Steps of PGD."),
        "pgd_restarts": Parameter(int, "Restarts of PGD."),
    }
    bands: ClassVar = {
        "at_target.accuracy_test": (0.97, 1.03),
        "at_target.attacks.0.fgsm_test": (0.75, 1.35),
        "at_target.attacks.0.fgsm10_test": (0.75, 1.35),
        "at_target.masking.0.pgd": (0.6, 1.7),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        for block, config in batch_sizes.trainings(scale, chosen):
            measure = replace(_MEASURES.get(scale, AttackMeasure()), epsilons=block.measure.epsilons)
            cells.append(RobustnessCell(config, changed(measure, chosen)))
        return list(dict.fromkeys(cells))

    def costs(self, cell: Cell) -> Costs:
        """Return guesses, from gradients."""
        t, m = cell.training, cell.measure
        test = m.test_samples or data.describe(t.dataset).splits["test"]
        once = (STEPS + 4) * (min(m.train_measured or t.samples, t.samples) + test)
        # About half of the samples stand the first restart; some still stand the long run after the last one.
        strong = (1 + m.pgd_restarts / 2 + 2) * m.pgd_steps * m.pgd_samples
        return Costs(training_seconds(t), GRADIENT_SECONDS[t.network] * len(m.epsilons) * (once + strong))

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        begin, measure = self.costs(cell).share, cell.measure
        trained = run.train(begin)
        values: dict[str, Any] = {"status": trained.record.status, "epochs": trained.record.epochs, "at_target": None}
        if trained.diverged:
            return values, trained
        test, count = run.test(measure.test_samples), measure.train_measured
        sets = {
            "train": (run.samples.images[:count], run.samples.labels[:count]),
            "test": (test.images, test.labels),
        }
        values["at_target"] = _measured(measure, trained.load(run.network()), sets, run, begin)
        return values, trained


def _measured(
    measure: AttackMeasure, model: nn.Module, sets: Mapping[str, Pair], run: CellRun, begin: float
) -> dict[str, Any]:
    """Return what is measured at the target; ``begin`` is the fraction of the cell done before."""
    report = run.part(begin, 1.0)
    report("clean", 0.0)
    found = {**run.work.once("clean", partial(without_attack, model, sets)), "attacks": [], "masking": []}
    for number, eps in enumerate(measure.epsilons):
        line: dict[str, float] = {"epsilon": eps}
        for place, (name, pair) in enumerate(sets.items()):
            report(f"FGSM {eps:g} {name}", (number + 0.3 * place) / len(measure.epsilons))
            line |= run.work.once(f"FGSM {eps:g} {name}", partial(_one_and_ten, model, *pair, eps, name))
        found["attacks"].append(line)
        report(f"PGD {eps:g}", (number + 0.6) / len(measure.epsilons))
        found["masking"].append(run.work.once(f"PGD {eps:g}", partial(_strong, measure, model, sets["test"], eps)))
    return found


def without_attack(model: nn.Module, sets: Mapping[str, Pair]) -> dict[str, float]:
    """Return losses and accuracies, and on how many samples single precision has no loss or no gradient left."""
    found = {}
    for name, (x, y) in sets.items():
        found[f"loss_{name}"], found[f"accuracy_{name}"] = evaluate(model, x, y)
        with torch.no_grad():
            pairs = zip(x.split(_CHUNK), y.split(_CHUNK), strict=True)
            losses = torch.cat([cross_entropy(model(a), b) for a, b in pairs])
        found[f"tiny_losses_{name}"] = _share(losses < TINY_LOSS)
        # Without a gradient FGSM gives the image back; any other change of a pixel by 1/2 shows in float32.
        moved = fgsm(model, x, y, 0.5, clip=None, softmax="plain")
        found[f"zero_gradients_{name}"] = _share((moved == x).flatten(1).all(1))
    return found


def _one_and_ten(model: nn.Module, x: Tensor, y: Tensor, eps: float, name: str) -> dict[str, float]:
    """Return accuracies after one step, clamped by either softmax and free, and after ten clamped steps."""
    found = {}
    for form, softmax in (("", "plain"), ("_exact", "relative")):
        free = fgsm(model, x, y, eps, clip=None, softmax=softmax)
        found[f"fgsm{form}_{name}"] = _share(still_correct(model, free.clamp(0, 1), y))
        if softmax == "plain":
            found[f"fgsm_free_{name}"] = _share(still_correct(model, free, y))
    ten = iterated_fgsm(model, x, y, eps, steps=STEPS, softmax="plain")
    found[f"fgsm10_{name}"] = _share(still_correct(model, ten, y))
    return found


def _strong(measure: AttackMeasure, model: nn.Module, test: Pair, eps: float) -> dict[str, Any]:
    """Return accuracies under PGD with restarts on the first test samples, and what speaks for masked gradients."""
    x, y = (part[: measure.pgd_samples] for part in test)
    report = masking_report(model, x, y, eps, steps=measure.pgd_steps, restarts=measure.pgd_restarts)
    return asdict(report) | {"flags": list(report.flags)}


def _share(chosen: Tensor) -> float:
    return float(chosen.double().mean())
