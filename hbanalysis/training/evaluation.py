"""Loss and accuracy of a model over a whole data set, in eval mode."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from hbanalysis.attacks import fgsm
from hbanalysis.errors import InputError, require
from hbanalysis.operators import DEFAULT_CHUNK, evaluation_mode
from hbanalysis.operators.losses import cross_entropy
from hbanalysis.operators.objective import logits_of


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy and the fraction classified correctly.

    Both are accumulated in float64 on the device and read once.

    Args:
        model: Maps images to logits ``(n, c)``; outputs with ``logits`` are understood. It may write into what it is
            given, which is a copy.
        images: Images ``(N, ...)``.
        labels: Classes ``(N,)``, of any integer type.

    Cost: one forward pass.

    Raises:
        InputError: There is no sample; labels are no integers ``(N,)``; the model returns no logits ``(n, c)``.
    """
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    with torch.no_grad(), evaluation_mode(model):
        for x, y in _chunks(images, labels):
            logits = _logits(model, x)
            loss += cross_entropy(logits, y).sum(dtype=torch.float64)
            correct += (logits.argmax(1) == y).sum()
    return loss.item() / len(labels), correct.item() / len(labels)


def accuracy_under_fgsm(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> float:
    """Return the fraction still classified correctly after `fgsm`, clipped to [0, 1].

    The gradient is that of PyTorch's own cross-entropy, as in the paper: what it loses on samples that the model is
    sure of is part of what is measured. Cost: about 1.3 gradients.

    Raises:
        InputError: See `evaluate` and `fgsm`.
    """
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    for x, y in _chunks(images, labels):
        attacked = fgsm(model, x, y, eps, softmax="plain", batch_size=len(x))
        with torch.no_grad(), evaluation_mode(model):
            correct += (_logits(model, attacked).argmax(1) == y).sum()
    return correct.item() / len(labels)


def _chunks(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and their labels, int64, as many as go through a model at once.

    Raises:
        InputError: See `evaluate`.
    """
    integers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    require(integers, f"Labels are integer classes; given {labels.dtype}.")
    n = len(images)
    require(labels.shape == (n,), f"{n} images need as many labels, shape ({n},); given {tuple(labels.shape)}.")
    require(n > 0, f"There is no sample; given images of shape {tuple(images.shape)}.")
    size = 2 * DEFAULT_CHUNK.get(images.device.type, 1000)
    yield from zip(images.split(size), labels.long().split(size), strict=True)


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    """Return the logits ``(n, c)`` of some images.

    Raises:
        InputError: The model returns something else.
    """
    found = logits_of(model(images.clone()))  # a model may write into what it is given
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
        given = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        n = len(images)
        raise InputError(f"The model must return logits ({n}, c) for {n} images, or .logits; it returned {given}.")
    return found
