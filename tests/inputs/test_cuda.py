"""Input curvature on a GPU: data are moved piece by piece, results follow the inputs."""

import pytest
import torch

import hbanalysis as hb
from tests.input_nets import problem
from tests.oracles import close, seeded

pytestmark = pytest.mark.needs_cuda


@pytest.mark.parametrize("name", ["conv", "shortcut", "softplus"])
def test_everything_is_that_of_the_cpu(name):
    model, x, y = problem(name)
    v = seeded(lambda: torch.randn_like(x))
    exact = name != "softplus"
    truth = hb.InputHessian(model, x, y) @ v
    values = hb.input_spectrum(model, x, y) if exact else hb.input_spectrum(model, x, y, method="lanczos")
    direction = hb.newton_direction(model, x, y, damping=0.01) if exact else None
    distance = hb.boundary_distance(model, x, y)
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        there = model.to("cuda", dtype)
        for inputs in (x, x.cuda()):
            assert hb.is_piecewise_linear(there, inputs).qualifies is exact
            product = hb.InputHessian(there, inputs, y, chunk_size=3) @ v
            assert product.device == v.device and close(product, truth, tolerance)
            found = hb.input_spectrum(there, inputs, y, method="auto" if exact else "lanczos", chunk_size=3)
            assert found.device == inputs.device and close(found.cpu(), values, tolerance)
            away = hb.boundary_distance(there, inputs, y.cuda())
            assert away.device == inputs.device and close(away.cpu(), distance, tolerance)
            if direction is not None:
                step = hb.newton_direction(there, inputs, y, damping=0.01)
                assert step.device == inputs.device and close(step.cpu(), direction, tolerance)


def test_a_bad_label_does_not_reach_the_device():
    model, x, y = problem()
    with pytest.raises(ValueError, match="label 4 of sample 3"):
        hb.input_spectrum(model.cuda(), x, y + 1)
    assert torch.ones(1, device="cuda").item() == 1.0
