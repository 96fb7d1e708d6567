r"""Which networks are piecewise linear in their input, decided from the operations that they execute.

Theorem 1 of the paper asks for convolutions, fully connected layers and ReLU. What its proof needs is that the logits
are continuous and affine between kinks, so pooling, shortcuts, interpolation, batch normalisation in eval mode and
every piecewise-linear activation qualify as well. Modules do not tell: ``torch.nn.functional.gelu`` has none.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hbanalysis.errors import InputError
from hbanalysis.inputs.logits import LogitMap, check_inputs
from hbanalysis.inputs.operations import Recorder

_ROUNDING = 1000  # a second derivative of so many rounding units of the first is none


@dataclass(frozen=True)
class PiecewiseReport:
    """Whether a network is piecewise linear in its input, and why not; true in a condition if it is.

    Attributes:
        qualifies: Whether every operation qualifies and the second derivative is 0 to rounding.
        operations: The ATen operations that were applied to values that depend on the input, in order of their first
            use; the ``clone`` that the model is given comes first.
        obstacle: What does not qualify, or ``None``.
        curvature: Size of the second derivative of a random combination of the logits along a random direction as long
            as the inputs, relative to the first derivative. ``None`` if it was not looked at, because an operation did
            not qualify or has no second derivative in PyTorch.
    """

    qualifies: bool
    operations: tuple[str, ...]
    obstacle: str | None
    curvature: float | None

    def __bool__(self) -> bool:
        return self.qualifies


def is_piecewise_linear(model: nn.Module, x: Tensor) -> PiecewiseReport:
    r"""Tell whether a network is piecewise linear in its input.

    The operations between the input and the logits are recorded as they run, on the first two samples. Each must be
    known to be linear (convolution, matrix product with weights, averages, reshaping, eval-mode batch normalisation) or
    piecewise linear (ReLU, LeakyReLU, PReLU, ReLU6, Hardtanh, absolute value, maxima, max pooling, sorting). A product
    of two values that both depend on the input does not qualify, nor does a number that ``.item()`` takes out of such a
    value, nor any operation that is not known. Then the second derivative of :math:`u \cdot z(x)` along a
    direction v, both random, must be 0 to rounding.

    Args:
        model: Maps inputs to logits ``(n, c)``. It runs in eval mode and is left as it was.
        x: Inputs ``(N, ...)``, of which two are used.

    Cost: four forward and three backward passes of two samples.

    Raises:
        InputError: See `hbanalysis.inputs`.
        NumericalError: The logits of these samples are not finite.

    References:
        Paper, Theorem 1 and Assumption 1 (appendix A.1).

    Example:
        >>> report = is_piecewise_linear(nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Linear(3, 2)), torch.rand(1, 2))
        >>> bool(report), report.obstacle
        (False, 'gelu')
    """
    check_inputs(x)
    return report_of(LogitMap(model, x, torch.zeros(len(x), dtype=torch.int64)))  # which label does not matter


def report_of(logits: LogitMap) -> PiecewiseReport:
    """Return the report for a model that has been checked."""
    recorder = Recorder(logits.pair.inputs)
    with logits.guarded():
        with recorder:
            found = logits(logits.pair)
        obstacle = recorder.obstacle
        curvature = None if obstacle else _curvature(found, logits.pair.inputs)
    if curvature is not None and not curvature <= _ROUNDING * torch.finfo(logits.dtype).eps:
        obstacle = f"a second derivative of {curvature:.2g} times the first"
    return PiecewiseReport(obstacle is None, recorder.operations, obstacle, curvature)


def require_piecewise_linear(logits: LogitMap) -> None:
    """Raise `InputError` unless a network is piecewise linear.

    Raises:
        InputError: Names the operation.
    """
    report = report_of(logits)
    if not report:
        raise InputError(
            f"The network is not known to be piecewise linear in its input, because of {report.obstacle}, so its "
            "Hessian is not J^T (diag p - p p^T) J. Use input_spectrum(..., method='lanczos') or InputHessian, which "
            "take any network."
        )


def _curvature(logits: Tensor, inputs: Tensor) -> float | None:
    """Return how large the second derivative is, relative to the first."""
    generator = torch.Generator().manual_seed(0)
    size = inputs.detach().square().mean().sqrt().item() or 1.0

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)

    (slope,) = torch.autograd.grad(logits, inputs, random(logits), create_graph=True)
    if not slope.requires_grad:
        return 0.0
    try:
        (bend,) = torch.autograd.grad(slope, inputs, random(inputs) * size, allow_unused=True)
    except RuntimeError as error:
        if "not implemented" in str(error):
            return None
        raise
    if bend is None or not bool(bend.any()):
        return 0.0
    return (bend.double().norm() / slope.detach().double().norm()).item()
