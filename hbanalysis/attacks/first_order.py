"""Attacks of one or several gradients: FGSM, its iterated form and the normalised gradient."""

from torch import Tensor, nn

from hbanalysis.attacks.batches import attacked, check_choices
from hbanalysis.attacks.geometry import Clip, clipped, per_sample, signs, units
from hbanalysis.attacks.gradients import gradient
from hbanalysis.inputs.logits import Labels


def fgsm(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: Clip = (0.0, 1.0),
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the fast gradient sign perturbation of a batch.

    .. math:: x_{adv} = \mathrm{clip}\bigl(x + \epsilon \, \mathrm{sign} \, \nabla_x \ell(x, y)\bigr)

    The model runs in eval mode and is left as it was. Derivatives are those of the summed loss: a sample's result does
    not depend on its batch, up to the rounding of PyTorch's kernels. A sample whose gradient is zero or not finite is
    given back unchanged.

    Args:
        model: Maps images to logits ``(n, c)``. A model that normalises its inputs does so itself.
        x: Images ``(n, ...)``, float32 or float64, on the model's device.
        labels: True labels ``(n,)``; every sample is attacked.
        eps: Size in the maximum norm, in units of images in [0, 1], at least 0; one for all or one a sample ``(n,)``.
        clip: Range of valid images, to which the result is clamped; ``None`` leaves it unclipped.
        softmax: ``"relative"`` takes the cross-entropy from logits relative to the label, whose direction is right
            however sure the model is. ``"plain"`` is PyTorch's cross-entropy: in float32 its gradient lacks the part of
            the label's logit where 1 - p_y is below 6e-8, and is exactly zero where the label leads by 104 or more; the
            result is then bit for bit that of torchattacks 3.5.1 and foolbox 3.3.4.
        batch_size: Samples differentiated at once; ``None`` takes 256 on a CPU and 1024 on a GPU, fewer if they do not
            fit into memory.

    Cost: one input gradient.

    Raises:
        InputError: Images out of ``clip``, of integers, on another device or in another dtype than the model; labels
            out of range or of another length; ``eps`` negative or not finite; a model whose output cannot be
            differentiated in the images, or depends on the batch.
        NumericalError: The model's output is not finite.

    References:
        Paper, equation 2; Goodfellow, Shlens and Szegedy, ICLR 2015.

    Example:
        >>> import torch
        >>> model = nn.Linear(1, 2)
        >>> x = torch.tensor([[0.5]])
        >>> (fgsm(model, x, torch.tensor([0]), 0.25) - x).abs()
        tensor([[0.2500]])
    """
    check_choices(softmax)

    def step(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        g, _ = gradient(model, x, labels, softmax, check=True)
        return x + per_sample(eps, x) * signs(g)

    return attacked(step, model, x, labels, eps, clip, batch_size)


def iterated_fgsm(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: Clip = (0.0, 1.0),
    steps: int = 10,
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the iterated fast gradient sign perturbation; ten steps are the paper's FGSM-10.

    .. math:: x_{t+1} = \mathrm{clip}\Bigl(x_t + \frac{\epsilon}{T} \, \mathrm{sign} \, \nabla_x \ell(x_t, y)\Bigr)

    T steps of :math:`\epsilon / T` stay within :math:`\epsilon` without a projection, up to rounding. Each step is
    clamped to ``clip``.

    Args:
        model: See `fgsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        eps: Size in the maximum norm; see `fgsm`.
        clip: See `fgsm`.
        steps: The number T of steps, at least 1.
        softmax: See `fgsm`.
        batch_size: See `fgsm`.

    Cost: ``steps`` input gradients.

    Raises:
        InputError: See `fgsm`; ``steps`` below 1.
        NumericalError: See `fgsm`.

    References:
        Paper, section 3; Kurakin, Goodfellow and Bengio, 2016. The step size is that of the authors' later code; the
        paper does not state it.

    Example:
        >>> import torch
        >>> model, x = nn.Linear(1, 2), torch.tensor([[0.5]])
        >>> (iterated_fgsm(model, x, torch.tensor([0]), 0.25) - x).abs()
        tensor([[0.2500]])
    """
    check_choices(softmax, steps=steps)

    def walk(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        stride = per_sample(eps / steps, x)
        for number in range(steps):
            g, _ = gradient(model, x, labels, softmax, check=number == 0)
            x = clipped(x + stride * signs(g), clip)
        return x

    return attacked(walk, model, x, labels, eps, clip, batch_size)


def l2_grad(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: Clip = (0.0, 1.0),
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the perturbation along the gradient, of a given Euclidean length (L2GRAD).

    .. math:: x_{adv} = \mathrm{clip}\Bigl(x + \epsilon \, \frac{\nabla_x \ell(x, y)}{\|\nabla_x \ell(x, y)\|_2}\Bigr)

    Args:
        model: See `fgsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        eps: Size in the Euclidean norm over all pixels and channels, in units of images in [0, 1]; see `fgsm`.
        clip: See `fgsm`; clamping makes the perturbation shorter.
        softmax: See `fgsm`.
        batch_size: See `fgsm`.

    Cost: one input gradient.

    Raises:
        InputError: See `fgsm`.
        NumericalError: See `fgsm`.

    References:
        Paper, section 3.

    Example:
        >>> import torch
        >>> model, x = nn.Linear(4, 2), torch.full((1, 4), 0.5)
        >>> (l2_grad(model, x, torch.tensor([0]), 0.25) - x).norm()
        tensor(0.2500)
    """
    check_choices(softmax)

    def step(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        g, _ = gradient(model, x, labels, softmax, check=True)
        return x + per_sample(eps, x) * units(g)

    return attacked(step, model, x, labels, eps, clip, batch_size)
