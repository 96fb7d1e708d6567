"""Directions, balls and boxes in the space of images, one sample at a time.

Every function takes images ``(n, ...)`` and treats the samples separately; sums run in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hbanalysis.errors import unknown_name

Clip = tuple[float, float] | None


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Return values ``(n,)`` in the dtype of images, shaped so that they multiply images."""
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def lengths(perturbation: Tensor, norm: str) -> Tensor:
    """Return the norm of each sample, ``(n,)`` in float64; ``norm`` is ``"inf"`` or ``"2"``.

    Example:
        >>> lengths(torch.tensor([[3.0, -4.0]]), "2"), lengths(torch.tensor([[3.0, -4.0]]), "inf")
        (tensor([5.], dtype=torch.float64), tensor([4.], dtype=torch.float64))
    """
    flat = perturbation.flatten(1).double()
    return flat.abs().amax(1) if norm == "inf" else flat.square().sum(1).sqrt()


def signs(direction: Tensor) -> Tensor:
    """Return the sign of every component; 0 throughout a sample whose direction is not finite."""
    return torch.where(_finite(direction), direction, 0).sign()


def units(direction: Tensor) -> Tensor:
    """Return each sample's direction with Euclidean length 1; 0 if it is zero or not finite.

    Example:
        >>> units(torch.tensor([[3e-30, 4e-30], [0.0, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000]])
    """
    direction = torch.where(_finite(direction), direction, 0)
    # The largest component comes out first: squares of 1e-30 underflow in float32.
    largest = per_sample(direction.flatten(1).abs().amax(1), direction)
    scaled = torch.where(largest > 0, direction / largest, 0)
    length = per_sample(lengths(scaled, "2"), direction)
    return torch.where(length > 0, scaled / length, 0)


# The steepest ascent of length 1 in each norm.
ASCENTS: dict[str, Callable[[Tensor], Tensor]] = {"inf": signs, "2": units}


def ascent(norm: str) -> Callable[[Tensor], Tensor]:
    """Return the map from a gradient to the direction of steepest ascent in a norm.

    Raises:
        InputError: The norm is neither ``"inf"`` nor ``"2"``.
    """
    if norm not in ASCENTS:
        raise unknown_name("norm", norm, ASCENTS)
    return ASCENTS[norm]


def project(perturbation: Tensor, eps: Tensor, norm: str) -> Tensor:
    """Return the nearest perturbation of length at most ``eps``, one radius ``(n,)`` a sample.

    Example:
        >>> project(torch.tensor([[3.0, -4.0]]), torch.tensor([1.0]), "2")
        tensor([[ 0.6000, -0.8000]])
    """
    radius = per_sample(eps, perturbation)
    if norm == "inf":
        return perturbation.clamp(-radius, radius)
    length = lengths(perturbation, norm)
    shrink = torch.where(length > eps, eps / length, 1.0)
    return perturbation * per_sample(shrink, perturbation)


def clipped(x: Tensor, clip: Clip) -> Tensor:
    """Return images clamped to a range; ``None`` leaves them as they are."""
    return x if clip is None else x.clamp(*clip)


def _finite(direction: Tensor) -> Tensor:
    finite = torch.isfinite(direction.flatten(1)).all(1)
    return finite.reshape(-1, *[1] * (direction.ndim - 1))
