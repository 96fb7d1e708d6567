"""Eigenvalues of the input Hessian of every sample: exactly for piecewise-linear networks, by Lanczos for others."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, overload

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hbanalysis.errors import ConvergenceWarning, GeneralPathWarning, require, unknown_name
from hbanalysis.inputs.chunks import collected, walk
from hbanalysis.inputs.jacobians import LogitJacobians
from hbanalysis.inputs.lanczos import LeadingPairs, leading_pairs
from hbanalysis.inputs.logits import Labels, LogitMap
from hbanalysis.inputs.operator import Handle, handle_bytes
from hbanalysis.inputs.piecewise import report_of, require_piecewise_linear

_METHODS = ("auto", "exact", "lanczos")
_WHICH = ("LA", "SA", "LM")
_STEPS = (20, 100)  # products allowed: so many for each eigenvalue, and so many more
_KEPT_STEPS = 60  # basis vectors that the memory of a chunk is reckoned with


@dataclass(frozen=True)
class InputSpectrum:
    """Eigenpairs of the input Hessian of every sample.

    Attributes:
        values: Eigenvalues ``(N, columns)``, float64, in the order asked for. Float64 whatever the model's dtype, since
            the curvature of a sample that is all but certain is smaller than float32 can hold.
        vectors: Eigenvectors ``(N, columns, *x.shape[1:])`` in the dtype of x, orthonormal for each sample.
        residuals: ``|H v - value v|``, ``(N, columns)``; ``None`` on the exact path, which has no iteration.
        converged: ``(N,)``, whether a sample's residuals met the tolerance and, with several columns, what they leave
            over was searched to the end; all true on the exact path.
        method: ``exact`` or ``lanczos``.
        obstacle: What keeps the network from being piecewise linear, or ``None``.
        products: Hessian-vector products of the longest run; 0 on the exact path.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor | None
    converged: Tensor
    method: str
    obstacle: str | None
    products: int


@overload
def input_spectrum(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    vectors: Literal[False] = False,
    k: int | None = None,
    which: str = "LA",
    method: str = "auto",
    tol: float = 1e-4,
    max_products: int | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
    memory_budget: int | None = None,
) -> Tensor: ...


@overload
def input_spectrum(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    vectors: Literal[True],
    k: int | None = None,
    which: str = "LA",
    method: str = "auto",
    tol: float = 1e-4,
    max_products: int | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
    memory_budget: int | None = None,
) -> InputSpectrum: ...


def input_spectrum(
    model: nn.Module,
    x: Tensor,
    labels: Labels,
    *,
    vectors: bool = False,
    k: int | None = None,
    which: str = "LA",
    method: str = "auto",
    tol: float = 1e-4,
    max_products: int | None = None,
    seed: int = 0,
    chunk_size: int | None = None,
    memory_budget: int | None = None,
) -> Float[Tensor, "N columns"] | InputSpectrum:
    r"""Return the eigenvalues of the Hessian of each sample's cross-entropy in its own input.

    Where the network is piecewise linear (`is_piecewise_linear`) they are exact, without iteration:

    .. math:: H_x = R^T \, (\mathrm{diag}\, q - q q^T) \, R, \qquad R_k = \nabla_x (z_k - z_y), \quad k \ne y

    with the probabilities q of the classes other than the label. H has rank c - 1 at most, so min(c - 1, d) eigenvalues
    can be other than 0, and none is negative. They are the squared singular values of a small matrix that is built in
    float64 from log-probabilities and a known factor of diag q - q q^T, never by a subtraction (`softmax`). The
    singular values are right to some float64 rounding units of the largest, so an eigenvalue below 1e-30 of the first
    is rounding; how far the others mean something depends on the rounding of the network itself.

    Other networks take the general path and say so in a warning: Lanczos for the k leading eigenvalues of every sample,
    in step, with Hessian-vector products by double backward. With k > 1 what the pairs found leave over is searched
    again from a fresh random vector, so that copies of an eigenvalue are not missed.

    Args:
        model: Maps inputs to logits ``(n, c)``, at least two. It runs in eval mode and is left as it was.
        x: Inputs ``(N, ...)`` with d numbers each, float32 or float64.
        labels: Class labels ``(N,)``.
        vectors: Also return eigenvectors, as `InputSpectrum`; N times columns times d numbers.
        k: How many, at least 1. ``None`` means min(c - 1, d). The general path takes any k up to d.
        which: ``LA`` largest, descending; ``SA`` smallest, ascending, or ``LM`` largest modulus, descending by modulus,
            for the general path. On the exact path LM is the same as LA, and SA is refused.
        method: ``exact`` refuses networks that do not qualify; ``lanczos`` takes any without a warning; ``auto`` takes
            the exact path where it can.
        tol: Lanczos: residual allowed relative to each ``|value|``.
        max_products: Lanczos: products at most, by default 20 k + 100.
        seed: Lanczos: seed of the start vector.
        chunk_size: Samples at once; ``None`` takes what fits ``memory_budget``, at most 50 on a CPU and 1,000 on a
            GPU. The result does not depend on it beyond rounding.
        memory_budget: Bytes for a chunk; ``None`` means a quarter of what is free (1 GiB at most) on a CPU, half of it
            on a GPU.

    Returns:
        Eigenvalues ``(N, columns)``, float64, on the device of x; or with ``vectors`` an `InputSpectrum`.

    Cost: exact: one forward and c - 1 backward passes to the input, some (c + 1) / 2 input gradients (measured in
    ``benchmarks/inputs.py``). Lanczos: one input gradient and 2 to 2.5 for each step; with k > 1 a second run, for
    one eigenvalue, to see that none is missing.

    Raises:
        InputError: ``method="exact"`` and the network does not qualify; k out of range. Or see `hbanalysis.inputs`.
        NumericalError: Logits or gradients are not finite.

    Warns:
        GeneralPathWarning: The network does not qualify; names the operation.
        ConvergenceWarning: Lanczos stopped before its tolerance was met.

    References:
        Paper, Theorem 1 and Proposition 2; lambda_1^x of Table 1. Tanabe and Sagae 1992 for the factor.

    Example:
        A linear model with p = (1/2, 1/2) has the one eigenvalue ``p (1 - p) |w_0 - w_1|^2``:

        >>> model = nn.Linear(2, 2, bias=False)
        >>> _ = model.weight.data.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        >>> input_spectrum(model, torch.zeros(3, 2), torch.tensor([0, 1, 0])).flatten()
        tensor([1., 1., 1.], dtype=torch.float64)
    """
    if method not in _METHODS:
        raise unknown_name("method", method, _METHODS)
    if which not in _WHICH:
        raise unknown_name("end of the spectrum", which, _WHICH)
    logits = LogitMap(model, x, labels)
    d = logits.x[0].numel()
    possible = min(logits.classes - 1, d)
    if method == "exact":
        require_piecewise_linear(logits)
    obstacle = None if method == "exact" else report_of(logits).obstacle
    if method == "lanczos" or obstacle is not None:
        count = possible if k is None else k
        require(1 <= count <= d, f"k lies in 1..{d}, the numbers of an input; given {k}.")
        if method == "auto":
            warnings.warn(
                f"The network is not known to be piecewise linear in its input, because of {obstacle}. Its Hessian may "
                f"have full rank and negative eigenvalues; {count} are computed by Lanczos (which={which!r}). "
                "method='lanczos' says that this is meant.",
                GeneralPathWarning,
                stacklevel=2,
            )
        size = _chunk(logits, count, chunk_size, memory_budget)
        found = _by_lanczos(logits, count, which, tol, max_products, seed, size)
        spectrum = _joined(found, logits, obstacle)
        _warn_unconverged(spectrum, tol)
        return spectrum if vectors else spectrum.values
    require(
        which != "SA",
        "The smallest eigenvalues of a piecewise-linear network's Hessian are 0 as soon as d > c - 1. To see them by "
        "iteration use method='lanczos'.",
    )
    require(
        k is None or 1 <= k <= possible,
        f"k lies in 1..{possible}: at most min(c - 1, d) eigenvalues are other than 0; given {k}.",
    )
    return _exact(walk(logits, chunk_size, memory_budget), x, k, vectors)


def _exact(parts: Iterator[LogitJacobians], x: Tensor, k: int | None, vectors: bool) -> Tensor | InputSpectrum:
    if not vectors:
        return torch.cat(collected(parts, lambda part: part.eigenvalues()[:, :k].to(x.device)))

    def pairs(part: LogitJacobians) -> tuple[Tensor, Tensor]:
        values, found = part.eigenpairs()
        return values[:, :k].to(x.device), found[:, :k].to(x)

    values, found = zip(*collected(parts, pairs), strict=True)
    converged = torch.ones(len(x), dtype=torch.bool, device=x.device)
    return InputSpectrum(torch.cat(values), torch.cat(found), None, converged, "exact", None, 0)


def _chunk(logits: LogitMap, k: int, chunk_size: int | None, memory_budget: int | None) -> int:
    """Return how many samples Lanczos takes at once: their graphs and their bases must fit."""
    bases = torch.float64.itemsize * (_KEPT_STEPS + 3 * k) * logits.x[0].numel()
    return logits.size(chunk_size, memory_budget, 2 * handle_bytes(logits) + bases)


def _by_lanczos(
    logits: LogitMap, k: int, which: str, tol: float, max_products: int | None, seed: int, size: int
) -> Iterator[LeadingPairs]:
    require(tol > 0, f"tol must be positive; given {tol}.")
    limit = _STEPS[0] * k + _STEPS[1] if max_products is None else max_products
    require(limit >= k, f"k={k} eigenvalues need at least as many products; given max_products={max_products}.")
    for first in range(0, len(logits.x), size):
        with logits.guarded():
            piece = logits.piece(slice(first, first + size), first)
            handle = Handle(logits, piece)
            shape, like = piece.inputs.shape, piece.inputs.detach().flatten(1)

            def multiply(v: Tensor, handle: Handle = handle, shape: torch.Size = shape) -> Tensor:
                return handle.multiply(v.reshape(shape).to(logits.dtype)).double().flatten(1)

            rounding = torch.finfo(logits.dtype).eps
            found = leading_pairs(multiply, like, k, which, tol, limit, rounding, seed)
            del handle, multiply
        yield found


def _joined(parts: Iterator[LeadingPairs], logits: LogitMap, obstacle: str | None) -> InputSpectrum:
    x = logits.x
    found = list(parts)
    vectors = torch.cat([part.vectors.to(x) for part in found])
    return InputSpectrum(
        values=torch.cat([part.values for part in found]).to(x.device),
        vectors=vectors.reshape(*vectors.shape[:2], *x.shape[1:]),
        residuals=torch.cat([part.residuals for part in found]).to(x.device),
        converged=torch.cat([part.converged for part in found]).to(x.device),
        method="lanczos",
        obstacle=obstacle,
        products=max(part.products for part in found),
    )


def _warn_unconverged(spectrum: InputSpectrum, tol: float) -> None:
    missed = (~spectrum.converged).nonzero().flatten()
    if len(missed):
        warnings.warn(
            f"Lanczos stopped after {spectrum.products} products before the residuals of {len(missed)} of "
            f"{len(spectrum.converged)} samples (the first is {int(missed[0])}) fell below {tol:g} of their "
            "eigenvalues, or before it was clear that none is missing. Raise max_products, or loosen tol.",
            ConvergenceWarning,
            stacklevel=3,
        )
