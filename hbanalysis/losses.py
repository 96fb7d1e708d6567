"""Per-sample losses with right second derivatives, also on samples that a network has long learned."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from hbanalysis.errors import unknown_name

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Float[Tensor, "n c"], labels: Int64[Tensor, " n"]) -> Float[Tensor, " n"]:
    r"""Return the cross-entropy of each sample, from logits relative to the label.

    .. math:: \ell = \log\Bigl(1 + \sum_{k \ne y} e^{z_k - z_y}\Bigr)

    In float32 the textbook form ``logsumexp(z) - z_y`` loses all digits of the curvature once 1 - p_y falls below the
    rounding unit; here value, gradient and curvature keep their relative precision however small 1 - p_y is.

    Example:
        >>> cross_entropy(torch.tensor([[0.0, 30.0]]), torch.tensor([1])).item() > 9e-14
        True
    """
    relative = logits - logits.gather(1, labels[:, None])
    is_label = F.one_hot(labels, logits.shape[1]).bool()
    others = torch.logsumexp(relative.masked_fill(is_label, -torch.inf), dim=1)
    # log(1 + e^s) with softplus taken at -|s|: its second derivative p (1 - p) then never subtracts from 1.
    return torch.where(others > 0, others + F.softplus(-others), F.softplus(others))


def squared_error(outputs: Float[Tensor, "n c"], targets: Tensor) -> Float[Tensor, " n"]:
    """Return ``sum_k (z_k - t_k)^2`` of each sample; integer targets count as one-hot vectors."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[1]).to(outputs.dtype)
    return (outputs - targets).square().flatten(1).sum(1)


LOSSES: dict[str, PerSampleLoss] = {"cross_entropy": cross_entropy, "squared_error": squared_error}


def resolve(loss: str | PerSampleLoss) -> PerSampleLoss:
    """Return the per-sample loss for a name, or the callable itself.

    A callable maps outputs ``(n, ...)`` and targets to ``n`` losses, one a sample.

    Raises:
        InputError: Unknown name.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise unknown_name("loss", loss, LOSSES)
    return LOSSES[loss]
