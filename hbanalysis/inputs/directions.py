"""Newton directions and boundary distances of whole data sets, from the Jacobians of the logits."""

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import RankWarning, require
from hbanalysis.inputs.chunks import collected, logit_jacobians
from hbanalysis.inputs.jacobians import LogitJacobians, check_norm
from hbanalysis.inputs.logits import Labels


def newton_direction(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    damping: float = 0.0,
    normalized: bool = False,
    chunk_size: int | None = None,
    memory_budget: int | None = None,
) -> Float[Tensor, "N ..."]:
    r"""Return the exact Newton direction of each sample's own loss in its input, sign + (the loss rises).

    .. math:: d = (H + \mu I)^{-1} g, \qquad H^+ g = R^+ \mathbf{1} / p_y \quad (\mu = 0)

    with the rows :math:`R_k = \nabla_x (z_k - z_y)`, k other than y. Without damping the direction does not depend on
    the probabilities: a unit of it raises every other logit by the same amount over the label's. The second form holds
    where R has full row rank; its rank is decided from the singular values of R, never from those of H, which sink with
    the probabilities. Where R lacks rank (d < c - 1, or logits that move together) :math:`H^+ g` is the least-squares
    solution in the norm of H, does depend on the probabilities, and a warning says so.

    Args:
        model: Maps inputs to logits ``(n, c)``; piecewise linear in its input. It runs in eval mode and is left as it
            was.
        x: Inputs ``(N, ...)``.
        labels: Class labels ``(N,)``.
        damping: :math:`\mu`, at least 0, in units of H.
        normalized: Scale each direction to unit Euclidean norm. Without it the length grows with 1 / p_y and may
            overflow on samples that are confidently wrong.
        chunk_size: See `input_spectrum`.
        memory_budget: See `input_spectrum`.

    Returns:
        Directions shaped like x, in its dtype. A sample with zero gradient has direction 0.

    Cost: that of the exact `input_spectrum`.

    Raises:
        InputError: The network does not qualify (the message names the operation), or negative damping.
        NumericalError: Logits or gradients are not finite, or a direction is too long for the dtype.

    Warns:
        RankWarning: Without damping, R of some samples lacks rank.

    References:
        Paper, the attacks FHSM and L2HESS, which solve the same system by conjugate gradients.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        >>> newton_direction(model, torch.zeros(1, 2), torch.tensor([0]), normalized=True)
        tensor([[-0.6000, -0.8000]])
    """
    require(0 <= damping < float("inf"), f"damping is finite and not negative; given {damping}.")
    parts = logit_jacobians(model, x, labels, chunk_size=chunk_size, memory_budget=memory_budget)
    lacking: list[tuple[int, int]] = []

    def direction(part: LogitJacobians) -> Tensor:
        if not damping:
            ranks = part.ranks()
            lacking.extend(
                (part.first + i, int(ranks[i])) for i in (ranks < part.rows.shape[1]).nonzero().flatten().tolist()
            )
        return part.newton_direction(damping, normalized).to(x)

    found = torch.cat(collected(parts, direction))
    if lacking:
        sample, rank = lacking[0]
        warnings.warn(
            f"The gradients of the relative logits are linearly dependent for {len(lacking)} of {len(x)} samples "
            f"(sample {sample}: rank {rank}), so their Newton directions are least-squares solutions that depend on "
            "the probabilities. A positive damping makes the system regular.",
            RankWarning,
            stacklevel=2,
        )
    return found


def boundary_distance(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    norm: str = "inf",
    chunk_size: int | None = None,
    memory_budget: int | None = None,
) -> Float[Tensor, " N"]:
    r"""Return the linearised distance of each sample to the nearest boundary of its class.

    .. math:: \min_{k \ne y} \frac{z_y - z_k}{\| \nabla_x (z_y - z_k) \|_*}

    with the dual norm: :math:`\|\cdot\|_1` for perturbations measured in the maximum norm, :math:`\|\cdot\|_2` for
    the Euclidean one. Exact for a piecewise-linear network if no kink lies in between, otherwise an estimate. Negative
    for a sample that is misclassified; infinite where no logit difference has a slope.

    Args:
        model: Maps inputs to logits ``(n, c)``; any network with a derivative. It runs in eval mode and is left as it
            was.
        x: Inputs ``(N, ...)``; the distance is in their units.
        labels: Class labels ``(N,)``.
        norm: That of the perturbation, ``"inf"`` or ``"2"``.
        chunk_size: See `input_spectrum`.
        memory_budget: See `input_spectrum`.

    Returns:
        Distances ``(N,)``, float64, on the device of x.

    Cost: one forward and c - 1 backward passes to the input.

    Raises:
        InputError: Another norm. Or see `hbanalysis.inputs`.
        NumericalError: Logits or gradients are not finite.

    References:
        Moosavi-Dezfooli, Fawzi and Frossard, DeepFool, CVPR 2016, for the linearisation.

    Example:
        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
        >>> x = torch.tensor([[1.0, 1.0]])
        >>> [boundary_distance(model, x, torch.tensor([0]), norm=norm).item() for norm in ("inf", "2")]
        [1.0, 1.4]
    """
    check_norm(norm)
    parts = logit_jacobians(model, x, labels, chunk_size=chunk_size, memory_budget=memory_budget, any_network=True)
    return torch.cat(collected(parts, lambda part: part.boundary_distances(norm).to(x.device)))
