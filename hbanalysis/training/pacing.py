"""What decides how the steps of an epoch are taken: batch size, learning rate, perturbation of the images."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hbanalysis.adaptive_batch import AdaptiveBatch
from hbanalysis.attacks import fgsm
from hbanalysis.data import Samples
from hbanalysis.eigen.power import power_iteration
from hbanalysis.errors import NumericalError, require
from hbanalysis.operators import WeightHessian
from hbanalysis.training.config import TrainingConfig
from hbanalysis.training.schedules import learning_rate

Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]
Entry = Mapping[str, int | float]
CURVATURE = "lambda1"  # in an epoch's entry of the history


@dataclass(frozen=True)
class Pace:
    """How the steps of one epoch are taken.

    Attributes:
        batch_size: Samples a step; the last step takes what is left.
        learning_rate: Of every step.
        perturb: Changes the images, ``(model, images, labels) -> images``.
        notes: What the epoch's entry in the history says of it.
    """

    batch_size: int
    learning_rate: float
    perturb: Perturb | None = None
    notes: Entry = field(default_factory=dict)


@runtime_checkable
class Pacing(Protocol):
    """Decides the pace of each epoch from the history alone, so that an interrupted training goes on the same way."""

    def pace(self, history: Sequence[Entry]) -> Pace:
        """Return the pace of the epoch after those in the history."""
        ...

    def observe(self, epoch: int, model: nn.Module) -> dict[str, int | float]:
        """Return what the history shall hold of the end of an epoch (1, 2, ...); leave the model as it was."""
        ...


@dataclass(frozen=True)
class Steady:
    """The pace of a configuration: one batch size, and the learning rate of its schedule."""

    config: TrainingConfig
    perturb: Perturb | None = None

    def pace(self, history: Sequence[Entry]) -> Pace:
        """See `Pacing`."""
        config = self.config
        rate = learning_rate(config.schedule, config.learning_rate, len(history))
        return Pace(config.batch_size, rate, self.perturb)

    def observe(self, epoch: int, model: nn.Module) -> dict[str, int | float]:
        """See `Pacing`; nothing is observed."""
        return {}


@dataclass(frozen=True)
class Watch:
    """How curvature is watched and images are attacked while the batch grows.

    The defaults of samples, products, tolerance, epsilon and attacked are those of the authors' code.

    Attributes:
        samples: Random training samples of the Hessian, drawn anew for each epoch; all where there are fewer.
        products: Most products of the power iteration, at least 2.
        tolerance: Relative change of the eigenvalue at which it ends before.
        epsilon: FGSM size, in units of images in [0, 1].
        attacked: Part of all epochs, from the first, in which images are attacked, in [0, 1].
        warm_up: Epochs over which the learning rate rises linearly to that of its schedule.
    """

    samples: int = 128
    products: int = 10
    tolerance: float = 1e-2
    epsilon: float = 0.005
    attacked: float = 0.5
    warm_up: int = 0

    def __post_init__(self) -> None:
        require(self.samples >= 1, f"samples must be at least 1; given {self.samples}.")
        require(self.products >= 2, f"products must be at least 2, to see a change; given {self.products}.")
        require(0 < self.tolerance < 1, f"tolerance must lie in (0, 1); given {self.tolerance}.")
        require(0 <= self.epsilon <= 1, f"epsilon must be a size in [0, 1]; given {self.epsilon}.")
        require(0 <= self.attacked <= 1, f"attacked must be a part in [0, 1]; given {self.attacked}.")
        require(self.warm_up >= 0, f"warm_up must be a number of epochs, at least 0; given {self.warm_up}.")


@dataclass(frozen=True)
class Adaptive:
    r"""The pace of a batch that grows as curvature falls: `AdaptiveBatch` on the largest Hessian eigenvalue.

    The eigenvalue is that of largest modulus, with its sign, of the mean loss over a few random training samples, in
    eval mode, as far as a few power iterations find it: a rough number. In epoch :math:`e`
    (counted from 0) with the ratio :math:`r` of the rule, a step has :math:`r B_0` samples and the learning rate
    :math:`r\, \eta(e)\, \min(1, (e + 1) / w)`, where :math:`\eta` is the configuration's schedule and :math:`w` the
    epochs of warm-up. Of each micro-batch of n samples the first :math:`\lfloor \gamma n \rfloor` are replaced by their
    FGSM images, clamped to [0, 1]; the order of an epoch is random, and so is the choice.

    Args:
        config: The training; its batch size is :math:`B_0`.
        samples: The training set.
        rule: When the batch grows.
        watch: How curvature is watched and images are attacked.

    Cost: ``watch.products`` Hessian-vector products of ``watch.samples`` samples an epoch, and one input gradient an
    attacked image.

    References:
        Yao, Gholami, Keutzer and Mahoney, arXiv:1810.01021. In the authors' code the share of attacked images is taken
        of each batch of :math:`B_0`, and what is left at the end of an epoch is dropped; here it is a smaller step.
    """

    config: TrainingConfig
    samples: Samples
    rule: AdaptiveBatch
    watch: Watch = Watch()

    def __post_init__(self) -> None:
        largest = self.rule.limit * self.config.batch_size
        require(
            largest <= self.config.samples,
            f"The largest batch, {self.rule.limit} times {self.config.batch_size}, is larger than the training set of "
            f"{self.config.samples}. Lower limit or batch_size.",
        )

    def pace(self, history: Sequence[Entry]) -> Pace:
        """See `Pacing`."""
        epoch, config, watch = len(history), self.config, self.watch
        stage = self.rule.stages(float(entry[CURVATURE]) for entry in history)[-1]
        rate = stage.ratio * learning_rate(config.schedule, config.learning_rate, epoch)
        if epoch < watch.warm_up:
            rate *= (epoch + 1) / watch.warm_up
        share = stage.share if epoch < watch.attacked * config.max_epochs else 0.0
        size = stage.ratio * config.batch_size
        perturb = partial(attack_some, share=share, epsilon=watch.epsilon) if share and watch.epsilon else None
        return Pace(size, rate, perturb, {"batch_size": size, "share": share if perturb else 0.0})

    def observe(self, epoch: int, model: nn.Module) -> dict[str, int | float]:
        """See `Pacing`; the largest eigenvalue, not a number where the weights have none."""
        generator = torch.Generator().manual_seed(1_000_003 * (self.config.seed + 1) + epoch)
        chosen = torch.randperm(len(self.samples), generator=generator)[: self.watch.samples]
        rows = chosen.to(self.samples.images.device)
        H = WeightHessian(model, self.samples.images[rows], self.samples.labels[rows], engine="graph")
        watch = self.watch
        try:
            pairs = power_iteration(H, 1, tol=watch.tolerance, max_products=watch.products, seed=epoch)
        except NumericalError:  # the last step led out of the numbers; the next losses end the training as diverged
            return {CURVATURE: math.nan}
        return {CURVATURE: pairs.values[0].item()}


def attack_some(model: nn.Module, images: Tensor, labels: Tensor, *, share: float, epsilon: float) -> Tensor:
    r"""Return images of which the first :math:`\lfloor \gamma n \rfloor` are replaced by their FGSM images.

    Args:
        model: Maps images to logits; left as it was.
        images: Images ``(n, ...)`` in [0, 1].
        labels: Labels ``(n,)``.
        share: The share :math:`\gamma`, in [0, 1].
        epsilon: FGSM size, in units of images in [0, 1].

    Example:
        >>> images = torch.full((4, 1), 0.5)
        >>> attack_some(nn.Linear(1, 2), images, torch.tensor([0, 1, 0, 1]), share=0.5, epsilon=0.25).sub(0.5).abs()
        tensor([[0.2500],
                [0.2500],
                [0.0000],
                [0.0000]])
    """
    count = math.floor(share * len(images))
    if not count:
        return images
    return torch.cat([fgsm(model, images[:count], labels[:count], epsilon, softmax="plain"), images[count:]])
