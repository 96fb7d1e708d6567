r"""The curvature of the loss in the input: the Hessian of each sample's cross-entropy in its own pixels.

`input_spectrum`, `newton_direction` and `boundary_distance` take whole data sets; `logit_jacobians` yields what they
share, chunk by chunk; `InputHessian` multiplies vectors and takes any network.

Every function runs the model in eval mode, leaves it as it was, and raises `InputError` for

- inputs that are no tensor of floating-point numbers of 32 or 64 bits, or none at all;
- labels that are no integers (in a tensor, list or array), out of range, or not as many as the inputs;
- a model whose logits do not depend on the inputs in a way that PyTorch can differentiate, that mixes the samples of a
  batch, that has one logit, half-precision parameters, or parameters on several devices;

and `NumericalError`, naming the sample, if logits or gradients are not finite.
"""

from hbanalysis.inputs.chunks import logit_jacobians
from hbanalysis.inputs.directions import boundary_distance, newton_direction
from hbanalysis.inputs.jacobians import LogitJacobians
from hbanalysis.inputs.operator import InputHessian
from hbanalysis.inputs.piecewise import PiecewiseReport, is_piecewise_linear
from hbanalysis.inputs.spectrum import InputSpectrum, input_spectrum
from hbanalysis.inputs.theorem import HessianEnds, dense_input_hessians, hessian_ends, product_errors

__all__ = [
    "HessianEnds",
    "InputHessian",
    "InputSpectrum",
    "LogitJacobians",
    "PiecewiseReport",
    "boundary_distance",
    "dense_input_hessians",
    "hessian_ends",
    "input_spectrum",
    "is_piecewise_linear",
    "logit_jacobians",
    "newton_direction",
    "product_errors",
]
