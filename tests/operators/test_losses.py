"""Cross-entropy by relative logits: value, gradient and curvature against float64, however saturated."""

import pytest
import torch

from hbanalysis.errors import InputError
from hbanalysis.operators.losses import binary_cross_entropy, cross_entropy, named, squared_error


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
        named("crossentropy")


@pytest.mark.parametrize("z", [-40.0, -3.0, 0.0, 3.0, 25.0, 40.0])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_binary_cross_entropy_keeps_its_digits(z, label):
    def derivatives(dtype):
        t = torch.tensor([z], dtype=dtype, requires_grad=True)
        loss = binary_cross_entropy(t, torch.tensor([label], dtype=dtype)).sum()
        (first,) = torch.autograd.grad(loss, t, create_graph=True)
        return [loss.item(), first.item(), torch.autograd.grad(first, t)[0].item()]

    assert derivatives(torch.float32) == pytest.approx(derivatives(torch.float64), rel=1e-5)
    textbook = torch.nn.functional.binary_cross_entropy_with_logits(torch.tensor(z), torch.tensor(label)).item()
    assert derivatives(torch.float64)[0] == pytest.approx(textbook, rel=1e-5, abs=1e-17)


def test_binary_targets_between_0_and_1():
    z, t = torch.linspace(-3, 3, 7), torch.linspace(0, 1, 7)
    textbook = torch.nn.functional.binary_cross_entropy_with_logits(z, t, reduction="none")
    assert torch.allclose(binary_cross_entropy(z, t), textbook, atol=1e-6)


def test_tokens_are_summed_and_counted():
    z, y = torch.randn(2, 3, 4), torch.tensor([[1, -100, 2], [-100, -100, -100]])
    loss = named("cross_entropy")
    kept = torch.nn.functional.cross_entropy(z[0, [0, 2]], y[0, [0, 2]], reduction="sum")
    assert loss.terms(z, y).tolist() == pytest.approx([kept.item(), 0.0], rel=1e-5)
    assert loss.counts(y).tolist() == [2.0, 0.0]
    assert named("cross_entropy", ignore_index=2).counts(torch.tensor([2, 1])).tolist() == [0.0, 1.0]
    assert named("next_token").counts(y).tolist() == [1.0, 0.0]
    p = z.softmax(-1)
    assert loss.doubts(z, y).tolist() == pytest.approx([2 - p[0, 0, 1].item() - p[0, 2, 2].item(), 0.0], abs=1e-6)


def test_next_token_pairs_each_logit_with_the_label_after_it():
    z, y = torch.randn(2, 4, 5), torch.tensor([[1, 0, 2, -100], [3, 3, 4, 1]])
    shifted = torch.nn.functional.cross_entropy(z[:, :-1].mT, y[:, 1:], reduction="none").sum(1)
    assert torch.allclose(named("next_token").terms(z, y), shifted)


def test_targets_that_cannot_belong_to_the_outputs_are_named():
    z = torch.zeros(2, 3)
    cases = [
        ("cross_entropy", z, torch.tensor([0, 3]), r"label 3 is out of range: .* 0\.\.2, or -100"),
        ("cross_entropy", z, torch.tensor([-1, 0]), "label -1 is out of range"),
        ("cross_entropy", z, torch.zeros(2), "integer class labels; given torch.float32"),
        ("cross_entropy", torch.zeros(2, 3, 4), torch.zeros(2, 4, dtype=torch.long), "classes on the last axis"),
        ("cross_entropy", (z,), torch.tensor([0, 1]), "the model returned a tuple"),
        ("squared_error", z, torch.tensor([0, 5]), "label 5 is out of range"),
        ("binary_cross_entropy", z, torch.zeros(2), "one logit and one target a sample"),
        ("binary_cross_entropy", torch.zeros(2), torch.tensor([0.0, 1.5]), r"between 0 and 1; given \[1.5\]"),
    ]
    for name, outputs, targets, message in cases:
        with pytest.raises(InputError, match=message):
            named(name).check(outputs, targets)
    with pytest.raises(InputError, match=r"outputs \(2, 3\) with targets \(2, 2\)"):
        squared_error(z, torch.zeros(2, 2))
    with pytest.raises(InputError, match="cross-entropy of class labels only"):
        named("squared_error").doubts(z, z)


def test_squared_error_does_not_broadcast():
    assert squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 1.0])).tolist() == [1.0, 1.0]
    assert squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([3, 4])).tolist() == [4.0, 4.0]
