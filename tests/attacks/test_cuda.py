"""The same attacks on a GPU: results of the CPU in float64, and nothing on the device is lost by bad input."""

import pytest
import torch

from hbanalysis import attacks
from tests.attack_nets import ALL, convolutional, digits

pytestmark = pytest.mark.needs_cuda


@pytest.mark.parametrize("net", [digits, convolutional])
@pytest.mark.parametrize("attack", ALL)
def test_results_are_those_of_the_cpu(attack, net):
    model, x, y = net()
    expected = attack(model, x, y, 0.1)
    found = attack(model.cuda(), x.cuda(), y.cuda(), 0.1)
    assert found.device.type == "cuda" and found.dtype == x.dtype
    assert torch.allclose(found.cpu(), expected, atol=1e-7)


@pytest.mark.parametrize("attack", ALL)
def test_float32_gives_the_accuracy_of_the_cpu(attack):
    model, x, y = digits(torch.float32, samples=300)
    expected = attacks.accuracy_under(model, lambda *given: attack(*given, eps=0.06), x, y)
    found = attacks.accuracy_under(model.cuda(), lambda *given: attack(*given, eps=0.06), x.cuda(), y.cuda())
    assert found == pytest.approx(expected, abs=0.02)


def test_reports_and_distances_follow_the_tensors():
    model, x, y = digits(samples=60)
    expected = attacks.masking_report(model, x, y, 0.05, steps=10, restarts=2)
    distances = attacks.minimal_distance(model, x, y)
    model, x, y = model.cuda(), x.cuda(), y.cuda()
    assert attacks.masking_report(model, x, y, 0.05, steps=10, restarts=2).pgd == pytest.approx(expected.pgd, abs=0.04)
    found = attacks.minimal_distance(model, x, y)
    assert found.eps.device.type == "cuda"
    assert ((found.eps.cpu() - distances.eps).abs() <= 2e-3).double().mean() > 0.9
    eps = torch.full((60,), 0.1)  # sizes may lie elsewhere
    assert torch.equal(attacks.fgsm(model, x, y, eps), attacks.fgsm(model, x, y, 0.1))


def test_mixed_devices_and_bad_labels_are_named():
    """On a GPU an index out of range would end the process's use of the device."""
    model, x, y = digits(torch.float32)
    with pytest.raises(ValueError, match="must lie on one device"):
        attacks.fgsm(model.cuda(), x, y, 0.1)
    with pytest.raises(ValueError, match="must lie on one device"):
        attacks.fgsm(model, x.cuda(), y, 0.1)
    with pytest.raises(ValueError, match="label 10 is out of range"):
        attacks.fgsm(model, x.cuda(), y.cuda() + 1, 0.1)
    assert torch.ones(1, device="cuda").item() == 1.0
