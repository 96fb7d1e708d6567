"""Eigenpairs with what is known about them: errors, rounding, and whether any is missing."""

from dataclasses import dataclass, field

from torch import Tensor

from hbanalysis.errors import InputError
from hbanalysis.operators.parameters import ParameterSpace


@dataclass(frozen=True)
class Completeness:
    """What is known about eigenvalues that were not found. True in a condition if none is missing.

    Attributes:
        method: ``"probe"`` (a random look at the complement), ``"whole space"`` (nothing is left to look at) or
            ``"none"``.
        confirmed: Every wanted value is the one of its index within its bound, whatever the multiplicities, but for
            ``failure_probability`` over the probe's random start.
        products: Products that the check took.
        failure_probability: Of a confirmation; 0 for the whole space.
        rest: Bounds on the eigenvalues of the operator on the complement of the space found, each wrong with half of
            ``failure_probability`` at most.
        copies: Eigenvalues that only the check brought to light (further copies of a repeated one, mostly).
    """

    method: str
    confirmed: bool
    products: float = 0
    failure_probability: float = 0.0
    rest: tuple[float, float] | None = None
    copies: int = 0

    def __bool__(self) -> bool:
        return self.confirmed

    def __str__(self) -> str:
        if self.method == "whole space":
            return "complete: the whole space was searched"
        if self.method == "none":
            return "not checked: an eigenvalue that the start vector hardly contains may be missing"
        found = f"; it brought {self.copies} to light" if self.copies else ""
        if self.confirmed:
            return (
                f"complete with probability {1 - self.failure_probability:g} (any multiplicity), "
                f"by a probe of {self.products:g} products{found}"
            )
        return f"not confirmed by a probe of {self.products:g} products{found}"


@dataclass(frozen=True, repr=False)
class Eigenpairs:
    """Eigenpairs as far as they were found, with what is known about their errors; prints as a table of them.

    Attributes:
        values: ``(k,)`` float64, in the order that ``which`` asks for.
        vectors: ``(n, k)``, unit columns; column i belongs to ``values[i]``.
        residuals: ``(k,)`` norms of ``H v - value v``. *An* eigenvalue of the operator as evaluated lies within
            ``residuals[i]`` of ``values[i]``, whatever the rest of the spectrum is.
        bounds: ``(k,)`` error bounds sharpened by the gap to the rest of the spectrum. They pin each eigenvalue by its
            index if ``complete``; otherwise they are conditional on nothing else hiding in the gap.
        products: Columns multiplied by the operator, in passes over the full data: a product with half of the samples
            counts one half.
        converged: Every bound is within the tolerance.
        complete: Whether an eigenvalue may be missing; see `Completeness`.
        rounding: Largest deviation from symmetry seen among the products, in the units of the values: how exact the
            operator as evaluated is. Not part of the bounds.
        method: What computed them.
        notes: What else the method has to say (screening: the shares of the samples).
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    bounds: Tensor
    products: float
    converged: bool
    complete: Completeness = Completeness("none", False)
    rounding: float = 0.0
    method: str = "lanczos"
    notes: dict[str, float] = field(default_factory=dict)
    space: ParameterSpace | None = None

    def __repr__(self) -> str:
        done = "converged" if self.converged else "not converged"
        head = (
            f"{len(self.values)} eigenvalues by {self.method} in {self.products:.4g} products, {done}; {self.complete}"
        )
        columns = zip(self.values.tolist(), self.bounds.tolist(), self.residuals.tolist(), strict=True)
        lines = [
            f"{i:5d} {value:14.6g} {bound:10.1e} {residual:10.1e}" for i, (value, bound, residual) in enumerate(columns)
        ]
        return "\n".join([head, f"{'index':>5} {'value':>14} {'bound':>10} {'residual':>10}", *lines])

    def vector(self, index: int) -> dict[str, Tensor]:
        """Return eigenvector ``index`` as one tensor a parameter, by name.

        Raises:
            InputError: The operator has no named parameters.
        """
        if self.space is None:
            raise InputError("This operator has no named parameters; use vectors[:, index].")
        return dict(zip(self.space.names, self.space.split(self.vectors[:, index]), strict=True))
