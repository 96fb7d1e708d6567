"""The largest eigenvalues of a loss as studies keep them: with bounds, and with the loss and the gradient beside."""

from collections.abc import Callable
from typing import Any

from hbanalysis.eigen import eigsh
from hbanalysis.operators import WeightHessian


def largest(H: WeightHessian, count: int, tolerance: float, tell: Callable[[float], None]) -> dict[str, Any]:
    """Return loss, gradient norm and the largest eigenvalues of ``H`` as a row holds them.

    Args:
        H: The Hessian of a mean loss.
        count: How many eigenvalues, in descending order.
        tolerance: Relative error allowed for each.
        tell: Told the share of the products that were made, in 0..1, by a guess of how many it takes.
    """
    guess = 2.3 * count + 20
    pairs = eigsh(
        H,
        count,
        tol=tolerance,
        method="auto",
        check=False,
        show=lambda done, worst: tell(min(1.0, done / guess)),
    )
    return {
        "loss": H.loss(),
        "gradient_norm": float(H.gradient().double().norm()),
        "spectrum": pairs.values.tolist(),
        "bounds": pairs.bounds.tolist(),
        "converged": pairs.converged,
        "products": pairs.products,
    }
