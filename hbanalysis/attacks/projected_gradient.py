"""Projected gradient ascent with random starts: the strong first-order attack that weaker ones are judged by."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hbanalysis.attacks.batches import attacked, check_choices
from hbanalysis.attacks.geometry import Clip, ascent, clipped, lengths, per_sample, project
from hbanalysis.attacks.gradients import gradient, logits_of, margins
from hbanalysis.errors import require, unknown_name
from hbanalysis.inputs.logits import Labels

LOSSES = ("cross_entropy", "margin")
_STRIDE = 2.5  # steps together reach this many times as far as the ball, so its border is within reach of any start


def pgd(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: Clip = (0.0, 1.0),
    norm: str = "inf",
    steps: int = 20,
    step_size: float | None = None,
    restarts: int = 1,
    random_start: bool = True,
    loss: str = "cross_entropy",
    seed: int = 0,
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the strongest perturbation that projected gradient ascent finds in a ball.

    .. math:: x_{t+1} = \mathrm{clip}\,\Pi_{\|\cdot - x\| \le \epsilon}\bigl(x_t + \alpha \, u_t\bigr)

    where :math:`u_t` is the sign of the gradient (maximum norm) or the gradient divided by its length (Euclidean norm).
    Of all points visited, in all restarts, each sample gets the one with the largest margin
    :math:`\max_{k \ne y} z_k - z_y`: misclassified if any of them was, and never weaker with more restarts.

    A random start is drawn uniformly from the ball, the same for all samples up to their ``eps``: a sample's result
    depends on ``seed``, and neither on its place nor on the other samples. PyTorch's own random state is not used.

    Args:
        model: See `fgsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        eps: Size in the chosen norm; see `fgsm`.
        clip: See `fgsm`.
        norm: ``"inf"`` or ``"2"``.
        steps: Steps of each restart, at least 1.
        step_size: :math:`\alpha`, in units of images in [0, 1]; ``None`` means 2.5 eps / steps.
        restarts: Number of starts, at least 1.
        random_start: ``False`` makes the image itself the first start; further ones are random all the same.
        loss: ``"cross_entropy"``, or ``"margin"``, which has a gradient wherever the logits have one.
        seed: Seed of the starts.
        softmax: Form of the cross-entropy; see `fgsm`. The margin has none.
        batch_size: See `fgsm`.

    Cost: ``restarts`` times ``steps`` input gradients, and a forward pass each.

    Raises:
        InputError: See `fgsm`; an unknown norm or loss, a count below 1, a step that is not positive and finite.
        NumericalError: See `fgsm`.

    References:
        Madry et al., ICLR 2018; the margin loss: Carlini and Wagner, 2017.

    Example:
        >>> model, x = nn.Linear(1, 2), torch.tensor([[0.5]])
        >>> (pgd(model, x, torch.tensor([0]), 0.25) - x).abs()
        tensor([[0.2500]])
    """
    check_choices(softmax, steps=steps, restarts=restarts)
    up = ascent(norm)
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    require(
        step_size is None or (math.isfinite(step_size) and step_size > 0),
        f"step_size is a distance above 0, or None for {_STRIDE} eps / steps; given {step_size}.",
    )
    objective = "margin" if loss == "margin" else softmax

    def search(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        stride = per_sample(eps * _STRIDE / steps if step_size is None else torch.full_like(eps, step_size), x)
        best, highest = x, torch.full_like(eps, -torch.inf)
        check = True
        for start in _starts(x, eps, norm, restarts, random_start, seed):
            point = clipped(x + start, clip)
            for _ in range(steps):
                g, logits = gradient(model, point, labels, objective, check=check)
                best, highest = _better(best, highest, point, logits, labels)
                check = False
                point = clipped(x + project(point + stride * up(g) - x, eps, norm), clip)
            with torch.no_grad():
                best, highest = _better(best, highest, point, logits_of(model, point), labels)
        return best

    return attacked(search, model, x, labels, eps, clip, batch_size)


def _starts(x: Tensor, eps: Tensor, norm: str, restarts: int, random_start: bool, seed: int) -> Iterator[Tensor]:
    """Yield the starting perturbations, drawn on the CPU in float64 so that every device and dtype gets the same."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(restarts):
        if norm == "inf":
            noise = 2 * torch.rand(x.shape[1:], generator=generator, dtype=torch.float64)[None] - 1
        else:
            noise = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)[None]
            radius = torch.rand((), generator=generator, dtype=torch.float64) ** (1 / noise.numel())
            noise = radius * noise / lengths(noise, norm)
        if number == 0 and not random_start:
            yield torch.zeros_like(x)
        else:
            yield per_sample(eps, x) * noise.to(x)


def _better(best: Tensor, highest: Tensor, point: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    reached = margins(logits, labels).double()
    higher = reached > highest
    return torch.where(higher.reshape(-1, *[1] * (best.ndim - 1)), point, best), torch.where(higher, reached, highest)
