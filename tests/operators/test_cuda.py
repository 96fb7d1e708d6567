"""The same products on a GPU: data are moved, results follow the vector, recurrence and attention work."""

import pytest
import torch
from torch import nn

from hbanalysis.operators import GaussNewton, WeightHessian
from tests.oracles import Recurrent, Residual, Transformer, close, seeded

pytestmark = pytest.mark.needs_cuda

CASES = {
    "residual": (Residual, lambda: torch.rand(9, 1, 5, 5), torch.arange(9) % 3),
    "lstm": (Recurrent, lambda: torch.randint(0, 7, (9, 4)), torch.arange(9) % 3),
    "transformer": (Transformer, lambda: torch.randint(0, 6, (9, 5)), torch.arange(45).reshape(9, 5) % 6),
}


@pytest.mark.parametrize("kind", [WeightHessian, GaussNewton])
@pytest.mark.parametrize("name", CASES)
def test_products_are_those_of_the_cpu(kind, name):
    make, inputs, y = CASES[name]
    model, x = seeded(make), seeded(inputs)
    v = seeded(lambda: torch.randn(sum(p.numel() for p in model.parameters()), 2, dtype=torch.float64))
    wide = x.double() if x.is_floating_point() else x
    truth = kind(model.double(), wide, y) @ v
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        H = kind(model.to("cuda", dtype), x, y, chunk_size=4)
        product = H @ v
        assert (product.device, product.dtype, H.device.type) == (v.device, v.dtype, "cuda")
        assert close(product, truth, tolerance)
        assert close(H @ v, product, 1e-6)


def test_a_bad_label_does_not_reach_the_device():
    """On a GPU an index out of range would end the process's use of the device."""
    H = WeightHessian(nn.Linear(4, 3).cuda(), torch.rand(20, 4), torch.full((20,), 3))
    with pytest.raises(ValueError, match="label 3 is out of range"):
        H @ torch.ones(15)
    assert torch.ones(1, device="cuda").item() == 1.0
