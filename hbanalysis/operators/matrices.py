"""Symmetric linear operators: the protocol, the base class, and matrices, SciPy operators and combinations as such."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from scipy.sparse import issparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor, nn

from hbanalysis.errors import InputError, NumericalError, require

_HALF = (torch.float16, torch.bfloat16)
_SYMMETRIC = 100  # roundings by which a matrix may differ from its transpose, relative to its largest entry


@runtime_checkable
class SymmetricOperator(Protocol):
    """What the eigensolvers need of an operator."""

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    def __matmul__(self, other: Tensor) -> Tensor:
        """Return the product with one vector ``(n,)`` or the columns of ``(n, b)``."""
        ...


class Operator:
    """A symmetric operator that checks vectors, counts products and converts; subclasses multiply.

    Attributes:
        shape: ``(n, n)``.
        dtype: What it computes in.
        device: Where it computes.
        products: Columns multiplied so far.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.shape, self.dtype, self.device = (size, size), dtype, device
        self.products = 0

    def _multiply(self, columns: Tensor) -> Tensor:
        """Return the product with ``(n, b)`` columns in this operator's dtype and device."""
        raise NotImplementedError

    def __matmul__(self, other: Tensor) -> Tensor:
        """Return the product with a vector ``(n,)`` or columns ``(n, b)``, in the dtype and device of ``other``.

        Raises:
            InputError: The length does not match, or ``other`` is no tensor of 32- or 64-bit floating point.
            NumericalError: The product is not finite.
        """
        n = self.shape[1]
        if not isinstance(other, Tensor) or other.ndim not in (1, 2) or other.shape[0] != n or not _precise(other):
            given = f"{other.dtype} {tuple(other.shape)}" if isinstance(other, Tensor) else type(other).__name__
            raise InputError(
                f"A floating-point vector ({n},) or matrix ({n}, b) of 32 or 64 bits is needed; given {given}."
            )
        if other.numel() == 0:
            return other.clone()
        columns = other.detach().reshape(n, -1).to(self.device, self.dtype)
        result = self._multiply(columns)
        self.products += columns.shape[1]
        if not bool(torch.isfinite(result).all()):
            raise NumericalError("A product is not finite; check the vector, and the weights or entries.")
        return result.reshape(other.shape).to(other)

    def __sub__(self, other: Any) -> "Combination":
        """Return the difference as an operator: ``H - G`` is what Gauss-Newton leaves out of a Hessian."""
        return Combination((self, as_operator(other)), (1.0, -1.0))

    def __add__(self, other: Any) -> "Combination":
        """Return the sum as an operator."""
        return Combination((self, as_operator(other)), (1.0, 1.0))

    def __mul__(self, factor: Any) -> "Combination":
        """Return the multiple by a number as an operator.

        Raises:
            InputError: The factor is no finite number; a vector is multiplied by ``@``.
        """
        if isinstance(factor, bool) or not isinstance(factor, int | float | np.number) or not np.isfinite(factor):
            given = factor if isinstance(factor, int | float) else type(factor).__name__
            raise InputError(f"An operator is multiplied by a finite number; given {given}. For vectors use @.")
        return Combination((self,), (float(factor),))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> "Combination":
        """Return the quotient by a number as an operator; see `__mul__`."""
        if isinstance(divisor, int | float | np.number) and divisor == 0:
            raise InputError("An operator cannot be divided by 0.")
        return self * (1 / divisor if isinstance(divisor, int | float | np.number) else divisor)

    def __neg__(self) -> "Combination":
        """Return the operator with the opposite sign."""
        return self * -1.0

    def __repr__(self) -> str:
        kind = str(self.dtype).removeprefix("torch.")
        return f"<{type(self).__name__} {self.shape[0]} x {self.shape[1]}, {kind} on {self.device}>"

    def dense(self) -> Tensor:
        """Return the matrix itself, made symmetric. Cost: n products; for small networks and tests."""
        matrix = self @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)
        return (matrix + matrix.T) / 2

    def to_scipy(self) -> LinearOperator:
        """Return a SciPy ``LinearOperator`` over float64 NumPy vectors."""

        def multiply(array: np.ndarray) -> np.ndarray:
            columns = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(self.device)
            return (self @ columns).cpu().numpy()

        return LinearOperator(self.shape, matvec=multiply, matmat=multiply, rmatvec=multiply, dtype=float)


class DenseOperator(Operator):
    """A symmetric matrix.

    Raises:
        InputError: Not square, not floating point, or not symmetric to rounding.
    """

    def __init__(self, matrix: Tensor) -> None:
        require(
            matrix.layout == torch.strided,
            "A sparse tensor is not taken; give matrix.to_dense(), or a SciPy sparse matrix.",
        )
        _check_square(matrix.shape)
        require(_precise(matrix), f"A matrix of 32- or 64-bit floating point is needed; given {matrix.dtype}.")
        difference, largest = (matrix - matrix.T).abs().max(), matrix.abs().max()
        _check_symmetric(float(difference), float(largest), torch.finfo(matrix.dtype).eps)
        super().__init__(matrix.shape[0], matrix.dtype, matrix.device)
        self.matrix = matrix.detach()

    def _multiply(self, columns: Tensor) -> Tensor:
        return self.matrix @ columns


class SciPyOperator(Operator):
    """A SciPy ``LinearOperator`` or sparse matrix.

    It computes on the CPU, in float32 if its dtype is that and in float64 otherwise. That a ``LinearOperator`` is
    symmetric cannot be seen and is taken for granted.

    Raises:
        InputError: Not square, complex, or a sparse matrix that is not symmetric to rounding.

    Example:
        >>> from scipy.sparse import diags_array
        >>> SciPyOperator(diags_array([1.0, 2.0])) @ torch.ones(2)
        tensor([1., 2.])
    """

    def __init__(self, operator: Any) -> None:
        _check_square(operator.shape)
        kind = np.dtype(float if operator.dtype is None else operator.dtype)
        require(kind.kind in "fiub", f"A real operator is needed; given dtype {kind}.")
        if issparse(operator):
            difference, largest = abs(operator - operator.T).tocsr().max(), abs(operator).tocsr().max()
            eps = float(np.finfo(kind).eps) if kind.kind == "f" else 0.0
            _check_symmetric(float(difference), float(largest), eps)
        dtype = torch.float32 if kind == np.float32 else torch.float64
        super().__init__(operator.shape[0], dtype, torch.device("cpu"))
        self._operator = aslinearoperator(operator)

    def _multiply(self, columns: Tensor) -> Tensor:
        array = columns.numpy()
        single = array.shape[1] == 1
        result = self._operator.matvec(array[:, 0]) if single else self._operator.matmat(array)
        exact = np.asarray(result)
        return torch.from_numpy(exact if exact.dtype in (np.float32, np.float64) else exact.astype(float)).reshape(
            columns.shape
        )


class Scaled(Operator):
    r"""An operator between square roots of a diagonal: the curvature that a preconditioned method meets.

    .. math:: D^{1/2} H D^{1/2}

    For Adam, D is the inverse of the square root of its second moments; the eigenvalues are those of D H.

    Args:
        operator: H; anything that `as_operator` takes.
        diagonal: The diagonal of D, ``(n,)``, finite and not negative.

    Raises:
        InputError: The diagonal has the wrong length or a negative entry.

    Example:
        >>> Scaled(torch.eye(2), torch.tensor([4.0, 9.0])) @ torch.ones(2)
        tensor([4., 9.])
    """

    def __init__(self, operator: Any, diagonal: Tensor) -> None:
        self.inner = as_operator(operator)
        n = self.inner.shape[0]
        require(diagonal.shape == (n,), f"The diagonal needs {n} entries, shape ({n},); given {tuple(diagonal.shape)}.")
        wrong = diagonal[~(diagonal >= 0) | diagonal.isinf()]
        require(wrong.numel() == 0, f"The diagonal must be finite and not negative; given {wrong[:1].tolist()}.")
        super().__init__(n, self.inner.dtype, self.inner.device)
        self._root = diagonal.detach().double().sqrt().to(self.device)[:, None]
        self.space = getattr(self.inner, "space", None)
        self.shared = bool(getattr(self.inner, "shared", False))

    def _multiply(self, columns: Tensor) -> Tensor:
        return self._root * (self.inner @ (self._root * columns)).double()


class Combination(Operator):
    """A sum of operators with factors; every product multiplies each of them.

    Example:
        >>> (2 * DenseOperator(torch.eye(2)) - DenseOperator(torch.eye(2)) / 4) @ torch.ones(2)
        tensor([1.7500, 1.7500])
    """

    def __init__(self, operators: Sequence[SymmetricOperator], factors: Sequence[float]) -> None:
        shapes = [tuple(operator.shape) for operator in operators]
        require(len(set(shapes)) == 1, f"Operators of one shape are needed; given {shapes}.")
        first = operators[0]
        super().__init__(first.shape[0], first.dtype, first.device)
        self._terms = tuple(zip(operators, factors, strict=True))
        self.space = getattr(first, "space", None)
        self.shared = any(getattr(operator, "shared", False) for operator in operators)

    def _multiply(self, columns: Tensor) -> Tensor:
        wide = columns.double()
        return torch.stack([factor * (operator @ wide) for operator, factor in self._terms]).sum(0)


def as_operator(matrix: Any) -> SymmetricOperator:
    """Return anything that multiplies vectors as an operator that the eigensolvers take.

    Args:
        matrix: An operator (returned as it is), a dense tensor or NumPy array, or a SciPy sparse matrix or
            ``LinearOperator``.

    Raises:
        InputError: Not square, not symmetric to rounding, or none of these.

    Example:
        >>> as_operator(np.diag([1.0, 2.0])) @ torch.ones(2)
        tensor([1., 2.])
    """
    if isinstance(matrix, Tensor):
        return DenseOperator(matrix)
    if isinstance(matrix, np.ndarray):
        return DenseOperator(torch.from_numpy(np.ascontiguousarray(matrix)))
    if isinstance(matrix, LinearOperator) or issparse(matrix):
        return SciPyOperator(matrix)
    if isinstance(matrix, SymmetricOperator):
        return matrix
    hint = " Of a model it is WeightHessian(model, inputs, targets)." if isinstance(matrix, nn.Module) else ""
    raise InputError(
        "An operator is needed: one of this package, a dense tensor or array, or a SciPy sparse matrix or "
        f"LinearOperator; given {type(matrix).__name__}.{hint}"
    )


def _precise(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype not in _HALF


def _check_square(shape: Sequence[int]) -> None:
    square = len(shape) == 2 and shape[0] == shape[1] and shape[0] > 0
    require(square, f"A square matrix is needed; given shape {tuple(shape)}.")


def _check_symmetric(difference: float, largest: float, eps: float) -> None:
    require(
        not difference > _SYMMETRIC * eps * largest,
        f"The matrix is not symmetric: it differs from its transpose by {difference:.3g}, and its largest entry is "
        f"{largest:.3g}. Use (A + A.T) / 2 if that is meant.",
    )
