"""Which eigenvalues are right: a large Krylov space, and a float64 Rayleigh-Ritz step in its leading vectors."""

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import hbanalysis as hb
from benchmarks.peers import K, Task
from hbanalysis import checkpoints
from hbanalysis.eigen.krylov import KrylovSpace

STEPS = 120  # dimension of the Krylov space in which ARPACK's runs are followed
GUARD = 4  # vectors beyond the wanted ones in the float64 Rayleigh-Ritz step


@dataclass(frozen=True)
class Reference:
    """What the answers are compared with.

    Attributes:
        T: The operator in the coordinates of the Krylov space, ``(STEPS, STEPS)``.
        residual: The largest residual of its leading Ritz vectors.
        truth: The `K` eigenvalues of the float64 Hessian that are largest in modulus.
        bounds: Bounds on their errors.
    """

    T: np.ndarray
    residual: float
    truth: np.ndarray
    bounds: np.ndarray


def reference(task: Task, path: Path) -> Reference:
    """Return what the answers are compared with; computed once and kept at ``path``."""
    if not path.is_file():
        T, vectors, residual = krylov(task)
        truth, bounds = truth_of(task, vectors)
        arrays = {"T": T, "residual": np.array([residual]), "truth": truth, "bounds": bounds}
        checkpoints.save(path, {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    found = {name: tensor.numpy() for name, tensor in checkpoints.load(path)[0].items()}
    return Reference(found["T"], float(found["residual"][0]), found["truth"], found["bounds"])


def krylov(task: Task) -> tuple[np.ndarray, Tensor, float]:
    """Return the tridiagonal matrix of `STEPS` Lanczos steps, the leading Ritz vectors, and their largest residual.

    ARPACK never leaves the Krylov space of its start, so its runs can be followed in these coordinates.
    """
    H = hb.WeightHessian(task.model, task.images, task.labels)
    space = KrylovSpace(H, STEPS, 2, 0)
    space.push(torch.from_numpy(task.start(0)).float())
    for _ in range(STEPS):
        space.step()
    ritz = space.ritz()
    chosen = np.argsort(-np.abs(ritz.theta), kind="stable")[: K + GUARD]
    vectors = space.vectors(ritz, chosen)
    return ritz.Y @ np.diag(ritz.theta) @ ritz.Y.T, vectors, float(ritz.residuals[chosen].max())


def truth_of(task: Task, vectors: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the eigenvalues of the float64 Hessian by a Rayleigh-Ritz step, and bounds on their errors."""
    H = hb.WeightHessian(copy.deepcopy(task.model).double(), task.images.double(), task.labels)
    Q = torch.linalg.qr(vectors.double()).Q
    HQ = H @ Q
    M = Q.T @ HQ
    theta, Y = torch.linalg.eigh((M + M.T) / 2)
    residuals = ((HQ - Q @ M) @ Y).norm(dim=0)
    order = np.argsort(-theta.abs().numpy(), kind="stable")
    theta, residuals = theta.numpy()[order], residuals.numpy()[order]
    gap = np.abs(theta[:K, None] - theta[None, :])
    gap[np.arange(K), np.arange(K)] = np.inf
    bounds = np.minimum(residuals[:K], (residuals**2).sum() / np.maximum(gap.min(1), 1e-300))
    return theta[:K], bounds
