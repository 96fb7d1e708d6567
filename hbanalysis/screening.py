r"""The spectrum of a trained network from the samples that carry it, with the error that leaving out the others makes.

The curvature of a sample under cross-entropy scales with :math:`1 - p_y`. Once a network is trained to loss 1e-3, most
samples have none to speak of; every row says what share of them took part. Leaving the others out perturbs the
Hessian by the Hessian R of the part left out, and by Weyl's inequality no eigenvalue moves by more than its norm. That
norm is measured and added to the bounds.
"""

import math
import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from hbanalysis.eigen import Eigenpairs, Show, eigsh
from hbanalysis.errors import ConvergenceWarning
from hbanalysis.losses import cross_entropy
from hbanalysis.operators import DEFAULT_CHUNK, WeightHessian, evaluation_mode

SHARE = 1e-6  # of the sum of 1 - p_y that may be left out
WORTHWHILE = 0.9  # with more than this share of the samples kept, nothing is left out
NORM_PRODUCTS = 5  # Lanczos knows a norm to some per cent by then; the residual is added to what it found


@dataclass(frozen=True)
class ScreenedPairs:
    """Eigenpairs of the Hessian of a whole data set, from part of its samples.

    Attributes:
        pairs: The eigenpairs; ``residuals`` and ``bounds`` hold for the whole set.
        kept: Share of the samples that entered every product.
        error: Norm of the part left out, already in the bounds; 0 if nothing was left out.
    """

    pairs: Eigenpairs
    kept: float
    error: float


def _before(show: Show | None) -> Show | None:
    return None if show is None else lambda done, worst: show(0, math.inf)


def doubts(model: nn.Module, images: Tensor, labels: Tensor) -> Float[Tensor, " n"]:
    """Return 1 - p_y of every sample in float64, with full relative precision. Cost: one forward pass."""
    size = DEFAULT_CHUNK.get(images.device.type, 1000)
    with torch.no_grad(), evaluation_mode(model):
        losses = [cross_entropy(model(x), y) for x, y in zip(images.split(size), labels.split(size), strict=True)]
    return -torch.expm1(-torch.cat(losses).double())


def heavy_samples(weights: Float[Tensor, " n"], share: float) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " r"]]:
    """Return the indices of the fewest samples that hold all but ``share`` of the weights, and of the rest.

    Example:
        >>> heavy_samples(torch.tensor([0.5, 1e-9, 0.4, 0.1]), 1e-6)
        (tensor([0, 2, 3]), tensor([1]))
    """
    order = weights.argsort(descending=True)
    # Summed from the light end, so that the smallest weights are not lost in the sum of the largest.
    left_out = weights[order].flip(0).cumsum(0) <= share * weights.sum()
    light = int(left_out.sum())
    return order[: len(order) - light].sort().values, order[len(order) - light :].sort().values


def screened_eigsh(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    k: int,
    *,
    tol: float = 1e-4,
    share: float = SHARE,
    v0: Tensor | None = None,
    show: Show | None = None,
) -> ScreenedPairs:
    """Return the k largest eigenpairs of the Hessian of the mean cross-entropy over a whole set.

    Args:
        model: Maps images to logits.
        images: Images ``(N, ...)``.
        labels: Labels ``(N,)``.
        k: How many.
        tol: Relative error allowed for each value, the part left out included.
        share: Share of the sum of 1 - p_y that may be left out.
        v0: Start vector; see `eigsh`.
        show: See `eigsh`; also called, with 0 products, while the norm of the part left out is measured.

    Cost: a forward pass, then the products of `eigsh` and a few for the norm, each with part of the samples. Where the
    part left out turns out too large for ``tol``, the values are computed again from every sample.

    Warns:
        ConvergenceWarning: See `eigsh`.
    """
    kept, rest = heavy_samples(doubts(model, images, labels), share)
    if len(kept) > WORTHWHILE * len(labels):
        return ScreenedPairs(eigsh(WeightHessian(model, images, labels), k, tol=tol, v0=v0, show=show), 1.0, 0.0)
    total = len(labels)
    light = WeightHessian(model, images[rest], labels[rest], total=total)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # an upper estimate is enough here
        norm = eigsh(light, 1, which="LM", tol=1e-2, max_products=NORM_PRODUCTS, show=_before(show))
    error = float(norm.values[0].abs() + norm.residuals[0])
    del light
    heavy = WeightHessian(model, images[kept], labels[kept], total=total)
    pairs = eigsh(heavy, k, tol=0.9 * tol, v0=v0, show=show)
    bounds = pairs.bounds + error
    if bool((bounds > tol * pairs.values.abs()).any()) and pairs.converged:
        return ScreenedPairs(eigsh(WeightHessian(model, images, labels), k, tol=tol, v0=v0, show=show), 1.0, 0.0)
    return ScreenedPairs(replace(pairs, bounds=bounds, residuals=pairs.residuals + error), len(kept) / total, error)
