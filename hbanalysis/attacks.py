"""Adversarial perturbations of the inputs, in units of images in [0, 1]."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import evaluation_mode


def fgsm(
    model: nn.Module,
    x: Tensor,
    labels: Tensor,
    eps: float,
    *,
    clip: tuple[float, float] | None = (0.0, 1.0),
) -> Tensor:
    r"""Return the fast gradient sign perturbation of a batch.

    .. math:: x_{adv} = \mathrm{clip}\bigl(x + \epsilon \, \mathrm{sign} \, \nabla_x \ell(x, y)\bigr)

    The model runs in eval mode and is left as it was. The gradient is that of the summed loss, so a sample's result
    does not depend on its batch.

    Args:
        model: Maps images to logits.
        x: Images ``(N, C, H, W)``.
        labels: True labels ``(N,)``, every sample is attacked.
        eps: Size in the maximum norm, in units of [0, 1], at least 0.
        clip: Range of valid images; ``None`` leaves the result unclipped.

    Cost: one input gradient.

    Raises:
        InputError: Negative ``eps`` or labels of another length.
        NumericalError: The gradient is not finite.

    References:
        Paper, equation 2; Goodfellow, Shlens and Szegedy, ICLR 2015.

    Example:
        >>> model = nn.Linear(1, 2)
        >>> x = torch.tensor([[0.5]])
        >>> (fgsm(model, x, torch.tensor([0]), 0.25) - x).abs()
        tensor([[0.2500]])
    """
    if eps < 0:
        raise InputError(f"eps is a distance, at least 0; given {eps}.")
    if len(x) != len(labels):
        raise InputError(f"{len(x)} images need as many labels; given {len(labels)}.")
    with torch.enable_grad(), evaluation_mode(model):
        inputs = x.detach().requires_grad_(True)
        loss = F.cross_entropy(model(inputs), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, inputs)
    if not bool(torch.isfinite(gradient).all()):
        raise NumericalError("The input gradient is not finite; check the weights and the images.")
    attacked = x + eps * gradient.sign()
    return attacked if clip is None else attacked.clamp(*clip)
