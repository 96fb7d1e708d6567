"""Cross-entropy by relative logits: value, gradient and curvature against float64, however saturated."""

import pytest
import torch

from hbanalysis.errors import InputError
from hbanalysis.losses import cross_entropy, resolve, squared_error


def hessian(z, label):
    def loss(t):
        return cross_entropy(t[None], torch.tensor([label])).sum()

    return torch.autograd.functional.hessian(loss, z)


@pytest.mark.parametrize("gap", [-90.0, -23.0, -3.0, -1e-3, 0.0, 1e-3, 3.0, 23.0, 80.0])
def test_float32_keeps_its_digits_at_any_confidence(gap):
    z = torch.tensor([gap, 0.25, -1.0, 0.5])
    single, double = hessian(z, 0), hessian(z.double(), 0)
    scale = double.abs().max()
    assert torch.allclose(single.double() / scale, double / scale, atol=2e-5)
    value = cross_entropy(z[None], torch.tensor([0]))
    assert value.double().item() == pytest.approx(cross_entropy(z.double()[None], torch.tensor([0])).item(), rel=1e-5)


def test_agrees_with_the_textbook_form_where_that_is_right():
    z = torch.randn(50, 7, dtype=torch.float64, requires_grad=True)
    y = torch.arange(50) % 7
    ours, theirs = cross_entropy(z, y), torch.nn.functional.cross_entropy(z, y, reduction="none")
    assert torch.allclose(ours, theirs, atol=1e-13)
    first = [torch.autograd.grad(t.sum(), z, retain_graph=True)[0] for t in (ours, theirs)]
    assert torch.allclose(*first, atol=1e-13)


def test_two_classes_confidently_wrong():
    """The only curvature left is p (1 - p) with p next to 1."""
    H = hessian(torch.tensor([-30.0, 0.0]), 0)
    exact = torch.tensor(-30.0, dtype=torch.float64).exp().item()
    assert H[1, 1].item() == pytest.approx(exact, rel=1e-5)


def test_squared_error_takes_labels_or_targets():
    z = torch.tensor([[1.0, 0.0, 0.5]])
    assert squared_error(z, torch.tensor([0])).item() == pytest.approx(0.25)
    assert squared_error(z, torch.zeros(1, 3)).item() == pytest.approx(1.25)


def test_unknown_loss_is_named():
    with pytest.raises(InputError, match="Did you mean 'cross_entropy'"):
        resolve("crossentropy")
