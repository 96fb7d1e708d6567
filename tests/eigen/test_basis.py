"""An orthonormal basis in blocks of rows, against the same columns in NumPy."""

import numpy as np
import pytest
import torch

from hbanalysis.eigen import basis as module
from hbanalysis.eigen.basis import Basis, norm

N, SIZE = 23, 6
CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float64, torch.float32])
def basis(request, monkeypatch):
    """Six columns, walked through in blocks of five rows."""
    monkeypatch.setitem(module.ROWS, "cpu", 5)
    found, generator = Basis(N, 9, request.param, CPU), torch.Generator().manual_seed(0)
    for _ in range(SIZE):
        found.append(found.random(generator))
    return found


def columns(basis) -> np.ndarray:
    return basis.leading(basis.size).double().numpy()


def close(found, expected, basis) -> bool:
    return np.allclose(found, expected, rtol=0, atol=1e-6 if basis.column(0).dtype == torch.float32 else 1e-13)


def vector(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_its_columns_are_orthonormal_and_in_the_dtype_asked_for(basis):
    V = columns(basis)
    assert V.shape == (N, SIZE) and close(V.T @ V, np.eye(SIZE), basis)
    assert close(basis.column(2).double().numpy(), V[:, 2], basis)


def test_projections_and_combinations_are_products_with_the_columns(basis):
    V, W, Y = columns(basis), vector(1, N, 4), vector(2, 3, 2).numpy()
    found = basis.project(W, 5)
    assert found.shape == (5, 4) and close(found, V[:, :5].T @ W.numpy(), basis)
    assert close(basis.combine(Y).double().numpy(), V[:, :3] @ Y, basis)
    assert close(basis.combine(Y, first=2).double().numpy(), V[:, 2:5] @ Y, basis)


@pytest.mark.parametrize("size", [None, 3])
def test_a_vector_is_its_coefficients_and_what_is_left(basis, size):
    w = vector(3, N)
    V = columns(basis)[:, :size]
    coefficients, left = basis.orthogonalise(w, size)
    rest = w.numpy() - V @ (V.T @ w.numpy())
    assert coefficients.shape == (V.shape[1],) and close(coefficients, V.T @ w.numpy(), basis)
    assert left == pytest.approx(np.linalg.norm(rest), rel=1e-6)
    if size is None:
        basis.extend(left, torch.Generator())
        assert basis.size == SIZE + 1 and close(columns(basis)[:, -1], rest / left, basis)


def test_a_direction_that_is_lost_is_drawn_anew(basis):
    before = columns(basis)
    basis.extend(0.0, torch.Generator().manual_seed(7))
    V = columns(basis)
    assert V.shape[1] == SIZE + 1 and close(V.T @ V, np.eye(SIZE + 1), basis) and close(V[:, :SIZE], before, basis)


def test_appending_returns_what_lay_outside(basis):
    V, tiny = columns(basis), 1e-200
    outside = vector(4, N).numpy()
    outside -= V @ (V.T @ outside)
    found = basis.append(torch.from_numpy(tiny * (outside + 3 * V[:, 1])))
    assert found == pytest.approx(tiny * np.linalg.norm(outside), rel=1e-5)
    assert close(columns(basis)[:, -1], outside / np.linalg.norm(outside), basis)


def test_columns_are_moved_and_replaced(basis):
    V, Q = columns(basis), np.linalg.qr(vector(5, N, 2).numpy())[0]
    basis.move(3, 2, 1)
    assert basis.size == 3 and close(columns(basis), V[:, [0, 3, 4]], basis)
    basis.replace(1, torch.from_numpy(Q))
    assert basis.size == 3 and close(columns(basis), np.column_stack([V[:, 0], Q]), basis)
    basis.start(2 * torch.from_numpy(Q[:, 0]))
    assert basis.size == 1 and close(columns(basis)[:, 0], Q[:, 0], basis)


def test_norms_are_accumulated_in_float64():
    many = torch.full((3_000_000,), 0.1)
    assert norm(many) == pytest.approx(float(np.float32(0.1)) * np.sqrt(3e6), rel=1e-12)
