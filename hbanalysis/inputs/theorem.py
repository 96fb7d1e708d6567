r"""Theorem 1 and Proposition 2 put to the test on Hessians that automatic differentiation makes by itself.

`input_spectrum` writes the Hessian as :math:`R^T A R`, which is positive semi-definite and of rank c - 1 whatever the
network does. A check must not use that form. Here each column comes from differentiating twice, in float64.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from hbanalysis.errors import require
from hbanalysis.inputs.chunks import logit_jacobians
from hbanalysis.inputs.logits import Labels, LogitMap, check_inputs
from hbanalysis.inputs.operator import InputHessian

_TOGETHER = 50  # samples whose dense Hessians are held at once: 250 MB at 784 numbers a sample


@dataclass(frozen=True)
class HessianEnds:
    """Both ends of the dense input Hessian of every sample, and its rank.

    Attributes:
        lowest: Smallest eigenvalue, ``(n,)``, float64.
        highest: Largest eigenvalue, ``(n,)``.
        ranks: Eigenvalues of modulus above d eps times the largest modulus, ``(n,)``; eps is that of float64.
        asymmetry: Largest ``|H - H^T|`` over largest ``|H|``, ``(n,)``: what rounding does to a product.
        limit: min(c - 1, d), the rank that Proposition 2 allows when it is sharpened.
    """

    lowest: Float[Tensor, " n"]
    highest: Float[Tensor, " n"]
    ranks: Int64[Tensor, " n"]
    asymmetry: Float[Tensor, " n"]
    limit: int

    @property
    def negative_ratios(self) -> Float[Tensor, " n"]:
        """Return -lambda_min / lambda_max of each sample, 0 where the Hessian is 0."""
        return torch.where(self.highest > 0, -self.lowest / self.highest, torch.where(self.lowest < 0, torch.inf, 0.0))

    def exceptions(self, negative_ratio: float) -> Bool[Tensor, " n"]:
        """Return which samples break the theorem: a ratio above the one allowed, or a rank above the limit."""
        return (self.negative_ratios > negative_ratio) | (self.ranks > self.limit)


def dense_input_hessians(model: nn.Module, x: Tensor, labels: Labels) -> Float[Tensor, "n d d"]:
    """Return the Hessian of each sample's cross-entropy in its input, by differentiating twice in float64.

    The Hessian of the summed loss is block diagonal, so d products serve all samples. Nothing is symmetrised.

    Args:
        model: Maps inputs to logits ``(n, c)``, any network. A float64 copy of it runs in eval mode.
        x: Inputs ``(n, ...)`` with d numbers each.
        labels: Class labels ``(n,)``.

    Cost: d products, each 2 to 2.5 input gradients in float64. Memory: n d^2 numbers of 8 bytes.

    Raises:
        InputError: See `hbanalysis.inputs`.
        NumericalError: Logits, gradients or products are not finite.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> dense_input_hessians(model, torch.zeros(1, 2), torch.tensor([0])).tolist()
        [[[1.0, 0.0], [0.0, 0.0]]]
    """
    check_inputs(x)
    inputs = x.detach().double()
    operator = InputHessian(deepcopy(model).double(), inputs, labels)
    d = inputs[0].numel()
    found = torch.empty(len(inputs), d, d, dtype=torch.float64, device=inputs.device)
    unit = torch.zeros_like(inputs).flatten(1)
    for column in range(d):
        unit[:, column] = 1.0
        found[:, :, column] = (operator @ unit.reshape(inputs.shape)).flatten(1)
        unit[:, column] = 0.0
    return found


def hessian_ends(model: nn.Module, x: Tensor, labels: Labels) -> HessianEnds:
    r"""Return extreme eigenvalues and rank of every sample's dense input Hessian.

    Theorem 1 says :math:`\lambda_{\min} \ge 0`, and Proposition 2, sharpened, that the rank is at most c - 1. In
    floating point both hold up to rounding: :math:`-\lambda_{\min} / \lambda_{\max}` near the rounding unit, and the
    rank counted above :math:`d\,\epsilon\,\lambda_{\max}`.

    Args:
        model: See `dense_input_hessians`.
        x: Inputs ``(n, ...)``; 50 are held at once.
        labels: Class labels ``(n,)``.

    Cost: see `dense_input_hessians`, and an eigenproblem of size d for each sample.

    Raises:
        InputError: See `hbanalysis.inputs`.
        NumericalError: Logits, gradients or products are not finite.

    References:
        Paper, Theorem 1 and Proposition 2.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> ends = hessian_ends(model, torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1]))
        >>> ends.limit, bool(ends.exceptions(1e-10).any())
        (2, False)
    """
    logits = LogitMap(model, x, labels)
    lowest, highest, ranks, asymmetry = [], [], [], []
    for part, chosen in zip(x.split(_TOGETHER), logits.labels.split(_TOGETHER), strict=True):
        H = dense_input_hessians(model, part, chosen)
        size = H.abs().amax((1, 2))
        gap = (H - H.mT).abs().amax((1, 2))
        asymmetry.append(torch.where(size > 0, gap / size, 0.0))
        values = torch.linalg.eigvalsh((H + H.mT) / 2)
        lowest.append(values[:, 0])
        highest.append(values[:, -1])
        sizes = values.abs()
        ranks.append((sizes > H.shape[1] * torch.finfo(H.dtype).eps * sizes.amax(1, keepdim=True)).sum(1))
    limit = min(logits.classes - 1, x[0].numel())
    return HessianEnds(torch.cat(lowest), torch.cat(highest), torch.cat(ranks), torch.cat(asymmetry), limit)


def product_errors(
    model: nn.Module, x: Tensor, labels: Labels, *, vectors: int = 3, seed: int = 0
) -> Float[Tensor, "n vectors"]:
    r"""Return how far autograd's product and the formula are apart, for inputs too large for a dense Hessian.

    .. math:: \frac{\| H v - R^T A R v \|}{\| R^T A R v \|}

    with random v, in float64. If this is rounding for enough v, H has the form from which theorem and rank follow.

    Args:
        model: Maps inputs to logits; a float64 copy runs in eval mode.
        x: Inputs ``(n, ...)``.
        labels: Class labels ``(n,)``.
        vectors: Random vectors a sample, at least 1.
        seed: Seed of the vectors.

    Cost: a pass of `logit_jacobians`, and 2 to 2.5 input gradients a vector.

    Raises:
        InputError: No vector. Or see `hbanalysis.inputs`.
        NumericalError: See `hbanalysis.inputs`.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
        >>> bool((product_errors(model, torch.rand(5, 4), torch.tensor([0, 1, 2, 0, 1])) < 1e-10).all())
        True
    """
    require(vectors >= 1, f"vectors must be at least 1; given {vectors}.")
    check_inputs(x)
    generator = torch.Generator().manual_seed(seed)
    inputs, precise = x.detach().double(), deepcopy(model).double()
    block = torch.randn(len(x), vectors, *x.shape[1:], generator=generator, dtype=torch.float64).to(inputs)
    products = InputHessian(precise, inputs, labels) @ block
    errors = torch.empty(len(x), vectors, dtype=torch.float64, device=inputs.device)
    for part in logit_jacobians(precise, inputs, labels, any_network=True):
        which = slice(part.first, part.first + len(part))
        for column in range(vectors):
            formula = part.multiply(block[which, column]).flatten(1)
            gap = (products[which, column].flatten(1) - formula).norm(dim=1)
            size = formula.norm(dim=1)
            errors[which, column] = torch.where(size > 0, gap / size, torch.where(gap > 0, torch.inf, 0.0))
    return errors
