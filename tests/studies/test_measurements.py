"""FGSM, evaluation and the landscape: closed forms, and models left as they were."""

import pytest
import torch
from torch import nn

from hbanalysis.attacks import fgsm
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import WeightHessian
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.training.evaluation import accuracy_under_fgsm, evaluate
from hbanalysis.training.landscape import along_direction


@pytest.fixture
def problem():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        return model, torch.rand(530, 1, 4, 4), torch.randint(0, 3, (530,))


def test_fgsm_is_the_sign_of_the_gradient(problem):
    model, x, y = problem
    model.eval()
    inputs = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(nn.functional.cross_entropy(model(inputs), y, reduction="sum"), inputs)
    model.train()
    assert torch.equal(fgsm(model, x, y, 0.1, clip=None), x + 0.1 * g.sign())
    assert torch.equal(fgsm(model, x, y, 0.1), (x + 0.1 * g.sign()).clamp(0, 1))
    assert torch.equal(fgsm(model, x, y, 0.0), x)
    assert model.training


def test_a_sample_does_not_depend_on_its_batch(problem):
    model, x, y = problem
    alone = torch.cat([fgsm(model, x[i : i + 1], y[i : i + 1], 0.05) for i in range(20)])
    assert torch.allclose(fgsm(model, x, y, 0.05)[:20], alone, atol=1e-7)


def test_evaluate_counts_every_sample_once(problem):
    model, x, y = problem
    loss, accuracy = evaluate(model, x, y)
    model.eval()
    z = model(x)
    assert loss == pytest.approx(nn.functional.cross_entropy(z, y).item(), rel=1e-5)
    assert accuracy == pytest.approx((z.argmax(1) == y).float().mean().item())
    attacked = model(fgsm(model, x, y, 0.2)).argmax(1) == y
    assert accuracy_under_fgsm(model, x, y, 0.2) == pytest.approx(attacked.float().mean().item())


def test_accuracy_falls_under_fgsm(problem):
    _, x, _ = problem
    linear = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    labels = linear(x - 0.5).argmax(1)
    assert accuracy_under_fgsm(linear, x, labels, 0.5) < evaluate(linear, x, labels)[1]


def test_landscape_has_the_curvature_of_the_eigenvector(problem):
    model, x, y = problem
    model, x = model.double(), x.double()
    H = WeightHessian(model, x, y)
    pairs = eigsh(H, 1, tol=1e-6)
    v, t = pairs.vectors[:, 0], 1e-4
    before = ParameterSpace(model).vector()
    (low, centre, high), (other,) = (
        along_direction(model, v, [-t, 0.0, t], (x, y))[0],
        along_direction(model, v, [0.0], (x[:100], y[:100]))[0],
    )
    assert torch.equal(ParameterSpace(model).vector(), before)
    assert centre == pytest.approx(H.loss(), rel=1e-10)
    assert (high - 2 * centre + low) / t**2 == pytest.approx(pairs.values[0].item(), rel=1e-2)
    assert (high - low) / (2 * t) == pytest.approx((H.gradient() @ v).item(), abs=1e-5)
    assert other == pytest.approx(evaluate(model, x[:100], y[:100])[0])


def test_landscape_restores_the_weights_after_an_error(problem):
    model, x, y = problem
    before = ParameterSpace(model).vector()

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        along_direction(model, torch.ones_like(before), [1.0], (x, y), show=stop)
    assert torch.equal(ParameterSpace(model).vector(), before)


def test_bad_input_is_named(problem):
    model, x, y = problem
    with pytest.raises(InputError, match=r"at least 0 and finite.* given -0\.1"):
        fgsm(model, x, y, -0.1)
    with pytest.raises(InputError, match="as many labels; given 3"):
        fgsm(model, x, y[:3], 0.1)
    with torch.no_grad():
        model[1].weight[0, 0] = float("nan")
    with pytest.raises(NumericalError, match="not finite"):
        fgsm(model, x, y, 0.1)
