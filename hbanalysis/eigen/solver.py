"""Extreme eigenpairs of a symmetric operator, with error bounds and a check that none is missing."""

import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbanalysis import distributed
from hbanalysis.eigen import resume, screening
from hbanalysis.eigen.krylov import PROBE_ROOM, KrylovSpace
from hbanalysis.eigen.lanczos import Outcome, Show, run
from hbanalysis.eigen.pairs import Completeness, Eigenpairs, Layout, layout_of
from hbanalysis.eigen.power import power_iteration
from hbanalysis.eigen.progress import terminal_line
from hbanalysis.eigen.ritz import Wanted
from hbanalysis.errors import ConvergenceWarning, InputError, unknown_name
from hbanalysis.memory import as_text, available
from hbanalysis.operators import SymmetricOperator, as_operator

__all__ = ["Completeness", "Eigenpairs", "eigsh", "power_iteration"]
METHODS = ("auto", "lanczos", "screened", "power")


def eigsh(
    operator: SymmetricOperator | Any,
    k: int = 6,
    *,
    which: str = "LA",
    tol: float = 1e-4,
    method: str = "lanczos",
    check: bool = True,
    v0: Tensor | Eigenpairs | None = None,
    subspace: int | None = None,
    max_products: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    show: Show | None = None,
) -> Eigenpairs:
    r"""Return k extreme eigenpairs, each with a bound on its error.

    Lanczos with thick restart; every dot product is accumulated in float64 and every basis vector orthogonalised in two
    passes. It stops on error bounds, not on changes: with the wanted Ritz vectors V, :math:`M = V^T H V` and residual
    :math:`R = HV - VM`, the j-th eigenvalue lies between :math:`\theta_j` and
    :math:`\lambda_j(M + R^T R / (\theta_j - \nu))`, where :math:`\nu` bounds the rest of the spectrum (`ritz`). While
    Lanczos runs, :math:`\nu` is what the other Ritz values suggest. At the end the complement is searched from a fresh
    random vector; that yields a bound :math:`\nu` with a known failure probability, or the eigenvalues that were
    missing (`probe`).

    Args:
        operator: A `WeightHessian` or anything with ``shape``, ``dtype``, ``device`` and ``@``; a symmetric tensor; a
            SciPy ``LinearOperator``.
        k: How many, 1 <= k <= n.
        which: ``LA`` largest (descending), ``SA`` smallest (ascending), ``LM`` largest modulus (descending by modulus,
            sign kept), ``BE`` half from each end, descending.
        tol: Error allowed relative to each ``|value|``, with floor ``20 eps max|value|``.
        method: ``lanczos``; ``screened`` for `WeightHessian` under cross-entropy (see `screening`); ``power``, the
            paper's; ``auto`` takes ``screened`` for the largest values (LA, LM) of such a Hessian, where it is expected
            to be cheaper, and Lanczos for SA and BE: the samples that carry the large eigenvalues do not carry those.
        check: Look for missing eigenvalues at the end; costs some 10 to 20 products.
        v0: Start vector ``(n,)``, or earlier `Eigenpairs` of a similar operator; the default is random from ``seed``,
            the same on every device.
        subspace: Basis vectors held at most, default ``max(2 k + 40, 60)``.
        max_products: Stop after this many products, default ``100 k + 500``. With ``screened`` it binds each of its two
            runs of Lanczos, on parts of the samples.
        seed: Seed of the start vector and of the check.
        checkpoint: A file that keeps the state every few minutes and when the run is interrupted; the same call goes
            on from it. Removed at the end. For Lanczos, which ``auto`` then takes.
        show: Called after each product with the number of products and the worst error relative to its tolerance (nan
            during the check); an exception raised there ends the run. The default shows a line on a terminal.

    Cost: ``products`` of the result says it; a few times k on trained networks. Memory: ``subspace`` vectors and some
    30 for the check.

    Raises:
        InputError: k or ``max_products`` out of range, unknown ``which`` or ``method``, an asymmetric tensor, a zero or
            mismatched ``v0``, a ``checkpoint`` of another operator or for a method that keeps none; vectors that do not
            fit into memory.
        NumericalError: A product is not finite.

    Warns:
        ConvergenceWarning: The limit was reached first; what was found is returned with ``converged=False``.

    Example:
        >>> pairs = eigsh(torch.diag(torch.arange(100.0) ** 4 / 99**3), k=3)
        >>> [round(x, 2) for x in pairs.values.tolist()], pairs.converged, bool(pairs.complete)
        ([99.0, 95.06, 91.24], True, True)
    """
    H = as_operator(operator)
    wanted = Wanted(k, which, tol)
    wanted.check(H.shape[0])
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if checkpoint is not None and method in ("screened", "power"):
        raise InputError(f"method={method!r} keeps no state: leave out checkpoint, or use method='lanczos' or 'auto'.")
    if show is not None and not callable(show):
        raise InputError(f"show is a function (products, worst error) or None; given {show!r}.")
    if max_products is not None and max_products < 1:
        raise InputError(f"max_products must be at least 1, or None for 100 k + 500; given {max_products}.")
    limit = 100 * k + 500 if max_products is None else max_products
    if method == "power":
        if which != "LM":
            raise InputError(f"Power iteration finds the largest moduli, which='LM'; given which={which!r}.")
        return power_iteration(H, k, tol=tol, max_products=limit, seed=seed)
    width = min(H.shape[0], max(2 * k + 40, 60) if subspace is None else subspace)
    if width < min(H.shape[0], k + 2):
        raise InputError(f"subspace={width} is too small for k={k}; use at least {min(H.shape[0], k + 2)}.")
    _require_room(H, k, width)
    begin = partial(_start_vector, v0, H.shape[0])
    layout = layout_of(H)
    with terminal_line(show) as line:
        if method == "auto" and which in ("LA", "LM") and checkpoint is None and screening.applicable(H):
            method = "screened"
        if method == "screened":
            found = screening.screened(screening.weighted(H), wanted, width, check, begin, limit, seed, line)
            if found is not None:
                return _result(*found, wanted, "screened", layout)
        space = KrylovSpace(H, width, k + 2, seed)
        with resume.keeping(space, checkpoint) as after:
            if not space.size:
                space.push(begin(space))
            outcome = run(space, wanted, limit, check, line, after)
    return _result(space, outcome, space.steps, {}, wanted, "lanczos", layout)


def _result(
    space: KrylovSpace,
    outcome: Outcome,
    products: float,
    notes: dict[str, float],
    wanted: Wanted,
    method: str,
    layout: Layout,
) -> Eigenpairs:
    """Return what a run found, with a warning if it did not converge."""
    ritz = outcome.ritz
    chosen = wanted.choose(ritz.theta)
    if not outcome.converged:
        warnings.warn(
            f"eigsh stopped after {products:g} products with the worst error bound {outcome.worst:.3g} times its "
            "tolerance. Raise max_products or subspace, or loosen tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
    bounds = ritz.bounds(wanted, outcome.rest)
    if outcome.rest is not None and outcome.converged:
        bounds = np.minimum(bounds, ritz.allowed(wanted)[chosen])  # so much is proved where the rest comes too close
    left_out = notes.get("left_out_norm", 0.0)
    return Eigenpairs(
        values=torch.from_numpy(ritz.theta[chosen].copy()),
        vectors=space.vectors(ritz, chosen),
        residuals=torch.from_numpy(ritz.residuals[chosen] + left_out),
        bounds=torch.from_numpy(bounds + left_out),
        products=products,
        converged=outcome.converged,
        complete=outcome.complete,
        rounding=space.asymmetry,
        method=method,
        notes=notes,
        layout=layout,
    )


def _require_room(H: SymmetricOperator, k: int, width: int) -> None:
    """Raise `InputError` if the vectors that a run may come to hold are larger than the memory that is free."""
    n = H.shape[0]
    count, each = min(width + PROBE_ROOM + k + 2, n), n * H.dtype.itemsize
    free = available(H.device)
    lacking = count * each > free
    if distributed.agree(lacking) if getattr(H, "shared", False) else lacking:
        raise InputError(
            f"Up to {count} vectors of {n:,} entries take {as_text(count * each)}, and {as_text(free)} are free. A "
            f"smaller subspace (given {width}, at least {min(n, k + 2)}) takes more products and less memory; or look "
            "for fewer eigenvalues, or at a block of the Hessian (parameters=)."
        )


def _start_vector(v0: Any, n: int, space: Any) -> Tensor | None:
    """Return the start vector that ``v0`` stands for; None for a random one."""
    if v0 is None:
        return None
    if isinstance(v0, Eigenpairs):
        old = v0.vectors.to(space.operator.device).double()
        if old.shape[0] != n:
            raise InputError(f"v0 holds vectors of length {old.shape[0]}; the operator has size {n}.")
        signs = 2.0 * torch.randint(0, 2, (old.shape[1],), generator=space.generator) - 1
        rest = space.basis.random(space.generator) / np.sqrt(n)
        return old @ signs.double().to(old.device) / np.sqrt(old.shape[1]) + 0.1 * rest
    if not isinstance(v0, Tensor) or v0.shape != (n,) or not bool(v0.any()):
        given = str(tuple(v0.shape)) if isinstance(v0, Tensor) else type(v0).__name__
        raise InputError(f"v0 must be a tensor, not zero, of shape ({n},), or earlier Eigenpairs; given {given}.")
    return v0
