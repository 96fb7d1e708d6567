r"""What attacks ascend: gradients and curvature products in the images, each sample's own.

Three objectives have names:

``"relative"``
    Cross-entropy from logits relative to the label, by way of the log-odds s against the label (`log_odds`). The
    direction is that of the cross-entropy and never underflows, however sure the model is.
``"plain"``
    Cross-entropy as PyTorch computes it. In float32, where 1 - p_y is below 6e-8, loss and gradient lose the part of
    the label's logit, and where the label leads by more than 104 the gradient is exactly zero.
``"margin"``
    :math:`\max_{k \ne y} z_k - z_y`, positive where the sample is misclassified.

All derivatives are those of the sum over samples, so a sample's result does not depend on its batch.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbanalysis.errors import InputError, NumericalError, require
from hbanalysis.operators import objective as objectives
from hbanalysis.operators.guards import once_differentiable_functions, twice_differentiable

SOFTMAX = ("relative", "plain")


def logits_of(model: nn.Module, x: Tensor) -> Tensor:
    """Return the logits ``(n, c)`` of images; ``.logits`` or ``["logits"]`` of the model's output, if it has any.

    The model is given a copy of the images, so it may write into it.

    Raises:
        InputError: The output is not one row of at least two logits a sample.
    """
    logits = objectives.logits_of(model(x.clone()))
    if not isinstance(logits, Tensor):
        kind = "dict" if isinstance(logits, Mapping) else type(logits).__name__
        raise InputError(f"Attacks need one tensor of logits (n, c), or .logits; the model returned a {kind}.")
    require(
        logits.ndim == 2 and len(logits) == len(x) and logits.shape[1] >= 2,
        f"Attacks need logits (n, c) with at least 2 classes; for images {tuple(x.shape)} the model returned "
        f"{tuple(logits.shape)}. A model with one logit z is wrapped to return [0, z].",
    )
    return logits


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise unless logits are finite and labels are numbers of classes. Reads the device once.

    Raises:
        InputError: A label is out of range.
        NumericalError: A logit is NaN or infinite.
    """
    classes = logits.shape[1]
    outside = (labels < 0) | (labels >= classes)
    broken = ~torch.isfinite(logits).all(1)
    wrong, lost = torch.stack([outside.sum(), broken.sum()]).tolist()
    if wrong:
        raise InputError(
            f"The label {int(labels[outside][0])} is out of range: the model has {classes} outputs, so labels lie in "
            f"0..{classes - 1}. {wrong} labels of this chunk are out of range."
        )
    if lost:
        raise NumericalError(
            f"The logits of {lost} of {len(logits)} images are not finite; check the weights and the images."
        )


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the log-odds against the label of each sample, ``(n,)``.

    .. math:: s = \log \sum_{k \ne y} e^{z_k - z_y} = \log \frac{1 - p_y}{p_y}

    The cross-entropy is :math:`\log(1 + e^s)` and its slope in s is 1 - p_y, so both have the same direction of
    steepest ascent; s itself never underflows.

    Example:
        >>> log_odds(torch.tensor([[0.0, 300.0]]), torch.tensor([1]))
        tensor([-300.])
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    # Relative to the largest other logit, not to the label's: a lead of 1e4 would round their differences to 1e-3.
    largest = others.detach().amax(1, keepdim=True)
    return torch.logsumexp(others - largest, dim=1) - (own - largest)[:, 0]


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the largest other logit less that of the label, ``(n,)``.

    Example:
        >>> margins(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
        tensor([-1.])
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def _plain(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "relative": log_odds,
    "plain": _plain,
    "margin": margins,
}


def gradient(model: nn.Module, x: Tensor, labels: Tensor, objective: str, check: bool = False) -> tuple[Tensor, Tensor]:
    """Return the gradient of each sample's objective in its image, and the logits.

    Args:
        model: In eval mode, gradients on.
        x: Images ``(n, ...)``.
        labels: Labels ``(n,)``, int64.
        objective: A name of this module.
        check: Also check the logits and labels, which waits for the device: for the first pass over a chunk.

    Cost: one input gradient.

    Raises:
        InputError: The output cannot be differentiated in the images.
        NumericalError: See `check_logits`.
    """
    inputs, logits, total = _forward(model, x, labels, objective, check)
    return _derivative(total, inputs, graph=False), logits.detach()


class Curvature:
    r"""Gradient and Hessian of each sample's loss in its image, up to one positive factor a sample.

    With ``"relative"`` the factor is 1 / (1 - p_y), which neither changes the Newton direction nor underflows:

    .. math:: \frac{\nabla \ell}{1 - p_y} = \nabla s, \qquad
       \frac{\nabla^2 \ell}{1 - p_y} = p_y \nabla s \nabla s^T + \nabla^2 s

    With damping both sides of the Newton system are divided further, so that a sample's damping never overflows.

    Args:
        model: In eval mode, gradients on.
        x: Images ``(n, ...)``.
        labels: Labels ``(n,)``, int64.
        softmax: ``"relative"`` or ``"plain"``.
        damping: Added to the eigenvalues of the Hessian of the loss itself.

    Attributes:
        gradient: ``(n, ...)``, the right side of the Newton system.

    Raises:
        InputError: An operation of the model cannot be differentiated twice.
    """

    def __init__(self, model: nn.Module, x: Tensor, labels: Tensor, softmax: str, damping: float) -> None:
        self._inputs, logits, total = _forward(model, x, labels, softmax, check=True)
        self._slope = _derivative(total, self._inputs, graph=True)
        lost = once_differentiable_functions([logits], [self._slope])
        require(
            not lost,
            f"The operation {', '.join(lost)} cannot be differentiated twice: its backward pass is marked "
            "@once_differentiable. Use fgsm, l2_grad or pgd, or write it with differentiable operations.",
        )
        self.gradient = self._slope.detach()
        shape = (-1, *[1] * (x.ndim - 1))
        odds = OBJECTIVES["relative"](logits.detach(), labels).double()
        one = torch.ones_like(odds)
        # Shares of curvature, and of its part along the gradient, in p_y; of damping in 1 - p_y.
        doubt = odds.sigmoid() if softmax == "relative" else one
        outer = (-odds).sigmoid() if softmax == "relative" else torch.zeros_like(odds)
        curved = doubt / (doubt + damping) if damping > 0 else one
        damped = damping / (doubt + damping) if damping > 0 else torch.zeros_like(odds)
        self._curved, self._damped, self._outer = ((t.to(x.dtype).reshape(shape)) for t in (curved, damped, outer))

    def multiply(self, v: Tensor) -> Tensor:
        """Return the product with directions ``(n, ...)``. Cost: a Hessian-vector product for the whole chunk."""
        along = (self._slope.detach() * v).flatten(1).sum(1).reshape(self._outer.shape)
        product = self._outer * along * self.gradient
        if self._slope.requires_grad:
            with twice_differentiable():
                (second,) = torch.autograd.grad(
                    self._slope, self._inputs, grad_outputs=v, retain_graph=True, allow_unused=True
                )
            if second is not None:
                product = product + second
        return self._curved * product + self._damped * v


def _forward(model: nn.Module, x: Tensor, labels: Tensor, objective: str, check: bool) -> tuple[Tensor, Tensor, Tensor]:
    inputs = x.detach().requires_grad_(True)
    logits = logits_of(model, inputs)
    if check:
        check_logits(logits.detach(), labels)
    require(
        logits.requires_grad,
        "The model's output cannot be differentiated in the images: it detaches them, rounds them, or runs under "
        "torch.no_grad. Give the model without that step.",
    )
    return inputs, logits, OBJECTIVES[objective](logits, labels).sum()


def _derivative(total: Tensor, inputs: Tensor, graph: bool) -> Tensor:
    (slope,) = torch.autograd.grad(total, inputs, create_graph=graph, allow_unused=True)
    if slope is None:
        raise InputError(
            "The model's output does not depend on the images in a way that PyTorch can differentiate. "
            "Give the model without the step that detaches them."
        )
    return slope
