"""Deflated power iteration, as the paper computes its spectra: for comparison."""

import math

import numpy as np
import torch
from torch import Tensor

from hbanalysis.eigen.basis import Basis, norm
from hbanalysis.eigen.pairs import Eigenpairs, layout_of
from hbanalysis.eigen.ritz import Wanted
from hbanalysis.operators import SymmetricOperator, as_operator


def power_iteration(
    operator: SymmetricOperator | Tensor,
    k: int = 1,
    *,
    tol: float = 1e-4,
    max_products: int = 10_000,
    seed: int = 0,
) -> Eigenpairs:
    """Return k eigenpairs by deflated power iteration, as the paper does (section 2): for comparison.

    Each vector is iterated on the complement of those found before until the relative change of its Rayleigh quotient
    falls below ``tol``. A small change is no bound: neighbours whose moduli differ by less than the change per step
    are mixed or skipped. ``bounds`` and ``converged`` say what the residuals prove.

    Args:
        operator: What `eigsh` takes.
        k: How many, 1 <= k <= n, of largest modulus.
        tol: Relative change at which a vector is left.
        max_products: Products in all; vectors that it leaves no room for are taken as they are.
        seed: Seed of the start vectors.

    Raises:
        InputError: k out of range.

    Example:
        >>> power_iteration(torch.diag(torch.tensor([1.0, -4.0, 2.0]))).values.round(decimals=3)
        tensor([-4.], dtype=torch.float64)
    """
    H = as_operator(operator)
    Wanted(k, "LM", tol).check(H.shape[0])
    basis = Basis(H.shape[0], k + 1, H.dtype, H.device)
    generator = torch.Generator().manual_seed(seed)
    values, residuals, products = [], [], 0
    for found in range(k):
        basis.size = found
        basis.append(basis.random(generator))
        value = math.nan
        while True:
            v = basis.column(found)
            w = (H @ v).double()
            products += 1
            previous, value = value, float(v.double() @ w)
            residual = norm(w - value * v.double())
            settled = abs(value - previous) <= tol * max(abs(value), np.finfo(float).tiny)
            if settled or residual == 0.0 or products >= max_products:
                break
            basis.size = found
            basis.append(w)
        values.append(value)
        residuals.append(residual)
    r = torch.tensor(residuals, dtype=torch.float64)
    exact = torch.tensor(values, dtype=torch.float64)
    return Eigenpairs(
        values=exact,
        vectors=basis.leading(k),
        residuals=r,
        bounds=r,
        products=products,
        converged=bool((r <= tol * exact.abs()).all()),
        method="power",
        layout=layout_of(operator),
    )
