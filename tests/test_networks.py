"""Parameter counts of the paper's networks, any shape, activations, seeded initialisation."""

import pytest
import torch
from torch import nn

from hbanalysis import networks
from hbanalysis.errors import InputError
from tests.oracles import seeded

COUNTS = [
    ("C1", (3, 32, 32), 10, 1_756_682),
    ("C2", (3, 32, 32), 10, 1_148_746),
    ("C3", (3, 32, 32), 10, 1_147_978),
    ("M1", (1, 28, 28), 10, 431_080),
    ("CR", (3, 32, 32), 100, 11_220_132),
]


@pytest.mark.parametrize(("name", "shape", "classes", "count"), COUNTS)
def test_parameter_counts(name, shape, classes, count):
    assert sum(p.numel() for p in networks.build(name, shape, classes).parameters()) == count


@pytest.mark.parametrize("name", networks.names())
@pytest.mark.parametrize(("shape", "classes"), [((1, 28, 28), 7), ((3, 40, 36), 2)])
def test_any_shape_and_number_of_classes(name, shape, classes):
    model = networks.build(name, shape, classes).eval()
    assert model(torch.rand(2, *shape)).shape == (2, classes)


@pytest.mark.parametrize("name", networks.names())
@pytest.mark.parametrize(("activation", "kind"), [("softplus(20)", nn.Softplus), ("elu(1)", nn.ELU)])
def test_activation_replaces_every_relu(name, activation, kind):
    relus = sum(isinstance(m, nn.ReLU) for m in networks.build(name).modules())
    model = networks.build(name, activation_name=activation)
    assert not any(isinstance(m, nn.ReLU) for m in model.modules())
    assert sum(isinstance(m, kind) for m in model.modules()) == relus > 0


def test_initialisation_depends_on_the_seed_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = networks.build("M1", (1, 28, 28), seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    b, c = networks.build("M1", (1, 28, 28), seed=3), networks.build("M1", (1, 28, 28), seed=4)
    assert torch.equal(a[0].weight, b[0].weight)
    assert not torch.equal(a[0].weight, c[0].weight)


def test_no_device_is_seeded_and_weights_are_those_of_the_seed(monkeypatch):
    first = seeded(lambda: nn.Conv2d(1, 20, 5), 3)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("a generator of CUDA was seeded"))
    model = networks.build("M1", (1, 28, 28), seed=3)
    assert torch.equal(model[0].weight, first.weight) and torch.equal(model[0].bias, first.bias)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: networks.build("C4"), "Unknown network 'C4'. Did you mean"),
        (lambda: networks.build("M1", (1, 28, 28), 1), "at least 2 classes; given 1"),
        (lambda: networks.build("C2", (1, 8, 8)), r"C2 cannot take inputs of shape \(1, 8, 8\)"),
        (lambda: networks.build("M1", activation_name="softplus"), r"softplus\(20\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
