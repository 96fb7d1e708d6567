"""Conjugate gradients for one small system a sample, all samples of a chunk at once."""

from collections.abc import Callable

import torch
from torch import Tensor

from hbanalysis.attacks.geometry import per_sample

RESIDUAL = 1e-4  # a sample stops at this residual relative to its right side
_ROUNDING = 4  # curvature below so many rounding units of the largest product seen is noise


def conjugate_gradients(
    multiply: Callable[[Tensor], Tensor], right: Tensor, iterations: int, tolerance: float = RESIDUAL
) -> Tensor:
    r"""Return the approximate solutions of :math:`A_i d_i = b_i` after some iterations of conjugate gradients.

    .. math:: d_0 = 0, \quad r_0 = p_0 = b, \qquad \alpha = \frac{r^T r}{p^T A p}, \quad d \mathrel{+}= \alpha p,
       \quad r \mathrel{-}= \alpha A p, \quad p \leftarrow r + \frac{r_+^T r_+}{r^T r} \, p

    Each residual is made orthogonal to all earlier ones, which changes nothing in exact arithmetic. Without it the
    rounding of the products grows some thousandfold an iteration on the ill-conditioned systems of trained networks:
    for M1 on MNIST the fifth iterate in float32 had another direction than in float64 (cosine below .99) for a fifth of
    500 test images, with it for none.

    A sample stops, and keeps what it has, when its residual is at most ``tolerance`` times its right side, or when the
    curvature :math:`p^T A p` is not above the rounding of the products: run on past the rank of A, conjugate gradients
    only amplify noise. A sample that has no curvature along its right side gets the right side itself, the limit of
    large damping, so one iteration always has the direction of b.

    Args:
        multiply: Maps directions ``(n, ...)`` to each sample's own product.
        right: Right sides ``(n, ...)``.
        iterations: At most so many products.
        tolerance: Relative residual at which a sample stops.

    Cost: ``iterations`` products, fewer if all samples stop earlier; memory for as many vectors.

    References:
        Hestenes and Stiefel, 1952; the truncation at small curvature: Steihaug, 1983.

    Example:
        >>> conjugate_gradients(lambda v: v * torch.tensor([1.0, 4.0]), torch.tensor([[1.0, 1.0]]), 2)
        tensor([[1.0000, 0.2500]])
    """
    solution = torch.zeros_like(right)
    residual, search = right, right
    squared = _dot(right, right)
    goal = tolerance**2 * squared
    active = torch.isfinite(squared) & (squared > 0)
    moved = torch.zeros_like(active)
    earlier: list[Tensor] = []
    largest = torch.zeros_like(squared)  # a lower bound of each sample's largest eigenvalue
    rounding = _ROUNDING * torch.finfo(right.dtype).eps
    for _ in range(iterations):
        if not bool(active.any()):
            break
        product = multiply(search)
        curvature, length = _dot(search, product), _dot(search, search)
        largest = torch.maximum(largest, (_dot(product, product) / length).sqrt().nan_to_num(0))
        active = active & torch.isfinite(curvature) & (curvature > rounding * largest * length)
        step = squared / curvature
        solution = _where(active, solution + per_sample(step, right) * search, solution)
        earlier.append(residual / per_sample(squared.sqrt(), right))
        residual = _where(active, _orthogonal(residual - per_sample(step, right) * product, earlier), residual)
        moved = moved | active
        following = _dot(residual, residual)
        active = active & (following > goal)
        search = _where(active, residual + per_sample(following / squared, right) * search, search)
        squared = following
    return _where(moved, solution, right)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.flatten(1).double() * b.flatten(1).double()).sum(1)


def _orthogonal(vectors: Tensor, to: list[Tensor]) -> Tensor:
    for _ in range(2):  # twice is enough
        for unit in to:
            vectors = vectors - per_sample(_dot(unit, vectors), vectors) * unit
    return vectors


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
