"""Hessian-based analysis of large-batch training and of robustness to adversaries.

The names below are the public face; they load PyTorch when first used, so that ``import hbanalysis`` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hbanalysis import attacks, distributed
    from hbanalysis.batch_statistics import train_mode_hessian
    from hbanalysis.eigen import (
        Eigenpairs,
        SpectralDensity,
        TraceEstimate,
        eigsh,
        power_iteration,
        spectral_density,
        trace,
    )
    from hbanalysis.errors import ConvergenceWarning, GeneralPathWarning, InputError, NumericalError, RankWarning
    from hbanalysis.inputs import (
        InputHessian,
        InputSpectrum,
        LogitJacobians,
        PiecewiseReport,
        boundary_distance,
        input_spectrum,
        is_piecewise_linear,
        logit_jacobians,
        newton_direction,
    )
    from hbanalysis.operators import GaussNewton, Scaled, SciPyOperator, WeightHessian, as_operator

__version__ = "0.1.0"
__all__ = [
    "ConvergenceWarning",
    "Eigenpairs",
    "GaussNewton",
    "GeneralPathWarning",
    "InputError",
    "InputHessian",
    "InputSpectrum",
    "LogitJacobians",
    "NumericalError",
    "PiecewiseReport",
    "RankWarning",
    "Scaled",
    "SciPyOperator",
    "SpectralDensity",
    "TraceEstimate",
    "WeightHessian",
    "as_operator",
    "attacks",
    "boundary_distance",
    "distributed",
    "eigsh",
    "input_spectrum",
    "is_piecewise_linear",
    "logit_jacobians",
    "newton_direction",
    "power_iteration",
    "spectral_density",
    "trace",
    "train_mode_hessian",
]

_HOMES = {
    "ConvergenceWarning": "errors",
    "Eigenpairs": "eigen",
    "GaussNewton": "operators",
    "GeneralPathWarning": "errors",
    "InputError": "errors",
    "InputHessian": "inputs",
    "InputSpectrum": "inputs",
    "LogitJacobians": "inputs",
    "NumericalError": "errors",
    "PiecewiseReport": "inputs",
    "RankWarning": "errors",
    "Scaled": "operators",
    "SciPyOperator": "operators",
    "SpectralDensity": "eigen",
    "TraceEstimate": "eigen",
    "WeightHessian": "operators",
    "as_operator": "operators",
    "boundary_distance": "inputs",
    "eigsh": "eigen",
    "input_spectrum": "inputs",
    "is_piecewise_linear": "inputs",
    "logit_jacobians": "inputs",
    "newton_direction": "inputs",
    "power_iteration": "eigen",
    "spectral_density": "eigen",
    "trace": "eigen",
    "train_mode_hessian": "batch_statistics",
}


_MODULES = ("attacks", "distributed")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"hbanalysis.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'hbanalysis' has no attribute {name!r}")
    return getattr(import_module(f"hbanalysis.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
