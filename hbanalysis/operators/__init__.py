"""Linear operators that are never formed: curvature of the mean loss in the weights, matrices, and combinations.

An operator has ``shape``, ``dtype``, ``device``, ``products`` (columns multiplied so far), ``@`` and ``to_scipy()``.
"""

from hbanalysis.operators.chunking import DEFAULT_CHUNK
from hbanalysis.operators.guards import evaluation_mode
from hbanalysis.operators.hessian import GaussNewton, WeightHessian
from hbanalysis.operators.matrices import (
    Combination,
    DenseOperator,
    Operator,
    Scaled,
    SciPyOperator,
    SymmetricOperator,
    as_operator,
)

__all__ = [
    "DEFAULT_CHUNK",
    "Combination",
    "DenseOperator",
    "GaussNewton",
    "Operator",
    "Scaled",
    "SciPyOperator",
    "SymmetricOperator",
    "WeightHessian",
    "as_operator",
    "evaluation_mode",
]
