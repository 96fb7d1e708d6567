"""The loss along lines and over planes in weight space, and directions that know the scale of the weights."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import InputError, require
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.training.evaluation import evaluate

LabelledImages = tuple[Tensor, Tensor]
Curves = list[list[float]]


def along_direction(
    model: nn.Module,
    direction: Tensor,
    distances: Sequence[float],
    *sets: LabelledImages,
    offset: Tensor | None = None,
    show: Callable[[float], None] | None = None,
) -> Curves:
    r"""Return the mean loss :math:`L(\theta + u + t v)` of each set at each distance t.

    Args:
        model: The model; its weights are restored afterwards, also after an error.
        direction: v, shape ``(n,)`` over every parameter that requires a gradient. It is used as it is: give a unit
            vector for t in units of the weights.
        distances: The values of t.
        sets: Pairs of images and labels; one list of losses is returned for each.
        offset: u, shape ``(n,)``; ``None`` means 0, a line through the weights themselves.
        show: Called with the fraction done after each distance.

    Cost: one forward pass over every set for each distance.

    Raises:
        InputError: ``direction`` or ``offset`` has not the shape ``(n,)``; see also `evaluate`.

    References:
        Paper, section 2.2, Fig. 2.
    """
    space = ParameterSpace(model)
    for name, vector in (("direction", direction), ("offset", offset)):
        if vector is not None and vector.shape != (space.size,):
            raise InputError(f"{name} has an entry for each weight, ({space.size},); given {tuple(vector.shape)}.")
    centre = space.vector()
    start = centre if offset is None else centre + offset.to(centre)
    losses: Curves = [[] for _ in sets]
    try:
        for done, t in enumerate(distances, start=1):
            space.assign(start + t * direction.to(centre))
            for curve, (images, labels) in zip(losses, sets, strict=True):
                curve.append(evaluate(model, images, labels)[0])
            if show is not None:
                show(done / len(distances))
    finally:
        space.assign(centre)
    return losses


def over_plane(
    model: nn.Module,
    directions: Float[Tensor, "n k"],
    distances: Sequence[float],
    *sets: LabelledImages,
    keep: Callable[[int, Callable[[], Curves]], Curves] | None = None,
    show: Callable[[float], None] | None = None,
) -> list[Curves]:
    r"""Return the mean loss :math:`L(\theta + a d_1 + b d_2)` of each set over a square of a and b.

    Args:
        model: The model; its weights are restored afterwards, also after an error.
        directions: d1 and d2 as columns, over every parameter that requires a gradient. They are used as they are.
        distances: The values of a, and of b.
        sets: Pairs of images and labels; one matrix of losses is returned for each, a line for each a.
        keep: Called for every line with its number and the function that computes it; returns the line. It may keep
            lines, so that an interrupted plane goes on. ``None`` computes them all.
        show: Called with the fraction done after each point that is computed.

    Cost: one forward pass over every set for each of the ``len(distances) ** 2`` points.

    Raises:
        InputError: ``directions`` has not two columns of n entries; see also `evaluate`.

    References:
        Paper, section 2.2, Fig. 3.
    """
    size = ParameterSpace(model).size
    require(
        directions.shape == (size, 2),
        f"Two directions are needed as columns, shape ({size}, 2); given {tuple(directions.shape)}.",
    )
    first, second = directions.unbind(1)
    planes: list[Curves] = [[] for _ in sets]
    for number, a in enumerate(distances):

        def line(number: int = number, a: float = a) -> Curves:
            def told(fraction: float) -> None:
                if show is not None:
                    show((number + fraction) / len(distances))

            return along_direction(model, second, distances, *sets, offset=a * first, show=told)

        curves = line() if keep is None else keep(number, line)
        for plane, curve in zip(planes, curves, strict=True):
            plane.append(curve)
    return planes


def filter_normalised(model: nn.Module, count: int, seed: int = 0) -> Float[Tensor, "n k"]:
    r"""Return random directions whose every filter is as long as that filter of the weights.

    .. math:: d_f = \frac{g_f}{\|g_f\|} \, \|\theta_f\|, \qquad g_f \sim N(0, I)

    A filter f is what makes one output channel of a convolution or one output of a linear layer: an entry of the first
    axis of a parameter with two axes or more. Parameters with one axis (biases, batch normalisation) do not move.
    Multiply a filter by c, and every direction does the same: the loss along such a direction, and its curvature
    :math:`d^\top H d`, do not change when a layer is scaled up and the next one down.

    Args:
        model: The model; parameters that require a gradient count, in the order of ``named_parameters()``.
        count: How many directions, at least 1.
        seed: Seed of the directions, the same on every device.

    Returns:
        The directions as columns, in the dtype and on the device of the weights.

    Raises:
        InputError: ``count`` is not positive, or no parameter has two axes.

    References:
        Li, Xu, Taylor, Studer and Goldstein, Visualizing the loss landscape of neural nets, NeurIPS (2018).

    Example:
        >>> model = nn.Linear(3, 2)
        >>> weight = filter_normalised(model, 1)[:6].view(2, 3)
        >>> torch.allclose(weight.norm(dim=1), model.weight.norm(dim=1))
        True
    """
    require(count >= 1, f"The number of directions is at least 1; given {count}.")
    space = ParameterSpace(model)
    if all(tensor.ndim < 2 for tensor in space.tensors):
        raise InputError(f"No parameter has filters, that is two axes or more; given {', '.join(space.names)}.")
    generator = torch.Generator().manual_seed(seed)
    columns = []
    for _ in range(count):
        parts = []
        for tensor in space.tensors:
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            if tensor.ndim < 2:
                parts.append(torch.zeros_like(noise))
                continue
            lengths = tensor.detach().double().flatten(1).norm(dim=1)
            filters = noise.flatten(1)
            parts.append(filters / filters.norm(dim=1, keepdim=True) * lengths[:, None])
        columns.append(torch.cat([part.reshape(-1) for part in parts]))
    return torch.stack(columns, 1).to(space.dtype)
