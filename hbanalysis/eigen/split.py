"""How to split the samples for screening: the choice with the smallest predicted cost."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

LIGHT = 3e-7  # share of the weights that can be left out, roughly: for the prediction
SHARE = 0.5  # times sqrt(tol): what the medium samples may hold for the Rayleigh-Ritz step to suffice
GUARD = 4  # vectors carried beyond those wanted: their gap to the rest keeps the last wanted values apart
NORM_PRODUCTS = 5  # products that bound the range of a part's eigenvalues
WORTHWHILE = 0.9  # of Lanczos' cost: more is expected to save nothing


@dataclass(frozen=True)
class Plan:
    """How to split the samples.

    Attributes:
        heavy: Share of the samples in the Krylov part.
        used: Share of the samples in the Rayleigh-Ritz step; the others are left out.
        cost: Predicted cost in products with the full data.
        plain: The same for Lanczos.
    """

    heavy: float
    used: float
    cost: float
    plain: float

    @property
    def worthwhile(self) -> bool:
        """Whether screening is expected to save enough."""
        return self.cost <= WORTHWHILE * self.plain


def plan(weights: Float[Tensor, " n"], k: int, tol: float) -> Plan:
    """Choose the split for which the predicted cost is smallest.

    The prediction: Lanczos takes some 2 k + 8 products; the relative residual after the Rayleigh-Ritz step is about the
    share S of the weights that the medium samples hold, and errors go with its square, so up to ``SHARE sqrt(tol)``
    nothing is left to refine, and beyond that a share ``1 - SHARE sqrt(tol) / S`` of the k vectors is, and a share S of
    a whole run.

    Args:
        weights: 1 - p_y of every sample.
        k: Eigenvalues wanted.
        tol: Their tolerance.

    Example:
        >>> found = plan(torch.tensor([10.0 ** -(i / 10) for i in range(100)], dtype=torch.float64), 20, 1e-4)
        >>> round(found.heavy, 2), round(found.used, 2), found.worthwhile
        (0.23, 0.66, True)
    """
    ordered = weights.double().sort(descending=True).values
    total = float(ordered.sum())
    # Summed from the light end, so that the smallest weights are not lost in the sum of the largest.
    beyond = torch.cat([ordered.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64, device=ordered.device)])
    shares = (beyond / total if total > 0 else beyond).cpu().numpy()
    n, plain = len(ordered), 2.0 * k + 8
    used = int(np.argmax(shares <= LIGHT)) / n
    heavy = np.arange(1, 101) / 100
    heavy = np.append(heavy[heavy < used], used)
    left = np.maximum(shares[np.floor(heavy * n).astype(int)], np.finfo(float).tiny)
    refined = k * np.maximum(0.0, 1 - SHARE * math.sqrt(tol) / left) + plain * left
    costs = plain * heavy + (used - heavy) * (k + GUARD) + used * refined + NORM_PRODUCTS * (1 - used)
    best = int(np.argmin(costs))
    return Plan(float(heavy[best]), used, float(costs[best]), plain)
