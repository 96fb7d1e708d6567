"""Traces of a symmetric operator and of its square from products with random probe vectors.

Choose Hutch++ unless the spectrum is known to be flat: it takes the few large eigenvalues out exactly and samples the
rest, where Hutchinson's estimator samples everything.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbanalysis.errors import ConvergenceWarning, InputError, NumericalError, require, unknown_name
from hbanalysis.operators.matrices import SymmetricOperator, as_operator

Show = Callable[[int, int], None]
BLOCK = 10  # columns multiplied at once; also the fewest probes on whose spread an early stop is judged
LEAST = {"hutch++": 4, "hutchinson": 2}  # products that leave two probes for a standard error
DISTRIBUTIONS = ("rademacher", "gaussian")


@dataclass(frozen=True)
class TraceEstimate:
    """The trace of an operator and of its square, with what is known about their errors.

    Attributes:
        value: The trace.
        standard_error: The standard error of ``value``, from the spread between probe vectors. It covers their
            sampling only (the products' own rounding is not in it), and is 0 where the trace was summed exactly.
        frobenius_squared: tr H^2, the squared Frobenius norm, from the same products.
        frobenius_squared_standard_error: Its standard error, in the same sense.
        products: Columns multiplied by the operator.
        method: ``"hutch++"``, ``"hutchinson"`` or ``"exact"``.
        converged: ``standard_error`` is within the tolerance asked for, or none was.
    """

    value: float
    standard_error: float
    frobenius_squared: float
    frobenius_squared_standard_error: float
    products: int
    method: str
    converged: bool


def trace(
    operator: SymmetricOperator | Any,
    *,
    products: int = 120,
    method: str = "hutch++",
    distribution: str = "rademacher",
    seed: int = 0,
    tol: float | None = None,
    show: Show | None = None,
) -> TraceEstimate:
    r"""Return the trace of an n x n operator, and of its square, from at most ``products`` products.

    Hutchinson's estimator is the mean of :math:`g^\top H g` over random g with uncorrelated entries of variance 1.
    Hutch++ spends a third of the products on a sketch H S, a third on an orthonormal basis Q of its range, and samples
    what is left with the remaining probes:

    .. math:: \operatorname{tr} H = \operatorname{tr} Q^\top H Q
        + \mathbb E\, g^\top P H P g, \quad P = I - Q Q^\top

    Both are unbiased if ``tol`` is not given, whatever Q is. For a positive semi-definite H and m products, Hutch++
    errs by a share of order 1/m of the trace, Hutchinson by one of order :math:`1/\sqrt m`. The trace of the square
    follows from the same products, as the mean of :math:`\|Hg\|^2`, or :math:`\|HQ\|_F^2` and the mean of
    :math:`\|HPg\|^2`.

    Args:
        operator: Anything with ``shape``, ``dtype``, ``device`` and ``@``; a symmetric tensor or array; a SciPy sparse
            matrix or ``LinearOperator``.
        products: Columns multiplied at most, at least 4 (2 for ``hutchinson``); from n on the diagonal is summed
            exactly, in n products, and ``method`` of the result is ``exact``.
        method: ``hutch++`` or ``hutchinson``.
        distribution: Of the entries of S and g: ``rademacher`` (signs, which never have the larger variance) or
            ``gaussian``.
        seed: Seed of the random vectors, the same on every device.
        tol: Stop early once the standard error is within ``tol`` times \|value\|, judged after every ten probes (so
            the estimate is very slightly biased); ``None`` spends all products.
        show: Called after each block of products with the products so far and the most that there can be; an
            exception raised there ends the run.

    Cost: at most ``products`` products; memory for Hutch++ up to ``2 products`` vectors in float64, else 40.

    Raises:
        InputError: Too few products, an unknown method or distribution, a ``tol`` outside 0 to 1.
        NumericalError: A product is not finite.

    Warns:
        ConvergenceWarning: ``tol`` was given and not met; what was found is returned with ``converged=False``.

    References:
        Meyer, Musco, Musco and Woodruff, Hutch++: optimal stochastic trace estimation, SOSA (2021); Hutchinson, A
        stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines, Commun. Stat.
        Simul. Comput. 18 (1989).

    Example:
        Forty eigenvalues that are not 0 fit into the sketch, and nothing is left to sample:

        >>> found = trace(torch.diag((torch.arange(500) < 40).double()))
        >>> round(found.value, 9), round(found.standard_error, 9), found.products
        (40.0, 0.0, 120)
    """
    H = as_operator(operator)
    n = H.shape[0]
    _check(products, method, distribution, tol)
    if products >= n:
        return _exact(_Multiplier(H, n, show))
    multiply = _Multiplier(H, products, show)
    generator = torch.Generator().manual_seed(seed)
    known, known_square = 0.0, 0.0
    Q = torch.zeros(n, 0, dtype=torch.float64, device=H.device)
    if method == "hutch++":
        sketch = _probes(n, products // 3, distribution, generator, H.device)
        Q = torch.linalg.qr(multiply(sketch)).Q
        HQ = multiply(Q)
        known, known_square = float((Q * HQ).sum()), float(HQ.square().sum())
    first, second = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
    while True:
        G = _probes(n, min(BLOCK, products - multiply.done), distribution, generator, H.device)
        G = G - Q @ (Q.T @ G)
        HG = multiply(G)
        first = torch.cat([first, (G * HG).sum(0).cpu()])
        second = torch.cat([second, HG.square().sum(0).cpu()])
        value, error = known + float(first.mean()), _standard_error(first)
        converged = tol is None or error <= tol * abs(value)
        if multiply.done == products or (tol is not None and converged):
            break
    if not converged:
        warnings.warn(
            f"trace stopped after {products} products with a standard error of {error:.3g} for the value {value:.6g}, "
            f"above tol = {tol:g} of it. Raise products (the error of Hutchinson's part falls with their square root) "
            "or loosen tol.",
            ConvergenceWarning,
            stacklevel=2,
        )
    return TraceEstimate(
        value=value,
        standard_error=error,
        frobenius_squared=known_square + float(second.mean()),
        frobenius_squared_standard_error=_standard_error(second),
        products=multiply.done,
        method=method,
        converged=converged,
    )


class _Multiplier:
    """Products with the columns of a block, checked, in float64, and counted."""

    def __init__(self, H: SymmetricOperator, limit: int, show: Show | None) -> None:
        self.H, self.limit, self.show, self.done = H, limit, show, 0

    def __call__(self, columns: Tensor) -> Tensor:
        """Return ``H @ columns`` for ``(n, b)``, ten columns at a time."""
        parts = []
        for part in columns.split(BLOCK, 1):
            product = (self.H @ part.to(self.H.dtype)).double()
            if not bool(torch.isfinite(product).all()):
                raise NumericalError(
                    f"A product is not finite (columns {self.done + 1} to {self.done + part.shape[1]}); "
                    "check the operator's values."
                )
            self.done += part.shape[1]
            parts.append(product)
            if self.show is not None:
                self.show(self.done, self.limit)
        return torch.cat(parts, 1)


def _exact(multiply: _Multiplier) -> TraceEstimate:
    H = multiply.H
    n = H.shape[0]
    value, square = 0.0, 0.0
    for start in range(0, n, BLOCK):
        width = min(BLOCK, n - start)
        units = torch.zeros(n, width, dtype=torch.float64, device=H.device)
        units[start : start + width] = torch.eye(width, dtype=torch.float64, device=H.device)
        columns = multiply(units)
        value += float((units * columns).sum())
        square += float(columns.square().sum())
    return TraceEstimate(value, 0.0, square, 0.0, multiply.done, "exact", converged=True)


def _probes(n: int, count: int, distribution: str, generator: torch.Generator, device: torch.device) -> Tensor:
    """Return ``(n, count)`` random columns, drawn one by one so that they do not depend on the block size."""
    if distribution == "gaussian":
        columns = [torch.randn(n, generator=generator, dtype=torch.float64) for _ in range(count)]
    else:
        columns = [2.0 * torch.randint(2, (n,), generator=generator).double() - 1.0 for _ in range(count)]
    return torch.stack(columns, 1).to(device)


def _standard_error(samples: Tensor) -> float:
    return float(samples.std()) / math.sqrt(len(samples))


def _check(products: int, method: str, distribution: str, tol: float | None) -> None:
    if method not in LEAST:
        raise unknown_name("trace method=", method, LEAST)
    if distribution not in DISTRIBUTIONS:
        raise unknown_name("distribution of the probes", distribution, DISTRIBUTIONS)
    require(
        products >= LEAST[method],
        f"{method} needs at least {LEAST[method]} products, so that two probes give a standard error; "
        f"given {products}. A hundred are usual.",
    )
    if tol is not None and not 0 < tol < 1:
        raise InputError(f"tol is a standard error relative to the trace, between 0 and 1; given {tol}.")
