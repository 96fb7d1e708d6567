"""Loss and accuracy of a model over a whole data set, in eval mode."""

import torch
from torch import Tensor, nn

from hbanalysis.attacks import fgsm
from hbanalysis.operators import DEFAULT_CHUNK, evaluation_mode
from hbanalysis.operators.losses import cross_entropy


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy and the fraction classified correctly. Cost: one forward pass.

    Both are accumulated in float64 on the device and read once.
    """
    loss = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    with torch.no_grad(), evaluation_mode(model):
        for x, y in zip(*_chunks(images, labels), strict=True):
            logits = model(x)
            loss += cross_entropy(logits, y).sum(dtype=torch.float64)
            correct += (logits.argmax(1) == y).sum()
    return loss.item() / len(labels), correct.item() / len(labels)


def accuracy_under_fgsm(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> float:
    """Return the fraction still classified correctly after `fgsm`, clipped to [0, 1].

    The gradient is that of PyTorch's own cross-entropy, as in the paper: what it loses on samples that the model is
    sure of is part of what is measured. Cost: about 1.3 gradients.
    """
    correct = torch.zeros((), dtype=torch.int64, device=images.device)
    for x, y in zip(*_chunks(images, labels), strict=True):
        attacked = fgsm(model, x, y, eps, softmax="plain", batch_size=len(x))
        with torch.no_grad(), evaluation_mode(model):
            correct += (model(attacked).argmax(1) == y).sum()
    return correct.item() / len(labels)


def _chunks(images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    size = 2 * DEFAULT_CHUNK.get(images.device.type, 1000)
    return images.split(size), labels.split(size)
