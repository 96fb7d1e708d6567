"""FGSM beside the libraries that people use for it; `make test-full` puts them below ``.peers``."""

import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from hbanalysis import attacks
from tests.attack_nets import convolutional, digits

pytestmark = pytest.mark.full
PEERS = Path(__file__).parents[2] / ".peers"


@pytest.fixture
def peers(monkeypatch):
    """Behind everything installed, since they come without what they depend on."""
    if not PEERS.is_dir():
        pytest.skip("torchattacks and foolbox are not below .peers: `make test-full` puts them there")
    monkeypatch.setattr(sys, "path", [*sys.path, str(PEERS)])
    with warnings.catch_warnings(action="ignore"):
        return import_module("torchattacks"), import_module("foolbox")


@pytest.mark.parametrize("eps", [0.03, 0.1])
@pytest.mark.parametrize("net", [digits, convolutional])
def test_fgsm_is_that_of_torchattacks_and_foolbox_bit_for_bit(peers, net, eps):
    torchattacks, foolbox = peers
    model, x, y = net(torch.float32)
    model.eval()
    first = torchattacks.FGSM(model, eps=eps)(x, y)
    attack = foolbox.attacks.LinfFastGradientAttack(random_start=False)
    _, second, _ = attack(foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=eps)
    assert torch.equal(attacks.fgsm(model, x, y, eps, softmax="plain"), first)
    assert torch.equal(first, second) and (first != x).float().mean() > 0.8
    # Their cross-entropy loses part of the gradient of saturated samples; the others are the same by ours.
    ordinary = cross_entropy(model(x), y, reduction="none") > 1e-5
    assert torch.equal(attacks.fgsm(model, x, y, eps)[ordinary], first[ordinary]) and ordinary.sum() > 10
