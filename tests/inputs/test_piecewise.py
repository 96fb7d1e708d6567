"""Which networks are taken for piecewise linear, functional calls included."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import hbanalysis as hb
from hbanalysis import networks
from hbanalysis.errors import InputError
from tests.input_nets import Functional, dense_hessians, problem
from tests.oracles import Residual, close, seeded


def in_place(h):
    buffer = torch.zeros_like(h)
    buffer[:, 2:] = h[:, 2:]
    return buffer.add_(h).relu_()


QUALIFY = {
    "relu": F.relu,
    "in place": in_place,
    "leaky": lambda h: F.leaky_relu(h, 0.2),
    "prelu": lambda h: F.prelu(h, torch.tensor([0.3], dtype=h.dtype)),
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "threshold": lambda h: F.threshold(h, 0.1, 0.0),
    "abs": torch.abs,
    "mask": lambda h: h * (h > 0),
    "where": lambda h: torch.where(h > 0, h, -0.5 * h),
    "branch": lambda h: h if bool((h[:, :1] > 100).all()) else 2 * h,
    "maxout": lambda h: torch.maximum(h, h.flip(1)),
    "sorted": lambda h: h.sort(dim=1).values,
    "argmax": lambda h: h + F.one_hot(h.argmax(1), 8),
    "max pool": lambda h: F.max_pool1d(h[:, None], 2).repeat(1, 2, 1).flatten(1),
    "average pool": lambda h: F.avg_pool1d(h[:, None], 3, 1, 1)[:, 0],
    "adaptive pools": lambda h: (F.adaptive_max_pool1d(h[:, None], 8) - F.adaptive_avg_pool1d(h[:, None], 8))[:, 0],
    "interpolation": lambda h: F.interpolate(h[:, None], scale_factor=2, mode="linear")[:, 0, ::2],
    "weight norm": lambda h: h @ torch._weight_norm(torch.ones(8, 8, dtype=h.dtype), torch.ones(8, 1, dtype=h.dtype)),
    "einsum": lambda h: torch.einsum("ni,ij->nj", h, torch.ones(8, 8, dtype=h.dtype)),
    "scaled": lambda h: 3.0 * (h - h.mean(1, keepdim=True)) / 7,
}
OBSTACLES = {
    "gelu": (F.gelu, "gelu"),
    "softplus": (F.softplus, "softplus"),
    "elu": (F.elu, "elu"),
    "tanh": (torch.tanh, "tanh"),
    "sigmoid": (torch.sigmoid, "sigmoid"),
    "silu": (F.silu, "silu"),
    "hardswish": (F.hardswish, "hardswish"),
    "square": (lambda h: h * h, "mul of two values"),
    "square of a detached value": (lambda h: h * h.detach(), "mul of two values"),
    "square through a buffer": (lambda h: torch.zeros_like(h).copy_(h).mul_(h), "mul of two values"),
    "quotient": (lambda h: h / (1 + h.abs().sum(1, keepdim=True)), "div by a value that depends"),
    "layer norm": (lambda h: F.layer_norm(h, (8,)), "native_layer_norm"),
    "group norm": (lambda h: F.group_norm(h, 2), "native_group_norm"),
    "instance norm": (lambda h: F.instance_norm(h[:, None])[:, 0], "native_batch_norm with the statistics"),
    "softmax": (lambda h: h.softmax(1), "_softmax"),
    "attention": (lambda h: F.scaled_dot_product_attention(*3 * [h[:, :, None]])[:, :, 0], "bmm of two values"),
    "item": (lambda h: h * h.abs().max().item(), "a number taken out of a tensor"),
    "scattered products": (
        lambda h: h.scatter_reduce(1, torch.zeros(len(h), 2, dtype=torch.long), h[:, 1:3], reduce="prod"),
        "scatter_reduce",
    ),
}


@pytest.mark.parametrize("name", QUALIFY)
def test_piecewise_linear_functions_qualify(name):
    model = seeded(lambda: Functional(QUALIFY[name])).double()
    x, y = seeded(lambda: torch.randn(3, 6, dtype=torch.float64)), torch.arange(3)
    report = hb.is_piecewise_linear(model, x)
    assert report and (report.obstacle, report.curvature) == (None, 0.0)
    truth = torch.linalg.eigvalsh(dense_hessians(model, x, y)).flip(1)[:, :3]
    assert close(hb.input_spectrum(model, x, y), truth, 1e-11)


@pytest.mark.parametrize("name", OBSTACLES)
def test_other_functions_are_named(name):
    function, message = OBSTACLES[name]
    report = hb.is_piecewise_linear(seeded(lambda: Functional(function)), torch.rand(2, 6))
    assert not report and message in report.obstacle and report.curvature is None


def test_the_papers_networks_by_their_activation():
    for name in networks.names():
        model, x = networks.build(name, classes=4), torch.rand(2, 3, 32, 32)
        assert hb.is_piecewise_linear(model, x)
    report = hb.is_piecewise_linear(networks.build("C1", activation_name="softplus(20)"), x)
    assert not report and report.obstacle == "softplus"
    assert report.operations[:3] == ("clone", "convolution", "softplus")
    assert hb.is_piecewise_linear(seeded(Residual), torch.rand(2, 1, 5, 5)).obstacle == "native_group_norm"


def test_what_is_computed_from_weights_alone_does_not_count():
    class Reparametrised(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.scale = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(3, 1))

        def forward(self, x):
            return x @ (self.weight * self.scale.exp() / self.weight.norm()).softmax(1).T

    assert hb.is_piecewise_linear(Reparametrised(), torch.rand(2, 6)).operations == ("clone", "mm")
    assert hb.is_piecewise_linear(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3)), torch.rand(2, 6))


def test_batch_normalisation_and_dropout_count_as_in_eval_mode():
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 3)).train()
    assert hb.is_piecewise_linear(model, torch.rand(1, 6))
    assert model[3].training


def test_the_probe_sees_what_the_operations_hide():
    """A function of its own whose forward pass looks linear and whose derivative is not."""

    class Sly(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clone()

        @staticmethod
        def backward(ctx, slope):
            return slope * ctx.saved_tensors[0] ** 2

    report = hb.is_piecewise_linear(seeded(lambda: Functional(Sly.apply)), torch.rand(2, 6))
    assert not report and report.curvature > 0.01 and "a second derivative of" in report.obstacle


def test_an_operation_without_a_second_derivative_is_taken_by_its_name():
    model = seeded(lambda: Functional(F.hardsigmoid)).double()
    x, y = seeded(lambda: torch.randn(3, 6, dtype=torch.float64)), torch.arange(3)
    report = hb.is_piecewise_linear(model, x)
    assert report and report.curvature is None
    assert hb.input_spectrum(model, x, y).shape == (3, 3)


def test_newton_directions_of_other_networks_are_refused_by_name():
    model, x, y = problem("softplus")
    with pytest.raises(InputError, match="because of softplus"):
        hb.newton_direction(model, x, y)
