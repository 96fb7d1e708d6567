"""Loss and accuracy over a set, the loss along lines and over planes: models and labels of many kinds, and the caller's
images as they were."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hbanalysis.errors import InputError
from hbanalysis.training.evaluation import accuracy_under_fgsm, evaluate
from hbanalysis.training.landscape import along_direction, over_plane
from tests.oracles import seeded

X = seeded(lambda: torch.rand(250, 4))  # more than go through a model at once
Y = torch.arange(250) % 3


class Centring(nn.Module):
    """Works in place on what it is given."""

    def __init__(self):
        super().__init__()
        self.layer = seeded(lambda: nn.Linear(4, 3))

    def forward(self, x):
        x -= 0.5
        return self.layer(x)


class Boxed(nn.Module):
    """Returns its logits inside something else."""

    class Output:
        def __init__(self, logits):
            self.logits = logits

    def __init__(self, box):
        super().__init__()
        self.layer, self.box = Centring().layer, box

    def forward(self, x):
        return self.box(self.layer(x))


def exact(x, y, layer):
    logits = layer(x)
    return cross_entropy(logits, y).item(), (logits.argmax(1) == y).float().mean().item()


def test_images_stay_as_they_were_under_a_model_that_writes_into_them():
    model, before = Centring(), X.clone()
    loss, accuracy = exact(before - 0.5, Y, model.layer)
    n = sum(p.numel() for p in model.parameters())
    direction = torch.ones(n) / n
    assert evaluate(model, X, Y) == pytest.approx((loss, accuracy))
    assert accuracy_under_fgsm(model, X, Y, 0.0) == pytest.approx(accuracy)
    assert along_direction(model, direction, [0.0, 0.0], (X, Y)) == [pytest.approx([loss, loss])]
    assert over_plane(model, torch.stack([direction, direction], 1), [0.0], (X, Y))[0] == [[pytest.approx(loss)]]
    assert torch.equal(X, before)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_labels_are_of_any_integer_type(kind):
    model = Centring()
    assert evaluate(model, X, Y.to(kind)) == evaluate(model, X, Y) == pytest.approx(exact(X - 0.5, Y, model.layer))
    assert accuracy_under_fgsm(model, X, Y.to(kind), 0.05) == accuracy_under_fgsm(model, X, Y, 0.05)


@pytest.mark.parametrize("box", [Boxed.Output, lambda logits: {"logits": logits}])
def test_outputs_with_logits_are_understood(box):
    model = Boxed(box)
    assert evaluate(model, X, Y) == pytest.approx(exact(X, Y, model.layer))
    assert accuracy_under_fgsm(model, X, Y, 0.0) == pytest.approx(exact(X, Y, model.layer)[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: evaluate(Centring(), X[:0], Y[:0]), r"no sample; given images of shape \(0, 4\)"),
        (lambda: accuracy_under_fgsm(Centring(), X[:0], Y[:0], 0.1), "no sample"),
        (lambda: evaluate(Centring(), X, Y[:9]), r"250 images need as many labels, shape \(250,\); given \(9,\)"),
        (lambda: evaluate(Centring(), X, Y.float()), "integer classes; given torch.float32"),
        (lambda: evaluate(Boxed(lambda z: (z, z)), X, Y), "it returned tuple"),
        (lambda: evaluate(Boxed(lambda z: z[:, 0]), X, Y), r"logits \(200, c\).*it returned shape \(200,\)"),
    ],
)
def test_what_cannot_be_evaluated_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("shape", [(), (1,), (15, 1), (14,)])
def test_a_direction_has_an_entry_for_each_weight(shape):
    model, whole = Centring(), torch.ones(15)
    weights = model.layer.weight.clone()
    with pytest.raises(InputError, match=r"direction has an entry for each weight, \(15,\); given \("):
        along_direction(model, torch.ones(shape), [1.0], (X, Y))
    with pytest.raises(InputError, match=r"offset has an entry for each weight, \(15,\); given \("):
        along_direction(model, whole, [1.0], (X, Y), offset=torch.ones(shape))
    assert torch.equal(model.layer.weight, weights)


def test_a_plane_needs_two_whole_directions():
    with pytest.raises(InputError, match=r"columns, shape \(15, 2\); given \(1, 2\)"):
        over_plane(Centring(), torch.ones(1, 2), [0.0], (X, Y))
