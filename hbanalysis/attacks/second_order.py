r"""Attacks along the Newton direction :math:`+H^{-1} g` in the images: FHSM and L2HESS.

The sign is plus: for piecewise-linear networks the Hessian in the images has no negative eigenvalues (paper,
Theorem 1), so :math:`g^T H^{-1} g > 0` and the direction ascends.

How far the conjugate gradients run fixes the strength of both attacks. One iteration is the gradient attack. For a
piecewise-linear network the exact solution, reached after at most c - 1 iterations, lowers the logit of the true class
and leaves the differences of all others as they are, which is the weaker attack.
"""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hbanalysis.attacks.batches import attacked, check_choices
from hbanalysis.attacks.conjugate_gradients import conjugate_gradients
from hbanalysis.attacks.geometry import Clip, per_sample, signs, units
from hbanalysis.attacks.gradients import Curvature
from hbanalysis.errors import require, unknown_name
from hbanalysis.inputs import newton_direction
from hbanalysis.inputs.logits import Labels

SOLVERS = ("cg", "exact")


def fhsm(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: Clip = (0.0, 1.0),
    solver: str = "cg",
    iterations: int = 5,
    damping: float = 0.0,
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the perturbation by the sign of the Newton direction (FHSM, the fast Hessian sign method).

    .. math:: x_{adv} = \mathrm{clip}\bigl(x + \epsilon \, \mathrm{sign}(d)\bigr),
       \qquad (\nabla_x^2 \ell + \mu I) \, d = \nabla_x \ell

    Each sample has its own system; all systems of a chunk are solved at once. A sample whose direction is zero or not
    finite is given back unchanged.

    Args:
        model: Maps images to logits ``(n, c)``, twice differentiable; see `fgsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        eps: Size in the maximum norm; see `fgsm`.
        clip: See `fgsm`.
        solver: ``"cg"``: conjugate gradients from zero, by Hessian-vector products, for every network. A sample stops
            at a residual of 1e-4 of its gradient, or where the curvature is not above rounding.
            ``"exact"``: `hbanalysis.inputs.newton_direction`, for networks that are piecewise linear in the images.
        iterations: At most so many conjugate gradient iterations. The paper does not state its number.
        damping: :math:`\mu`, at least 0, in units of the curvature.
        softmax: See `fgsm`. With ``"relative"`` the system is scaled by 1 / (1 - p_y), which does not change its
            solution's direction; the exact solver knows no other.
        batch_size: See `fgsm`.

    Cost: one input gradient and ``iterations`` Hessian-vector products (each 1 to 2 gradients); exact, c - 1 input
    gradients.

    Raises:
        InputError: See `fgsm`; an operation that cannot be differentiated twice, an unknown solver, ``iterations``
            below 1, ``damping`` negative or not finite.
        NumericalError: See `fgsm`.

    References:
        Paper, section 3, where the attack is named; the formula is a reconstruction (see `READINGS`).

    Example:
        >>> import torch
        >>> model, x = nn.Linear(1, 2), torch.tensor([[0.5]])
        >>> (fhsm(model, x, torch.tensor([0]), 0.25) - x).abs()
        tensor([[0.2500]])
    """
    direction = _direction(solver, iterations, damping, softmax)

    def step(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        return x + per_sample(eps, x) * signs(direction(model, x, labels))

    return attacked(step, model, x, labels, eps, clip, _chunk(solver, batch_size, x))


def l2_hess(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    eps: float | Tensor,
    *,
    clip: Clip = (0.0, 1.0),
    solver: str = "cg",
    iterations: int = 5,
    damping: float = 0.0,
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the perturbation along the Newton direction, of a given Euclidean length (L2HESS).

    .. math:: x_{adv} = \mathrm{clip}\Bigl(x + \epsilon \, \frac{d}{\|d\|_2}\Bigr),
       \qquad (\nabla_x^2 \ell + \mu I) \, d = \nabla_x \ell

    Args:
        model: See `fhsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        eps: Size in the Euclidean norm; see `l2_grad`.
        clip: See `fgsm`; clamping makes the perturbation shorter.
        solver: See `fhsm`.
        iterations: See `fhsm`.
        damping: See `fhsm`.
        softmax: See `fhsm`.
        batch_size: See `fgsm`.

    Cost: see `fhsm`.

    Raises:
        InputError: See `fhsm`.
        NumericalError: See `fgsm`.

    References:
        Paper, section 3, where the attack is named; the formula is a reconstruction (see `READINGS`).

    Example:
        >>> import torch
        >>> model, x = nn.Linear(4, 2), torch.full((1, 4), 0.5)
        >>> (l2_hess(model, x, torch.tensor([0]), 0.25) - x).norm()
        tensor(0.2500)
    """
    direction = _direction(solver, iterations, damping, softmax)

    def step(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        return x + per_sample(eps, x) * units(direction(model, x, labels))

    return attacked(step, model, x, labels, eps, clip, _chunk(solver, batch_size, x))


def newton_step(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    solver: str = "cg",
    iterations: int = 5,
    damping: float = 0.0,
    softmax: str = "relative",
    batch_size: int | None = None,
) -> Tensor:
    r"""Return the direction of `fhsm` and `l2_hess`, :math:`H^{-1} \nabla_x \ell`, up to one positive factor a sample.

    Both attacks, clipped or not, follow from it: ``x + eps * sign(d)`` and ``x + eps * d / |d|``.

    Args:
        model: See `fgsm`.
        x: See `fgsm`.
        labels: See `fgsm`.
        solver: See `fhsm`.
        iterations: See `fhsm`.
        damping: See `fhsm`.
        softmax: See `fgsm`.
        batch_size: See `fgsm`.

    Cost: see `fhsm`.

    Raises:
        InputError: See `fhsm`.
        NumericalError: See `fhsm`.

    Example:
        >>> import torch
        >>> x, labels = torch.zeros(2, 3), torch.tensor([0, 1])
        >>> newton_step(nn.Identity(), x, labels, iterations=1).sign()
        tensor([[-1.,  1.,  1.],
                [ 1., -1.,  1.]])
    """
    direction = _direction(solver, iterations, damping, softmax)

    def step(model: nn.Module, x: Tensor, labels: Tensor, eps: Tensor) -> Tensor:
        return direction(model, x, labels)

    return attacked(step, model, x, labels, 0.0, None, _chunk(solver, batch_size, x))


def _direction(
    solver: str, iterations: int, damping: float, softmax: str
) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """Check the choices and return the map from images to Newton directions, up to one positive factor a sample."""
    check_choices(softmax, iterations=iterations)
    if solver not in SOLVERS:
        raise unknown_name("solver", solver, SOLVERS)
    require(0 <= damping < float("inf"), f"damping is added to eigenvalues, at least 0 and finite; given {damping}.")
    if solver == "cg":
        return partial(_by_cg, iterations=iterations, damping=damping, softmax=softmax)
    require(
        softmax == "relative",
        f"solver='exact' works from logits relative to the label; given softmax={softmax!r}. Use solver='cg'.",
    )
    return partial(_exactly, damping=damping)


def _by_cg(model: nn.Module, x: Tensor, labels: Tensor, *, iterations: int, damping: float, softmax: str) -> Tensor:
    curvature = Curvature(model, x, labels, softmax, damping)
    return conjugate_gradients(curvature.multiply, curvature.gradient, iterations)


def _exactly(model: nn.Module, x: Tensor, labels: Tensor, *, damping: float) -> Tensor:
    return newton_direction(model, x, labels, damping=damping, normalized=True)


def _chunk(solver: str, batch_size: int | None, x: Tensor) -> int | None:
    """The exact solver examines the network before it cuts the data itself, so it is given all of them at once."""
    return max(len(x), 1) if solver == "exact" and batch_size is None else batch_size
