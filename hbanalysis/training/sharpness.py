"""Batch sharpness: the curvature that a step of SGD meets along its own gradient."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbanalysis.errors import require
from hbanalysis.operators import DEFAULT_CHUNK, WeightHessian


@dataclass(frozen=True)
class BatchSharpness:
    """A mean over random batches.

    Attributes:
        mean: The mean of the ratios; nan if every batch had a gradient of zero.
        standard_error: Its standard error from the spread between batches; 0 for the whole set, nan for a single batch.
        batches: How many batches entered; one without a gradient has no direction and is left out.
    """

    mean: float
    standard_error: float
    batches: int


def batch_sharpness(
    model: nn.Module, images: Tensor, labels: Tensor, batch_size: int, batches: int = 32, seed: int = 0
) -> BatchSharpness:
    r"""Return an estimate of the mean curvature along the gradient of a random batch.

    .. math:: \mathbb{E}_B\!\left[ \frac{g_B^\top H_B\, g_B}{\|g_B\|^2} \right],
        \qquad g_B = \nabla_\theta L_B, \quad H_B = \nabla^2_\theta L_B

    Both belong to the same batch B. For plain gradient descent, B = N, it tends to the largest eigenvalue where
    training hovers at the edge of stability; for small batches it lies above that of the whole set's Hessian. Eval
    mode, cross-entropy. With ``batch_size`` N there is one batch and no sampling error.

    Args:
        model: The model.
        images: Training images ``(N, ...)``.
        labels: Their labels ``(N,)``.
        batch_size: Samples of a batch, drawn without replacement, in 1..N.
        batches: How many batches, drawn independently.
        seed: Of the draw; the same on every device.

    Cost: a gradient and a product of ``batches * batch_size`` samples.

    Raises:
        InputError: A batch size outside 1..N, or no batch.
        NumericalError: The loss or a product is not finite.

    References:
        Andreyev and Beneventano, Edge of Stochastic Stability (2024).

    Example:
        For one weight under squared error the curvature is the same in every direction; for the cross-entropy of two
        classes at equal probabilities it is p (1 - p) |x|^2 along the gradient's two opposite columns:

        >>> model = nn.Linear(1, 2, bias=False)
        >>> nn.init.zeros_(model.weight).sum().item()
        0.0
        >>> x, y = torch.full((3, 1), 2.0), torch.tensor([0, 0, 1])
        >>> found = batch_sharpness(model, x, y, batch_size=1, batches=5)
        >>> round(found.mean, 6), found.standard_error < 1e-6, found.batches
        (2.0, True, 5)
    """
    n = len(labels)
    require(1 <= batch_size <= n, f"batch_size must lie in 1..{n} (the training set); given {batch_size}.")
    require(batches >= 1, f"batches must be at least 1; given {batches}.")
    generator = torch.Generator().manual_seed(seed)
    whole = batch_size == n
    chunk = min(batch_size, DEFAULT_CHUNK.get(images.device.type, 1000))
    ratios = []
    for _ in range(1 if whole else batches):
        chosen = slice(None) if whole else torch.randperm(n, generator=generator)[:batch_size].to(images.device)
        # Two passes over a batch do not pay for tracing a program.
        H = WeightHessian(model, images[chosen], labels[chosen], chunk_size=chunk, engine="graph")
        gradient = H.gradient()
        g = gradient.double()
        square = float(g @ g)
        if square > 0:
            ratios.append(float(g @ (H @ gradient).double()) / square)
    values = torch.tensor(ratios, dtype=torch.float64)
    if not ratios:
        return BatchSharpness(math.nan, math.nan, 0)
    error = 0.0 if whole else float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return BatchSharpness(float(values.mean()), error, len(values))
