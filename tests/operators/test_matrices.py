"""Matrices, SciPy operators and combinations behind the operator protocol."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import LinearOperator

from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import Scaled, SymmetricOperator, WeightHessian, as_operator

A = torch.tensor([[2.0, -1.0, 0.0], [-1.0, 3.0, 0.5], [0.0, 0.5, -1.0]], dtype=torch.float64)
V = torch.tensor([[1.0, 2.0], [0.5, -1.0], [3.0, 0.0]], dtype=torch.float64)

FORMS = {
    "tensor": A,
    "numpy": A.numpy(),
    "csr": scipy.sparse.csr_array(A.numpy()),
    "coo": scipy.sparse.coo_matrix(A.numpy()),
    "linear": LinearOperator((3, 3), matvec=lambda v: A.numpy() @ v, dtype=float),
    "untyped": LinearOperator((3, 3), matvec=lambda v: A.numpy() @ v),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_multiplies_and_counts(form):
    operator = as_operator(FORMS[form])
    assert isinstance(operator, SymmetricOperator)
    assert torch.allclose(operator @ V, A @ V) and torch.allclose(operator @ V[:, 0], A @ V[:, 0])
    assert operator.products == 3
    assert (operator.shape, operator.dtype, operator.device.type) == ((3, 3), torch.float64, "cpu")
    assert (operator @ V.float()).dtype == torch.float32
    assert as_operator(operator) is operator
    assert np.allclose(operator.to_scipy() @ V.numpy(), (A @ V).numpy())


def test_products_of_scipy_operators_are_counted_one_by_one():
    calls = []

    def multiply(v):
        calls.append(v.shape)
        return A.numpy() @ v

    operator = as_operator(LinearOperator((3, 3), matvec=multiply, dtype=np.float32))
    assert operator.dtype == torch.float32
    operator @ V[:, 0]
    assert len(calls) == 1 and operator.products == 1


def test_a_block_of_numpy_vectors_is_one_product():
    asked = []

    class Noting(Scaled):
        def _multiply(self, columns):
            asked.append(tuple(columns.shape))
            return super()._multiply(columns)

    operator = Noting(A, torch.ones(3))
    found = operator.to_scipy() @ V.numpy()
    assert asked == [(3, 2)] and np.allclose(found, (A @ V).numpy())
    assert np.allclose(operator.to_scipy().rmatvec(V[:, 0].numpy()), (A @ V[:, 0]).numpy())


def test_symmetric_to_rounding_is_enough():
    single = A.float() * (1 + 1e-6 * torch.rand(3, 3))
    assert torch.equal(as_operator(single) @ V[:, 0].float(), single @ V[:, 0].float())
    sparse = scipy.sparse.csr_array(A.numpy() * (1 + 1e-15 * np.arange(9).reshape(3, 3)))
    assert as_operator(sparse).shape == (3, 3)


def test_scaled_is_between_square_roots():
    d = torch.tensor([4.0, 0.0, 2.0])
    root = d.double().sqrt().diag()
    scaled = Scaled(A, d)
    assert torch.allclose(scaled.dense(), root @ A @ root)
    assert (scaled.products, scaled.inner.products) == (3, 3)


def test_scaled_hessians_keep_the_names_of_parameters():
    model = torch.nn.Linear(2, 2)
    H = WeightHessian(model, torch.rand(3, 2), torch.tensor([0, 1, 0]))
    assert Scaled(H, torch.ones(6)).space is H.space
    assert eigsh(Scaled(H, torch.ones(6)), 1).vector(0).keys() == dict(model.named_parameters()).keys()


def test_sums_and_differences():
    a, b = as_operator(A), as_operator(2 * A @ A)
    assert torch.allclose((a - b).dense(), A - 2 * A @ A)
    assert torch.allclose((a + np.eye(3)) @ V, A @ V + V)
    with pytest.raises(InputError, match="one shape"):
        a - torch.eye(2)


def test_bad_matrices_are_named():
    cases = [
        (lambda: as_operator(A[:2]), r"square matrix is needed; given shape \(2, 3\)"),
        (lambda: as_operator(A + torch.eye(3).roll(1, 0)), "not symmetric: it differs from its transpose by 1"),
        (lambda: as_operator(scipy.sparse.csr_array(np.triu(A))), r"not symmetric.*\(A \+ A.T\) / 2"),
        (lambda: as_operator(torch.eye(3, dtype=torch.int64)), "given torch.int64"),
        (lambda: as_operator(torch.eye(3).half()), "given torch.float16"),
        (lambda: as_operator(torch.eye(3).to_sparse()), "to_dense"),
        (lambda: as_operator(LinearOperator((3, 3), matvec=lambda v: v, dtype=complex)), "given dtype complex128"),
        (lambda: as_operator("H"), "given str"),
        (lambda: as_operator(A) @ torch.ones(4), r"vector \(3,\) or matrix \(3, b\)"),
        (lambda: as_operator(A) @ torch.ones(3).half(), "given torch.float16"),
        (lambda: Scaled(A, torch.ones(2)), r"3 entries, shape \(3,\); given \(2,\)"),
        (lambda: Scaled(A, torch.tensor([1.0, -1.0, 1.0])), r"not negative; given \[-1.0\]"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()
    with pytest.raises(NumericalError, match="not finite"):
        as_operator(A) @ torch.tensor([1.0, torch.inf, 0.0])
