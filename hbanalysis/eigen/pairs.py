"""Eigenpairs with what is known about them: errors, rounding, and whether any is missing."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hbanalysis import checkpoints
from hbanalysis.errors import InputError, StoreError

Layout = tuple[tuple[str, tuple[int, ...]], ...]
_TENSORS = ("values", "vectors", "residuals", "bounds")
_NOTES = ("products", "converged", "complete", "rounding", "method", "notes", "layout")


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
        return (
            f"not confirmed by a probe of {self.products:g} products{found}: others come too close to the wanted "
            "eigenvalues to tell whether one is missing"
        )


@dataclass(frozen=True, repr=False)
class Eigenpairs:
    """Eigenpairs as far as they were found, with what is known about their errors; prints as a table of them.

    ``values, vectors = pairs`` unpacks as SciPy's pairs do.

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
        layout: Name and shape of each parameter that a vector is made of, in their order; empty for a matrix.
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
    layout: Layout = ()

    def __iter__(self) -> Iterator[Tensor]:
        yield from (self.values, self.vectors)

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
        if not self.layout:
            raise InputError("This operator has no named parameters; use vectors[:, index].")
        parts = self.vectors[:, index].split([math.prod(shape) for _, shape in self.layout])
        return {name: part.view(shape) for (name, shape), part in zip(self.layout, parts, strict=True)}

    def save(self, path: str | Path) -> None:
        """Write everything into one safetensors file, in one piece; no weights of the model are in it.

        Raises:
            StoreError: The folder cannot be written.
        """
        notes = {name: value for name, value in asdict(self).items() if name in _NOTES}
        checkpoints.save(Path(path), {name: getattr(self, name) for name in _TENSORS}, notes, sealed=True)

    @classmethod
    def load(cls, path: str | Path) -> "Eigenpairs":
        """Read what `save` wrote; the vectors are on the CPU.

        Raises:
            StoreError: The file is missing, damaged or of another kind.

        Example:
            >>> import tempfile, torch
            >>> from hbanalysis.eigen import eigsh
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     eigsh(torch.diag(torch.tensor([1.0, 2.0])), 1).save(f"{folder}/pairs.safetensors")
            ...     values, vectors = Eigenpairs.load(f"{folder}/pairs.safetensors")
            >>> values, vectors.abs().round()
            (tensor([2.], dtype=torch.float64), tensor([[0.],
                    [1.]]))
        """
        tensors, notes = checkpoints.load(Path(path))
        if set(tensors) != set(_TENSORS) or set(notes) != set(_NOTES):
            raise StoreError(f"{path} holds no eigenpairs: tensors {sorted(tensors)}, notes {sorted(notes)}.")
        rest = notes["complete"]["rest"]
        notes["complete"] = Completeness(**notes["complete"] | {"rest": None if rest is None else tuple(rest)})
        notes["layout"] = tuple((name, tuple(shape)) for name, shape in notes["layout"])
        return cls(**tensors, **notes)  # type: ignore[arg-type]


def layout_of(operator: Any) -> Layout:
    """Return name and shape of the parameters that an operator's vectors are made of; none for a matrix."""
    space = getattr(operator, "space", None)
    if space is None:
        return ()
    return tuple((name, tuple(shape)) for name, shape in zip(space.names, space.shapes, strict=True))
