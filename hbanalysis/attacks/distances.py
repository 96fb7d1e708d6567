"""The smallest size at which an attack succeeds, sample by sample."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hbanalysis.attacks.batches import check_images
from hbanalysis.attacks.evaluation import still_correct
from hbanalysis.attacks.geometry import Clip, ascent
from hbanalysis.attacks.projected_gradient import pgd
from hbanalysis.errors import InputError, require
from hbanalysis.inputs.logits import Labels
from hbanalysis.operators.guards import unwrapped

SizedAttack = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]  # (model, x, labels, eps) with eps (n,)
_FIRST = 1 / 256  # of the upper end: where the search begins


@dataclass(frozen=True)
class MinimalDistance:
    """What `minimal_distance` found.

    Attributes:
        eps: The smallest size tried at which the attack succeeded, ``(n,)`` in float64; 0 where the sample is
            misclassified as it is, infinite where no size up to ``upper`` succeeded.
        failed: The largest size below it at which the attack failed, ``(n,)``: the change lies between the two.
        tolerance: Bound of ``eps - failed`` for every sample with a finite size, unless no float64 lies in between.
        upper: The largest size tried.
    """

    eps: Float[Tensor, " n"]
    failed: Float[Tensor, " n"]
    tolerance: float
    upper: float

    @property
    def found(self) -> Bool[Tensor, " n"]:
        """Whether the attack succeeded at any size, ``(n,)``."""
        return self.eps.isfinite()


def minimal_distance(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    norm: str = "inf",
    attack: SizedAttack | None = None,
    clip: Clip = (0.0, 1.0),
    upper: float | None = None,
    tolerance: float = 1e-3,
) -> MinimalDistance:
    """Return the smallest size at which an attack succeeds, for each sample, by bisection.

    The size is doubled from upper / 256 until the attack succeeds, and the last interval is then halved until it is no
    longer than ``tolerance``, or no number lies inside. The result is an upper bound of the distance to the nearest
    adversarial image, as good as the attack. Where success is not monotone in the size, it is one of the changes from
    failure to success.

    Args:
        model: See `fgsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        norm: ``"inf"`` or ``"2"``; decides the default attack and ``upper``.
        attack: ``(model, x, labels, eps) -> x_adv`` with one size a sample; every attack of this package qualifies.
            ``None`` means `pgd` on the margin loss, 40 steps from the image.
        clip: Range of images for the default attack, and for ``upper``.
        upper: The largest size tried; ``None`` means the diameter of the box ``clip`` in the norm.
        tolerance: Length of the interval, in units of images in [0, 1].

    Cost: at most 9 + log2(upper / 2 / tolerance) attacks on the samples whose size is still open.

    Raises:
        InputError: See `fgsm`; ``tolerance`` or ``upper`` not positive, or neither ``upper`` nor ``clip`` given.
        NumericalError: See `fgsm`.

    Example:
        For a linear model the distance in the maximum norm is the margin over the 1-norm of the difference of rows:

        >>> x = torch.tensor([[0.8, 0.2], [0.55, 0.5], [0.1, 0.9]])
        >>> minimal_distance(nn.Identity(), x, torch.tensor([0, 0, 0]), tolerance=1e-4).eps.mul(1e3).round()
        tensor([300.,  25.,   0.], dtype=torch.float64)
    """
    ascent(norm)
    numbers = check_images(unwrapped(model), x, labels, clip)
    require(math.isfinite(tolerance) and tolerance > 0, f"tolerance is a distance above 0; given {tolerance}.")
    if attack is None:
        attack = partial(pgd, clip=clip, norm=norm, steps=40, random_start=False, loss="margin")
    largest = _diameter(x, clip, norm) if upper is None else upper
    require(math.isfinite(largest) and largest > 0, f"upper is a distance above 0 and finite; given {upper}.")
    right = still_correct(model, x, numbers)
    low = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    high = torch.where(right, torch.inf, 0.0).double()
    first = _FIRST * largest or largest  # of the smallest numbers such a part is 0
    while len(rows := _open(low, high, largest, tolerance)):
        doubled = torch.where(low[rows] > 0, 2 * low[rows], first).clamp(max=largest)
        eps = torch.where(high[rows].isinf(), doubled, (low[rows] + high[rows]) / 2)
        failed = still_correct(model, attack(model, x[rows], numbers[rows], eps), numbers[rows])
        low[rows] = torch.where(failed, eps, low[rows])
        high[rows] = torch.where(failed, high[rows], eps)
    return MinimalDistance(high, low, tolerance, largest)


def _open(low: Tensor, high: Tensor, largest: float, tolerance: float) -> Tensor:
    middle = (low + high) / 2
    divisible = (high - low > tolerance) & (low < middle) & (middle < high)
    unknown = torch.where(high.isinf(), low < largest, divisible)
    return unknown.nonzero().flatten()


def _diameter(x: Tensor, clip: Clip, norm: str) -> float:
    if clip is None:
        raise InputError("Without clip the images have no diameter; give upper=, the largest size to try.")
    side = clip[1] - clip[0]
    return side if norm == "inf" else side * math.sqrt(x[0].numel() if len(x) else 1)
