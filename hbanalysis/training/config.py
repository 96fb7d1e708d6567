"""What decides a training: its configuration and the name of its checkpoints."""

import math
from dataclasses import asdict, dataclass
from numbers import Integral

import torch
from torch import nn

from hbanalysis import networks
from hbanalysis.data import DATASETS
from hbanalysis.errors import InputError, require, unknown_name
from hbanalysis.files import digest
from hbanalysis.training.schedules import learning_rate

_SEEDS = 1 << 32  # the seed of an epoch's order is a multiple of the training's and must fit PyTorch's 64 bits
REVISION = 1  # raised when a change in the training changes what a configuration means


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a training; its hash names the checkpoints.

    Attributes:
        dataset: Name of the data set.
        network: ``C1``, ``C2``, ``C3``, ``M1`` or ``CR``.
        batch_size: Samples a step; the last step of an epoch takes what is left.
        seed: Seed of initialisation and order, in 0..2^32 - 1.
        train_samples: The first n training samples; ``None`` takes all.
        activation: See `hbanalysis.networks.activation`.
        learning_rate: Initial learning rate.
        momentum: Heavy-ball momentum.
        schedule: See `hbanalysis.training.schedules`.
        target_loss: Mean training loss (whole set, eval mode) that ends the training; ``None`` trains ``max_epochs``.
        max_epochs: Cap, reported when the target was not reached.
        precision: ``float32``, or ``bfloat16`` for autocast in training steps only.
        ghost_batch: Samples that share batch-normalisation statistics; ``None`` means the whole batch.
    """

    dataset: str
    network: str
    batch_size: int
    seed: int = 0
    train_samples: int | None = None
    activation: str = "relu"
    learning_rate: float = 0.01
    momentum: float = 0.9
    schedule: str = "constant"
    target_loss: float | None = 1e-3
    max_epochs: int = 1000
    precision: str = "float32"
    ghost_batch: int | None = None

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise unknown_name("data set", self.dataset, DATASETS)
        if self.network not in networks.names():
            raise unknown_name("network", self.network, networks.names())
        for name in ("batch_size", "seed", "train_samples", "max_epochs", "ghost_batch"):
            given = getattr(self, name)
            whole = isinstance(given, Integral) or (given is None and name in ("train_samples", "ghost_batch"))
            require(whole, f"{name} must be an integer; given {given!r}.")
        networks.activation(self.activation)
        learning_rate(self.schedule, self.learning_rate, 0)
        size = self.samples
        require(
            1 <= self.batch_size <= size,
            f"batch_size must lie in 1..{size} (the training set); given {self.batch_size}.",
        )
        require(
            0 < self.learning_rate < math.inf, f"learning_rate must be positive and finite; given {self.learning_rate}."
        )
        require(0 <= self.seed < _SEEDS, f"seed must lie in 0..{_SEEDS - 1}; given {self.seed}.")
        require(0 <= self.momentum < 1, f"momentum must lie in [0, 1); given {self.momentum}.")
        target = self.target_loss
        require(target is None or 0 < target < math.inf, f"target_loss must be positive and finite; given {target}.")
        ghosts = self.ghost_batch
        require(ghosts is None or ghosts >= 1, f"ghost_batch must be at least 1; given {ghosts}.")
        require(self.max_epochs >= 1, f"max_epochs must be at least 1; given {self.max_epochs}.")
        if self.precision not in ("float32", "bfloat16"):
            raise unknown_name("precision", self.precision, ("float32", "bfloat16"))

    @property
    def samples(self) -> int:
        """Number of training samples.

        Raises:
            InputError: More samples asked for than the set has.
        """
        size = DATASETS[self.dataset].splits["train"]
        if self.train_samples is None:
            return size
        if not 1 <= self.train_samples <= size:
            raise InputError(f"train_samples must lie in 1..{size}; given {self.train_samples}.")
        return self.train_samples

    @property
    def key(self) -> str:
        """Return the name of the checkpoints, the hash of configuration and training revision."""
        return digest({"training": asdict(self), "revision": REVISION})[:20]

    def network_on(self, device: str | torch.device) -> nn.Sequential:
        """Return the freshly initialised network on a device.

        On a CPU it is laid out channels last, the faster layout for convolutions there; nothing but rounding changes.
        """
        description = DATASETS[self.dataset]
        model = networks.build(
            self.network,
            description.shape,
            description.classes,
            activation_name=self.activation,
            seed=self.seed,
            device=device,
        )
        return model.to(memory_format=torch.channels_last) if torch.device(device).type == "cpu" else model
