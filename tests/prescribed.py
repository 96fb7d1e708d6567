"""Matrices whose spectrum is prescribed, and one that counts its products."""

import numpy as np
import torch


class Counting:
    """A matrix behind the operator protocol, which counts the columns multiplied and the widest block."""

    def __init__(self, A):
        self.A, self.shape, self.dtype, self.device = A, (len(A), len(A)), A.dtype, A.device
        self.products = self.widest = 0

    def __matmul__(self, other):
        columns = other.shape[1] if other.ndim == 2 else 1
        self.products += columns
        self.widest = max(self.widest, columns)
        return self.A @ other


def matrix(spectrum, seed=0, dtype=torch.float64):
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.normal(size=(len(spectrum), len(spectrum))))
    A = (Q * np.asarray(spectrum)) @ Q.T
    return torch.from_numpy((A + A.T) / 2).to(dtype)
