"""Batches that grow as curvature falls, with and without attacked images, beside batches that do not (ABSA)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

from torch import nn

from hbanalysis.adaptive_batch import AdaptiveBatch
from hbanalysis.attacks import accuracy_under, pgd
from hbanalysis.data import Samples
from hbanalysis.eigen import eigsh
from hbanalysis.errors import require, unknown_name
from hbanalysis.files import digest
from hbanalysis.lineup import ABS, ARMS, LARGE, SMALL
from hbanalysis.operators import WeightHessian
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.training import REVISION, TrainingConfig
from hbanalysis.training.evaluation import accuracy_under_fgsm, evaluate
from hbanalysis.training.pacing import Adaptive, Watch

_TRAINED = 0.7  # share of a cell's time that is training, roughly
_WATCHED, _LAST = 20, 60  # gradients' worth of the eigenvalue of an epoch, and of that at the end


@dataclass(frozen=True)
class AbsaMeasure:
    """What is measured on the model at the end.

    Attributes:
        epsilon: Size of FGSM and PGD in the maximum norm, in units of [0, 1].
        tolerance: Relative error allowed for lambda1 of the training loss.
        test_samples: The first n test samples; ``None`` takes all.
        pgd_samples: The first n test samples for PGD; ``None`` takes all.
        pgd_steps: Its steps, on the margin loss.
        pgd_restarts: Its restarts.
    """

    epsilon: float = 0.1
    tolerance: float = 1e-2
    test_samples: int | None = None
    pgd_samples: int | None = 1000
    pgd_steps: int = 20
    pgd_restarts: int = 2

    def __post_init__(self) -> None:
        require(0 < self.epsilon <= 1, f"epsilon must be a size in (0, 1]; given {self.epsilon}.")
        require(0 < self.tolerance < 1, f"tolerance must lie in (0, 1); given {self.tolerance}.")
        for name in ("pgd_samples", "pgd_steps", "pgd_restarts"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1; given {value}.")


@dataclass(frozen=True)
class AbsaCell:
    """One training and what is measured at its end.

    Attributes:
        training: The training; its batch size and learning rate are those of the first epoch after any warm-up.
        arm: One of ``hbanalysis.lineup.ARMS``.
        rule: When the batch grows.
        watch: How curvature is watched and images are attacked.
        measure: What is measured.
    """

    training: TrainingConfig
    arm: str
    rule: AdaptiveBatch
    watch: Watch
    measure: AbsaMeasure

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise unknown_name("arm", self.arm, ARMS)
        require(self.training.target_loss is None, "All arms train for the same epochs: give target_loss=None.")
        largest = self.rule.limit * self.training.batch_size
        require(
            largest <= self.training.samples,
            f"The largest batch, {self.rule.limit} times {self.training.batch_size}, is larger than the training set "
            f"of {self.training.samples}. Lower limit or batch_size.",
        )

    @property
    def training_key(self) -> str:
        """Name of the checkpoints."""
        how = {"rule": asdict(self.rule), "watch": asdict(self.watch), "revision": REVISION}
        return digest({"adaptive_training": {"training": asdict(self.training), **how}})[:20]


@dataclass(frozen=True)
class Block:
    """Four arms times seeds of one training.

    Attributes:
        base: The training with small batches.
        rule: How far and when batches grow; the large ones are as large from the first.
        watch: How curvature is watched and images are attacked.
        measure: What is measured.
        seeds: Seeds of initialisation and order.
        warm_up: Epochs of warm-up of the large batch, whose learning rate is as much larger as itself.
    """

    base: TrainingConfig
    rule: AdaptiveBatch
    watch: Watch
    measure: AbsaMeasure
    seeds: tuple[int, ...]
    warm_up: int = 5

    def cell(self, arm: str) -> AbsaCell:
        """Return the cell of an arm."""
        fixed = replace(self.rule, limit=1, share=0.0)
        if arm == SMALL:
            return AbsaCell(self.base, arm, fixed, self.watch, self.measure)
        if arm == LARGE:
            scaled = replace(
                self.base,
                batch_size=self.rule.limit * self.base.batch_size,
                learning_rate=self.rule.limit * self.base.learning_rate,
            )
            return AbsaCell(scaled, arm, fixed, replace(self.watch, warm_up=self.warm_up), self.measure)
        rule = replace(self.rule, share=0.0) if arm == ABS else self.rule
        return AbsaCell(self.base, arm, rule, self.watch, self.measure)


_RULE = AdaptiveBatch()
_DIGITS = TrainingConfig(
    "digits", "M1", 10, train_samples=300, schedule="milestones(0.2, 10, 15)", target_loss=None, max_epochs=20
)
_M1 = TrainingConfig("mnist", "M1", 64, schedule="milestones(0.2, 20, 30)", target_loss=None, max_epochs=40)
_C1 = TrainingConfig(
    *("cifar10", "C1", 128),
    learning_rate=0.02,
    schedule="milestones(0.2, 30, 60)",
    target_loss=None,
    max_epochs=90,
    ghost_batch=128,
)
_C1_5K = replace(_C1, batch_size=32, train_samples=5000, learning_rate=0.01, ghost_batch=32)
# The authors attack images of CIFAR-10 at 0.005, a quarter of the size that is measured here; so elsewhere.
_GREY = Watch(epsilon=0.025)
_CIFAR = AbsaMeasure(epsilon=0.02)
PRESETS: dict[str, tuple[Block, ...]] = {
    "tiny": (
        Block(
            TrainingConfig("digits", "M1", 10, train_samples=60, learning_rate=0.05, target_loss=None, max_epochs=6),
            AdaptiveBatch(limit=4, patience=2),
            Watch(samples=20, products=3, epsilon=0.025),
            AbsaMeasure(test_samples=50, pgd_samples=20, pgd_steps=2, pgd_restarts=1, tolerance=0.1),
            (0,),
            2,
        ),
    ),
    "digits": (
        Block(
            _DIGITS,
            AdaptiveBatch(limit=8, patience=3),  # less patience, as there are fewer epochs
            replace(_GREY, samples=32),
            AbsaMeasure(pgd_samples=200, pgd_restarts=1, tolerance=0.1),
            (0, 1, 2),
            2,
        ),
    ),
    "mnist": (Block(_M1, _RULE, _GREY, AbsaMeasure(), (0,)),),
    "small": (Block(_C1_5K, _RULE, Watch(), replace(_CIFAR, test_samples=2000), (0,)),),
    "paper": (
        Block(_C1, _RULE, Watch(), _CIFAR, (0, 1, 2)),
        Block(_M1, _RULE, _GREY, AbsaMeasure(), (0, 1, 2, 3, 4)),
    ),
}


class Absa(Study):
    """Train with small, large and growing batches for the same epochs; compare steps, accuracies and lambda1."""

    cell_type = AbsaCell
    name = "absa"
    title = "Adaptive batch size"
    revision = 1
    notebook = "11_absa"
    scales = ("digits", "mnist", "small", "paper")
    budget = 60.0
    parameters: ClassVar = common(
        *("seeds", "batch_size", "network", "learning_rate", "momentum", "schedule", "max_epochs", "train_samples"),
        "test_samples",
    ) | {
        "arms": Parameter(list[str], f"Which trainings: {', '.join(ARMS)}."),
        "limit": Parameter(int, "Largest batch over the smallest, at least 1."),
        "fall": Parameter(float, "Factor by which curvature must fall, above 1."),
        "growth": Parameter(int, "Factor by which batch and learning rate grow, at least 2."),
        "patience": Parameter(int, "Epochs after which they grow anyway."),
        "share": Parameter(float, "Share of attacked images at the start, in [0, 1]."),
        "train_epsilon": Parameter(float, "FGSM size of the attacked images in units of [0, 1]."),
        "warm_up": Parameter(int, "Epochs of warm-up of the large batch.", least=0),
        "hessian_samples": Parameter(int, "Samples of the Hessian that is watched."),
        "epsilon": Parameter(float, "Size of FGSM and PGD at the end, in units of [0, 1]."),
    }
    bands: ClassVar = {
        "steps": (0.6, 1.7),
        "at_target.accuracy_test": (0.95, 1.05),
        "at_target.fgsm.0.accuracy_test": (0.7, 1.4),
        "at_target.lambda1_train": (0.25, 4.0),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        renamed = {"epsilon": "train_epsilon", "samples": "hessian_samples"}
        for block in PRESETS[scale]:
            if chosen.get("network", block.base.network) != block.base.network:
                continue
            watch = changed(block.watch, {field: chosen[name] for field, name in renamed.items() if name in chosen})
            rule, measure = changed(block.rule, chosen), changed(block.measure, chosen)
            for seed in chosen.get("seeds", block.seeds):
                base = changed(block.base, {**chosen, "seed": seed})
                own = replace(changed(block, chosen), base=base, rule=rule, watch=watch, measure=measure)
                cells += [own.cell(arm) for arm in chosen.get("arms", ARMS)]
        return list(dict.fromkeys(cells))

    def trainings(self, cell: Cell) -> list[str]:
        """Return the key of the checkpoints that a cell's row rests on."""
        return [cell.training_key]

    def distinction(self, cell: Cell) -> str:
        """Return the arm."""
        return cell.arm

    def costs(self, cell: Cell) -> Costs:
        """Return guesses, from gradients."""
        t, measure = cell.training, cell.measure
        steps = t.samples + _WATCHED * min(cell.watch.samples, t.samples)
        attacks = (measure.pgd_samples or 10_000) * measure.pgd_steps * measure.pgd_restarts
        gradient = GRADIENT_SECONDS[t.network]
        return Costs(gradient * t.max_epochs * steps, gradient * (_LAST * t.samples + attacks))

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        pacing = Adaptive(cell.training, run.samples, cell.rule, cell.watch)
        trained = run.continued(cell.training, cell.training_key, run.part(0.0, _TRAINED), pacing=pacing)
        record = trained.record
        at_end = None
        if not trained.diverged:
            test = run.test(cell.measure.test_samples)
            at_end = _at_end(cell.measure, trained.load(run.network()), run, test)
        return {
            "status": record.status,
            "epochs": record.epochs,
            "steps": record.history[-1]["step"],
            "samples": cell.training.samples,
            "history": record.history,
            "at_target": at_end,
        }, trained


def _at_end(measure: AbsaMeasure, model: nn.Module, run: CellRun, test: Samples) -> dict[str, Any]:
    """Return losses and accuracies, clean and attacked, and lambda1 of the training loss."""
    sets = {"train": run.samples, "test": test}
    phases = {
        "evaluation": lambda: _evaluation(model, sets),
        "fgsm": lambda: _fgsm(model, sets, measure.epsilon),
        "pgd": lambda: _pgd(model, test, measure),
        "curvature": lambda: _curvature(model, run.samples, measure.tolerance),
    }
    values: dict[str, Any] = {}
    for number, (name, compute) in enumerate(phases.items()):
        run.report(name, _TRAINED + (1 - _TRAINED) * number / len(phases))
        values |= run.work.once(name, compute)
    return values


def _evaluation(model: nn.Module, sets: Mapping[str, Samples]) -> dict[str, float]:
    values = {}
    for name, part in sets.items():
        values[f"loss_{name}"], values[f"accuracy_{name}"] = evaluate(model, part.images, part.labels)
    return values


def _fgsm(model: nn.Module, sets: Mapping[str, Samples], epsilon: float) -> dict[str, Any]:
    found = {f"accuracy_{n}": accuracy_under_fgsm(model, part.images, part.labels, epsilon) for n, part in sets.items()}
    return {"fgsm": [{"epsilon": epsilon, **found}]}


def _pgd(model: nn.Module, test: Samples, measure: AbsaMeasure) -> dict[str, float]:
    few = slice(0, measure.pgd_samples)
    how: dict[str, Any] = {"steps": measure.pgd_steps, "restarts": measure.pgd_restarts, "loss": "margin"}
    attack = partial(pgd, eps=measure.epsilon, **how)
    return {"pgd_test": accuracy_under(model, attack, test.images[few], test.labels[few])}


def _curvature(model: nn.Module, train: Samples, tolerance: float) -> dict[str, Any]:
    pairs = eigsh(
        WeightHessian(model, train.images, train.labels),
        1,
        tol=tolerance,
        method="auto",
        check=False,
        show=lambda done, worst: None,
    )
    return {"lambda1_train": pairs.values[0].item(), "lambda1_bound": pairs.bounds[0].item()}
