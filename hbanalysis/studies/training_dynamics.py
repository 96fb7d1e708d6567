"""Curvature, gradient and robustness along trainings of small and large batches (paper, section 2: Figs. 4 and 16)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from hbanalysis import checkpoints, training
from hbanalysis.attacks import fgsm
from hbanalysis.errors import require
from hbanalysis.files import digest
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import Costs, gradient_seconds, training_seconds
from hbanalysis.studies.course import Course, DynamicsMeasure
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.snapshots import Snapshots
from hbanalysis.training import REVISION, TrainingConfig

_TRAINED = 0.3  # share of a cell's time that is training, roughly


@dataclass(frozen=True)
class DynamicsCell:
    """One training and what is measured along it.

    Attributes:
        training: The training.
        train_epsilon: Size of the FGSM step that every training image takes (robust training); 0 is plain training.
        measure: What is measured, and when.
    """

    training: TrainingConfig
    train_epsilon: float
    measure: DynamicsMeasure

    def __post_init__(self) -> None:
        require(0 <= self.train_epsilon <= 1, f"train_epsilon must lie in [0, 1]; given {self.train_epsilon}.")
        # Training stops on the clean loss, which a robust training crosses without noticing.
        require(
            not self.train_epsilon or self.training.target_loss is None,
            "A robust training has no target loss: give target_loss=None and max_epochs.",
        )

    @property
    def training_key(self) -> str:
        """Name of the checkpoints: the training's own, so that studies share it, or that of the robust one."""
        if not self.train_epsilon:
            return self.training.key
        what = {"training": asdict(self.training), "fgsm": self.train_epsilon, "revision": REVISION}
        return digest({"robust_training": what})[:20]


@dataclass(frozen=True)
class Block:
    """Batch sizes times seeds of one training; the robust ones train for a fixed number of epochs."""

    base: TrainingConfig
    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    measure: DynamicsMeasure
    train_epsilon: float = 0.0


_ALL_EPOCHS = 20_000  # a step an epoch: a cap for batches of the whole set
_DIGITS = TrainingConfig("digits", "M1", 10, train_samples=150, learning_rate=0.02)
_M1 = TrainingConfig("mnist", "M1", 64)
_M1_10K = TrainingConfig("mnist", "M1", 64, train_samples=10_000)
_C1 = TrainingConfig("cifar10", "C1", 128)
_C1_5K = TrainingConfig("cifar10", "C1", 32, train_samples=5000)
_CIFAR = DynamicsMeasure(epsilon=0.02)
PRESETS: dict[str, tuple[Block, ...]] = {
    "tiny": (
        Block(
            TrainingConfig("digits", "M1", 20, train_samples=60, learning_rate=0.05, target_loss=0.5, max_epochs=30),
            (20, 60),
            (0,),
            DynamicsMeasure(1, 5.0, 0.1, 0.5, min_at_epochs=False, batch_samples=80, test_samples=50),
        ),
    ),
    "digits": (
        Block(
            _DIGITS,
            (10, 50),
            (0, 1, 2),
            DynamicsMeasure(1, 3.0, tolerance=0.05, min_tolerance=0.3, min_at_epochs=False, batch_samples=200),
        ),
    ),
    "mnist": (Block(_M1, (64, 1024), (0,), DynamicsMeasure()),),
    "small": (
        Block(_C1_5K, (32, 512), (0,), replace(_CIFAR, test_samples=2000)),
        Block(
            replace(_C1_5K, target_loss=None, max_epochs=40),
            (32, 512),
            (0,),
            replace(_CIFAR, test_samples=2000),
            0.02,
        ),
    ),
    "paper": (
        Block(_C1, (128, 2048), (0, 1, 2), _CIFAR),
        Block(replace(_C1, target_loss=None, max_epochs=60), (128, 2048), (0, 1, 2), _CIFAR, 0.02),
        Block(_M1, (64, 1024), (0, 1, 2, 3, 4), DynamicsMeasure()),
        Block(replace(_M1, max_epochs=_ALL_EPOCHS), (60_000,), (0, 1, 2, 3, 4), DynamicsMeasure()),
        Block(_M1_10K, (64, 1024), (0, 1, 2, 3, 4), DynamicsMeasure()),
        Block(replace(_M1_10K, max_epochs=_ALL_EPOCHS), (10_000,), (0, 1, 2, 3, 4), DynamicsMeasure()),
    ),
}


class TrainingDynamics(Study):
    """Follow trainings: both ends of the spectrum, gradient, batch sharpness and FGSM accuracy at epochs and losses."""

    cell_type = DynamicsCell
    name = "training_dynamics"
    title = "Training dynamics"
    revision = 1
    notebook = "07_training_dynamics"
    scales = ("digits", "mnist", "small", "paper")
    budget = 120.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "network", "learning_rate", "momentum", "max_epochs", "train_samples"),
        *("test_samples", "tolerance"),
    ) | {
        "dense": Parameter(int, "Every epoch up to this one is measured."),
        "growth": Parameter(float, "Factor between the epochs measured after that, above 1."),
        "min_tolerance": Parameter(float, "Relative error allowed for the smallest eigenvalue."),
        "batch_samples": Parameter(int, "Samples of all random batches for the batch sharpness together."),
        "epsilon": Parameter(float, "FGSM size in units of [0, 1]."),
        "train_epsilon": Parameter(float, "Cells whose training images take FGSM steps of this size; 0: plain."),
    }
    bands: ClassVar = {
        "epochs": (0.6, 1.7),
        "peak.lambda1": (0.5, 2.0),
        "at_target.lambda1_train": (0.5, 2.0),
        "at_target.accuracy_test": (0.95, 1.05),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        for block in PRESETS[scale]:
            if chosen.get("train_epsilon", block.train_epsilon) != block.train_epsilon:
                continue
            if chosen.get("network", block.base.network) != block.base.network:
                continue
            measure = changed(block.measure, chosen)
            for size in chosen.get("batch_sizes", block.batch_sizes):
                for seed in chosen.get("seeds", block.seeds):
                    # The batch size comes with the rest: alone, the preset's may exceed the chosen number of samples.
                    config = changed(block.base, {**chosen, "batch_size": size, "seed": seed})
                    cells.append(DynamicsCell(config, block.train_epsilon, measure))
        return list(dict.fromkeys(cells))

    def distinction(self, cell: Cell) -> str:
        """Return the batch size and, for robust training, its FGSM size."""
        robust = f" FGSM {cell.train_epsilon:g}" if cell.train_epsilon else ""
        return f"B={cell.training.batch_size}{robust}"

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: some 60 gradients at each of some twenty states."""
        return Costs(training_seconds(cell.training), 20 * 60 * gradient_seconds(cell.training))

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        snapshots = Snapshots(run.work.folder / "epochs", cell.measure.dense, cell.measure.growth)
        trained, replayed = _trained(cell, run, snapshots)
        record = trained.record
        course = _measured(cell, run, trained, snapshots)
        peak = max(course, key=lambda point: point["lambda1_train"])
        return {
            "status": record.status,
            "epochs": record.epochs,
            "steps": record.steps,
            "samples": cell.training.samples,
            "replayed": replayed,
            "crossings": record.crossings,
            "history": record.history,
            "course": course,
            "peak": {"lambda1": peak["lambda1_train"]} | {k: peak[k] for k in ("epoch", "step", "loss_train")},
            "at_target": None if trained.diverged else next(p for p in course if p["step"] == record.steps),
        }, trained


def _trained(cell: DynamicsCell, run: CellRun, snapshots: Snapshots) -> tuple[Trained, bool]:
    """Return the training with its snapshots, and whether it had to be run once more to have them.

    A training that another study has finished kept no epochs. It is run again in the work folder, and everything is
    measured on this second run, which on another machine may differ from the first by rounding.
    """
    how: dict[str, Any] = {"epoch_end": snapshots}
    if cell.train_epsilon:
        how["perturb"] = partial(fgsm, eps=cell.train_epsilon, softmax="plain")
    report = run.part(0.0, _TRAINED)
    again = run.work.folder / "again"
    if not again.is_dir():
        trained = run.continued(run.config, cell.training_key, report, **how)
        if snapshots.complete(len(trained.record.history) - trained.diverged):
            return trained, False
        snapshots.discard()
    return run.continued(run.config, cell.training_key, report, "training again", again, **how), True


def _measured(cell: DynamicsCell, run: CellRun, trained: Trained, snapshots: Snapshots) -> list[dict[str, Any]]:
    """Return one entry for each state that is measured, in the order of steps; a state is measured once."""
    record = trained.record
    ends = {entry["epoch"]: int(entry["step"]) for entry in record.history}
    states: dict[int, tuple[float, Path | None, bool]] = {0: (0.0, None, cell.measure.min_at_epochs)}
    last = len(record.history) - trained.diverged
    for epoch in snapshots.up_to(last):
        states[ends[epoch]] = (float(epoch), snapshots.path(epoch), cell.measure.min_at_epochs)
    if not trained.diverged:
        end = trained.folder / f"{training.EPOCH_END}.safetensors"
        states[ends[last]] = (float(last), end, cell.measure.min_at_epochs)
    for crossing in record.crossings:
        path = trained.folder / f"{training.stem(crossing['threshold'])}.safetensors"
        states[int(crossing["step"])] = (float(crossing["epoch"]), path, True)
    model, test = run.network().eval(), run.test(cell.measure.test_samples)
    course = Course(model, run.samples, test, cell.measure, cell.training.batch_size, cell.training.seed)
    found, ordered = [], sorted(states.items())
    for number, (step, (place, weights, smallest)) in enumerate(ordered):
        fraction = _TRAINED + (1 - _TRAINED) * number / len(ordered)
        tick = partial(run.report, f"epoch {place:g}", min(fraction, 0.99))
        tick()
        if weights is not None:
            checkpoints.restore(model, weights)
        values = run.work.once(f"step {step}", partial(course.point, step, smallest, tick))
        found.append({"epoch": place, "step": step} | values)
    return found
