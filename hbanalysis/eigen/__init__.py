"""Eigenvalues of symmetric operators that only multiply: extreme pairs with bounds, spectral density, traces."""

from hbanalysis.eigen.pairs import Eigenpairs
from hbanalysis.eigen.power import power_iteration
from hbanalysis.eigen.solver import eigsh
from hbanalysis.eigen.spectrum import SpectralDensity, spectral_density
from hbanalysis.eigen.traces import TraceEstimate, trace

__all__ = [
    "Eigenpairs",
    "SpectralDensity",
    "TraceEstimate",
    "eigsh",
    "power_iteration",
    "spectral_density",
    "trace",
]
