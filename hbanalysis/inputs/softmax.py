r"""The curvature of the softmax cross-entropy in the logits, as a factor that no subtraction has touched.

With :math:`q_k = p_k` for the m = c - 1 classes other than the label and the logits relative to the label,
:math:`r_k = z_k - z_y`, the loss :math:`\log(1 + \sum_k e^{r_k})` has the gradient q and the Hessian
:math:`A = \mathrm{diag}(q) - q q^T`. That is the Laplacian of the complete graph with the weights :math:`p_j p_k`,
without the row and column of the label. Eliminating one class after another leaves such a graph every time, so its
Cholesky factor is known (Tanabe and Sagae 1992): with the tail sums :math:`s_k = p_y + \sum_{j \ge k} q_j`,

.. math:: A = L D L^T, \quad D_k = q_k \frac{s_{k+1}}{s_k}, \quad L_{kk} = 1, \quad
    L_{jk} = -\frac{q_j}{s_{k+1}} \; (j > k)

Every entry is a product of sums of positive numbers. Computed from log-probabilities it is right to float64 rounding
however small 1 - p_y or p_y is, where :math:`q_k - q_k^2` has lost everything.

Tanabe and Sagae, An exact Cholesky decomposition and the generalized inverse of the variance-covariance matrix of the
multinomial distribution, with applications, Journal of the Royal Statistical Society B 54 (1992).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def other_classes(labels: Int64[Tensor, " n"], classes: int) -> Int64[Tensor, "n m"]:
    """Return the classes of each sample that are not its label, ascending.

    Example:
        >>> other_classes(torch.tensor([0, 1]), 3)
        tensor([[1, 2],
                [0, 2]])
    """
    each = torch.arange(classes - 1, device=labels.device)
    return each + (each >= labels[:, None])


@dataclass(frozen=True)
class SoftmaxCurvature:
    """Gradient and Hessian of the cross-entropy in the relative logits, of n samples at once, in float64.

    Attributes:
        log_q: Log-probabilities of the other classes, ``(n, m)``.
        log_p: Log-probability of the label, ``(n,)``.
        factor: C with ``A = exp(scale) C C^T``, ``(n, m, m)``, lower triangular, its largest column of size 1.
        scale: Logarithm of the largest ``D_k``, ``(n,)``.
        pulled: ``C^T 1 / p_y`` with positive entries, the largest 1, times ``exp(pulled_scale)``, ``(n, m)``: what the
            gradient is in the basis of the factor, ``q = C pulled`` up to the scales.
        pulled_scale: Its logarithmic scale, ``(n,)``.
    """

    log_q: Tensor
    log_p: Tensor
    factor: Tensor
    scale: Tensor
    pulled: Tensor
    pulled_scale: Tensor


def softmax_curvature(relative: Float[Tensor, "n m"]) -> SoftmaxCurvature:
    r"""Return the curvature of the cross-entropy from logits relative to the label's.

    Args:
        relative: :math:`z_k - z_y` of the other classes, in the order of the factor's rows.

    Example:
        Two classes whose label is all but certain, 1 - p_y = 1e-20: A = p_y (1 - p_y) is not lost:

        >>> curvature = softmax_curvature(torch.tensor([[-46.051701859880914]], dtype=torch.float64))
        >>> f"{curvature.scale.exp().item():.3g}"
        '1e-20'
    """
    relative = relative.double()
    logs = torch.log_softmax(torch.nn.functional.pad(relative, (0, 1)), dim=1)
    tails = logs.flip(1).logcumsumexp(1).flip(1)
    tails = torch.cat([torch.zeros_like(tails[:, :1]), tails[:, 1:]], 1)  # the first sum is that of all classes: 1
    log_q, before, after = logs[:, :-1], tails[:, :-1], tails[:, 1:]
    log_d = log_q + after - before
    scale = log_d.amax(1)
    factor = (log_q[:, :, None] - after[:, None, :]).exp_().neg_().tril_(-1)  # in place: c may be thousands
    factor.diagonal(dim1=1, dim2=2).fill_(1.0)
    factor *= ((log_d - scale[:, None]) / 2).exp()[:, None, :]
    log_h = (log_q - before - after) / 2
    pulled_scale = log_h.amax(1)
    pulled = (log_h - pulled_scale[:, None]).exp()
    return SoftmaxCurvature(log_q, logs[:, -1], factor, scale, pulled, pulled_scale)
