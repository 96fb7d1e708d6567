"""What the adversarial studies share: the attacks, their sizes and reading, and how copies are trained on."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from hbanalysis.attacks import READINGS, Attack
from hbanalysis.errors import require, unknown_name
from hbanalysis.files import digest
from hbanalysis.lineup import CONTROL
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.training import REVISION, TrainingConfig
from hbanalysis.training.schedules import learning_rate

SOFTMAX = "plain"  # PyTorch's own cross-entropy, as in the paper; what it loses where the model is sure is shown


@dataclass(frozen=True)
class AttackSizes:
    """How far the attacks go.

    Attributes:
        eps_inf: Size of FGSM, FGSM-10 and FHSM in the maximum norm, in units of [0, 1].
        eps_2: Size of L2GRAD and L2HESS in the Euclidean norm, in the same units.
    """

    eps_inf: float = 0.1
    eps_2: float = 2.8

    def __post_init__(self) -> None:
        require(0 < self.eps_inf <= 1, f"eps_inf must lie in (0, 1]; given {self.eps_inf}.")
        require(self.eps_2 > 0, f"eps_2 must be positive; given {self.eps_2}.")


@dataclass(frozen=True)
class Adversary(AttackSizes):
    """The five attacks of the paper at one size, in one reading.

    Attributes:
        reading: Name of a reading of the paper; see `hbanalysis.attacks.READINGS`.
    """

    reading: str = "H2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reading not in READINGS:
            raise unknown_name("reading", self.reading, READINGS)

    def attacks(self, **changes: Any) -> dict[str, Attack]:
        """Return the attacks by their names in the paper; ``changes`` are fields of the reading."""
        reading = replace(READINGS[self.reading], **changes)
        return reading.attacks(self.eps_inf, self.eps_2, softmax=SOFTMAX)


@dataclass(frozen=True)
class Robust:
    """How a copy of the original model is trained on against an attack.

    Attributes:
        epochs: Additional epochs.
        learning_rate: Initial learning rate.
        schedule: See `hbanalysis.training.schedules`.
    """

    epochs: int = 5
    learning_rate: float = 0.01
    schedule: str = "constant"

    def __post_init__(self) -> None:
        require(self.epochs >= 1, f"robust_epochs must be at least 1; given {self.epochs}.")
        learning_rate(self.schedule, self.learning_rate, 0)

    def training(self, base: TrainingConfig) -> TrainingConfig:
        """Return the training that continues ``base``."""
        return replace(
            base,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            target_loss=None,
            max_epochs=self.epochs,
        )

    def key(self, base: TrainingConfig, adversary: Adversary, model: str) -> str:
        """Return the name of the checkpoints of one of `MODELS` but the original."""
        attack = None if model == CONTROL else {"name": model, "softmax": SOFTMAX, **asdict(adversary)}
        what = {"start": base.key, "training": asdict(self.training(base)), "attack": attack, "revision": REVISION}
        return digest({"fine_tuning": what})[:20]


_M1 = TrainingConfig("mnist", "M1", 128, schedule="step(5, 0.5)", target_loss=None, max_epochs=100)
_C3 = TrainingConfig("cifar10", "C3", 128, schedule="step(5, 0.5)", target_loss=None, max_epochs=100)
_DIGITS = TrainingConfig("digits", "M1", 32, schedule="step(20, 0.5)", target_loss=None, max_epochs=60)
_SMALL = replace(_C3, batch_size=32, train_samples=2000, schedule="step(20, 0.5)", max_epochs=60)
_TINY = TrainingConfig("digits", "M1", 50, train_samples=200, target_loss=None, max_epochs=4)
MNIST, CIFAR = Adversary(0.1, 2.8), Adversary(0.02, 1.2)
# By scale: original training, sizes of the attacks, seeds.
PRESETS: dict[str, tuple[tuple[TrainingConfig, Adversary, tuple[int, ...]], ...]] = {
    "tiny": ((_TINY, MNIST, (0,)),),
    "digits": ((_DIGITS, MNIST, (0, 1, 2)),),
    "mnist": ((_M1, MNIST, (0,)),),
    "small": ((_SMALL, CIFAR, (0,)),),
    "paper": ((_M1, MNIST, (0, 1, 2, 3, 4)), (_C3, CIFAR, (0, 1, 2))),
}
# The paper's on CIFAR-10; elsewhere five epochs at one rate, as on MNIST.
_CONTINUED = {"cifar10": Robust(10, 0.01, "step(5, 0.5)")}


def families(scale: str, chosen: Mapping[str, Any]) -> Iterator[tuple[TrainingConfig, Adversary, Robust]]:
    """Yield the original trainings of a preset, seed by seed, each with its attacks and how copies are trained on."""
    for base, adversary, seeds in PRESETS[scale]:
        robust = Robust(epochs=1) if scale == "tiny" else _CONTINUED.get(base.dataset, Robust())
        robust = replace(robust, epochs=chosen.get("robust_epochs", robust.epochs))
        for seed in chosen.get("seeds", seeds):
            yield changed(base, {**chosen, "seed": seed}), changed(adversary, chosen), robust


def trained_copy(
    run: CellRun, adversary: Adversary, robust: Robust, original: Trained, model: str, report: CellProgress
) -> Trained:
    """Return the copy of the original model that was trained on as one of `MODELS`.

    Raises:
        NumericalError: The training diverged.
    """
    how: dict[str, Any] = {"start": original.path, "perturb": adversary.attacks().get(model)}
    config, key = robust.training(run.config), robust.key(run.config, adversary, model)
    return run.continued(config, key, report, f"training {model}", **how).demanded(model)
