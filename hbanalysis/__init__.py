"""Hessian-based analysis of large-batch training and of robustness to adversaries.

The names below are the public face; they load PyTorch when first used, so that ``import hbanalysis`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbanalysis import attacks
    from hbanalysis.eigen import Eigenpairs, eigsh, power_iteration
    from hbanalysis.errors import ConvergenceWarning, InputError, NumericalError
    from hbanalysis.operators import GaussNewton, Scaled, SciPyOperator, WeightHessian, as_operator
    from hbanalysis.spectrum import SpectralDensity, spectral_density
    from hbanalysis.traces import TraceEstimate, trace

__version__ = "0.1.0"
__all__ = [
    "ConvergenceWarning",
    "Eigenpairs",
    "GaussNewton",
    "InputError",
    "NumericalError",
    "Scaled",
    "SciPyOperator",
    "SpectralDensity",
    "TraceEstimate",
    "WeightHessian",
    "as_operator",
    "attacks",
    "eigsh",
    "power_iteration",
    "spectral_density",
    "trace",
]

_HOMES = {
    "ConvergenceWarning": "errors",
    "Eigenpairs": "eigen",
    "GaussNewton": "operators",
    "InputError": "errors",
    "NumericalError": "errors",
    "Scaled": "operators",
    "SciPyOperator": "operators",
    "SpectralDensity": "spectrum",
    "TraceEstimate": "traces",
    "WeightHessian": "operators",
    "as_operator": "operators",
    "eigsh": "eigen",
    "power_iteration": "eigen",
    "spectral_density": "spectrum",
    "trace": "traces",
}


_SUBPACKAGES = ("attacks",)


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"hbanalysis.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hbanalysis' has no attribute {name!r}")
    return getattr(import_module(f"hbanalysis.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_SUBPACKAGES})
