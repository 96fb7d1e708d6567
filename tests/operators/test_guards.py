"""Models, settings and random states are as before; operations without a second derivative are named."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from hbanalysis.errors import InputError
from hbanalysis.operators import GaussNewton, WeightHessian
from hbanalysis.operators.guards import differentiation, weights_sum
from tests.oracles import Recurrent, Transformer, close, dense_oracle, differences, seeded
from tests.small_nets import Square

X = seeded(lambda: torch.randn(9, 4, dtype=torch.float64))
Y = torch.arange(9) % 3


def net(*layers):
    return seeded(lambda: nn.Sequential(nn.Linear(4, 3), *layers)).double()


class Counting(nn.Module):
    """Writes a buffer in every forward pass and draws random numbers that it does not use."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        torch.rand(3), np.random.rand()
        return x


def test_everything_is_left_as_it_was():
    model = net(nn.BatchNorm1d(3), nn.Dropout(0.5), Counting())
    model[1].eval()  # submodules keep modes of their own
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    settings = [
        lambda: torch.backends.cudnn.enabled,
        torch.is_grad_enabled,
        torch.get_float32_matmul_precision,
        lambda: torch.backends.cudnn.allow_tf32,
        torch.backends.mha.get_fastpath_enabled,
        torch.backends.cuda.flash_sdp_enabled,
        lambda: (torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
    ]
    torch.set_float32_matmul_precision("medium")
    before = [read() for read in settings]
    for operator in (WeightHessian(model, X, Y), GaussNewton(model, X, Y)):
        v = torch.ones(operator.shape[0])
        results = [operator @ v, operator.gradient(), operator.loss(), operator.doubts()]
        assert torch.equal(operator @ v, results[0])
    assert [read() for read in settings] == before
    torch.set_float32_matmul_precision("highest")
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True]
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight)) and model[1].weight.grad is None


def test_everything_is_restored_after_an_error():
    model = net()
    state = random.getstate()
    with pytest.raises(ZeroDivisionError), differentiation(model):
        random.random()
        assert not model.training and torch.backends.cudnn.conv.fp32_precision == "ieee"
        raise ZeroDivisionError
    assert model.training and torch.backends.cudnn.allow_tf32 and random.getstate() == state


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_without_gradients_around_it(context):
    model = net(nn.Tanh())
    truth = dense_oracle(model, X, Y)
    with context():
        H = WeightHessian(model, X.clone(), Y.clone(), chunk_size=4)
        assert close(H.dense(), truth)
        assert close(H.dense(), truth)
        assert close(WeightHessian(model, [(X * 1.0, Y)]).dense(), truth)


def test_attention_and_recurrence_keep_their_fast_kernels_elsewhere():
    tokens, labels = seeded(lambda: torch.randint(0, 6, (4, 5))), torch.arange(4) % 3
    transformer, lstm = seeded(Transformer), seeded(Recurrent)
    H = WeightHessian(transformer, tokens, tokens)
    with differentiation(lstm):
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled and torch.backends.cuda.flash_sdp_enabled()
    losses = [H.loss(), F.cross_entropy(transformer.eval()(tokens).reshape(-1, 6), tokens.reshape(-1)).item()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert WeightHessian(lstm, tokens, labels).dense().isfinite().all()


class Layer(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def bags(x):
    return F.embedding_bag(torch.arange(len(x)).view(-1, 1), x, mode="sum")


@pytest.mark.parametrize("kind", [WeightHessian, GaussNewton])
def test_once_differentiable_functions_are_refused(kind):
    """Autograd takes their second derivative for zero without a word."""
    with pytest.raises(InputError, match="The operation Square cannot be differentiated twice .*remove the mark"):
        kind(net(Layer(Square.apply)), X, Y) @ torch.ones(15)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (bags, "The operation embedding_bag cannot be differentiated twice, .* Replace it"),
        (lambda x: checkpoint(torch.tanh, x, use_reentrant=True), "torch.utils.checkpoint .*use_reentrant=False"),
    ],
)
def test_operations_without_a_second_derivative_are_named(function, message):
    with pytest.raises(InputError, match=message):
        WeightHessian(net(nn.Tanh(), Layer(function)), X, Y) @ torch.ones(15)


def test_checkpointing_without_reentry_works():
    model = net(Layer(lambda x: checkpoint(torch.tanh, x, use_reentrant=False)))
    assert close(WeightHessian(model, X, Y, chunk_size=4).dense(), dense_oracle(net(nn.Tanh()), X, Y))


def test_an_error_in_the_model_says_what_it_was_called_with():
    with pytest.raises(RuntimeError) as caught:
        WeightHessian(net(), X[:, :2], Y, chunk_size=4).loss()
    (note,) = caught.value.__notes__
    assert note.startswith("The model was called with chunk 0 (samples 0 on): torch.float64 (4, 2). It must take 4")


def normalised(kind, dim):
    """A net with a weight-normalised layer, by PyTorch's module of today or by its deprecated hook."""
    layer = nn.Linear(4, 5)
    if kind == "hook":
        with pytest.warns(FutureWarning, match="deprecated"):
            layer = nn.utils.weight_norm(layer, dim=dim)
    else:
        layer = nn.utils.parametrizations.weight_norm(layer, dim=dim)
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.mark.parametrize(
    ("kind", "dim", "engine"), [("module", 0, "traced"), ("module", 1, "graph"), ("hook", 0, "graph")]
)
def test_weight_normalisation_is_differentiated_twice(kind, dim, engine):
    """PyTorch's own second derivative of it takes the norms for constants; differences of the gradient need none."""
    model = seeded(lambda: normalised(kind, dim))
    exact = differences(seeded(lambda: normalised("module", dim)), X, lambda z: F.cross_entropy(z, Y))
    with torch.no_grad():
        outputs, kept = model(X), model[0].weight
    H = WeightHessian(model, X, Y, engine=engine)
    assert close(H.dense(), exact, 1e-8) and H.engine == engine
    assert close(GaussNewton(model, X, Y).dense().T, GaussNewton(model, X, Y).dense())
    assert kind == "module" or model[0].weight is kept
    assert torch.equal(model(X), outputs)
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any("compute_weight" in vars(hook) for hook in model[0]._forward_pre_hooks.values())


class OwnWeightNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.g, self.v = nn.Parameter(torch.ones(3, 1)), nn.Parameter(torch.eye(3, 4))

    def forward(self, x):
        return x @ torch._weight_norm(self.v, self.g, 0).T


def test_an_operation_whose_second_derivative_is_wrong_is_refused():
    model = OwnWeightNorm().double()
    for operator in (WeightHessian(model, X, Y), WeightHessian(model, X, Y, engine="traced")):
        with pytest.raises(InputError, match=r"derivative of the operation WeightNormInterface is wrong.*v \* \(g / v"):
            operator @ torch.ones(15, dtype=torch.float64)
        assert torch.isfinite(operator.gradient()).all()


def test_a_change_that_float32_cannot_add_is_seen():
    """In float32 the sum of 1e8 and 1 is 1e8; the second entry counts twice."""
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data.copy_(torch.tensor([[1e8, 1.0]]))
    before = weights_sum(layer)
    layer.weight.data[0, 1] = 2.0
    assert (before, weights_sum(layer)) == (1e8 + 2, 1e8 + 4)
    assert weights_sum(nn.ReLU()) == 0.0
