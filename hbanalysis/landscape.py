"""The loss along directions in weight space."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from hbanalysis.evaluation import evaluate
from hbanalysis.parameters import ParameterSpace

LabelledImages = tuple[Tensor, Tensor]


def along_direction(
    model: nn.Module,
    direction: Tensor,
    distances: Sequence[float],
    *sets: LabelledImages,
    show: Callable[[float], None] | None = None,
) -> list[list[float]]:
    r"""Return the mean loss :math:`L(\theta + t v)` of each set at each distance t.

    Args:
        model: The model; its weights are restored afterwards, also after an error.
        direction: v, shape ``(n,)`` over every parameter that requires a gradient. It is used as it is: give a unit
            vector for t in units of the weights.
        distances: The values of t.
        sets: Pairs of images and labels; one list of losses is returned for each.
        show: Called with the fraction done after each distance.

    Cost: one forward pass over every set for each distance.

    References:
        Paper, section 2.2, Fig. 2.
    """
    space = ParameterSpace(model)
    centre = space.vector()
    losses: list[list[float]] = [[] for _ in sets]
    try:
        for done, t in enumerate(distances, start=1):
            space.assign(centre + t * direction.to(centre))
            for curve, (images, labels) in zip(losses, sets, strict=True):
                curve.append(evaluate(model, images, labels)[0])
            if show is not None:
                show(done / len(distances))
    finally:
        space.assign(centre)
    return losses
