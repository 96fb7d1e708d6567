"""PyTorch's losses over chunks against PyTorch's own value in one batch."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from hbanalysis.operators.torch_losses import resolve
from tests.oracles import close, dense_hessian, seeded

X = seeded(lambda: torch.randn(11, 4, dtype=torch.float64))
LABELS = seeded(lambda: torch.randint(0, 3, (11,)))
VALUES = seeded(lambda: torch.rand(11, 3, dtype=torch.float64), 5)
WEIGHT = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)

CASES = {
    "smooth": (nn.CrossEntropyLoss(label_smoothing=0.1), LABELS),
    "weights": (nn.CrossEntropyLoss(weight=WEIGHT), LABELS),
    "weights_smooth_ignored": (nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.2, ignore_index=1), LABELS),
    "plain": (nn.CrossEntropyLoss(), LABELS),
    "int32": (nn.CrossEntropyLoss(), LABELS.int()),
    "probabilities": (nn.CrossEntropyLoss(), VALUES),
    "function": (F.cross_entropy, LABELS),
    "partial": (partial(F.cross_entropy, weight=WEIGHT), LABELS),
    "mse": (nn.MSELoss(), VALUES),
    "huber": (F.huber_loss, VALUES),
    "smooth_l1": (partial(F.smooth_l1_loss, beta=0.3), VALUES),
    "bce": (nn.BCEWithLogitsLoss(pos_weight=WEIGHT), VALUES),
    "kl": (nn.KLDivLoss(reduction="batchmean"), VALUES),
}


@pytest.mark.parametrize("name", CASES)
def test_chunks_give_the_loss_of_one_batch(name):
    loss, y = CASES[name]
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))).double()
    H = WeightHessian(model, X, y, loss=loss, chunk_size=4)
    in_one = (lambda z: loss(z, y.long())) if not y.is_floating_point() else (lambda z: loss(z, y))
    assert H.loss() == pytest.approx(in_one(model(X)).item(), rel=1e-12)
    assert close(H.dense(), dense_hessian(model, X, in_one))
    assert H.label_relative == (name in ("plain", "int32", "function"))


def test_nll_with_weights():
    model = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1)).double()
    H = WeightHessian(model, X, LABELS, loss=nn.NLLLoss(WEIGHT), chunk_size=3)
    assert H.loss() == pytest.approx(F.nll_loss(model(X), LABELS, WEIGHT).item(), rel=1e-12)


def test_sum_and_plain_callables():
    model = nn.Linear(4, 3).double()
    mean_of_sums = F.mse_loss(model(X), VALUES, reduction="sum").item() / 11
    assert WeightHessian(model, X, VALUES, loss=nn.MSELoss(reduction="sum")).loss() == pytest.approx(mean_of_sums)
    own = WeightHessian(model, X, VALUES, loss=lambda z, t: (z - t).square().sum(1), chunk_size=4)
    assert own.loss() == pytest.approx(mean_of_sums)


def test_plain_module_is_label_relative():
    """1 - p_y = 1e-10 in float32: PyTorch's own form has lost all digits here."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [-23.0]]))
    x, y = torch.ones(1, 1), torch.tensor([0])
    p = torch.tensor(-23.0, dtype=torch.float64).exp().item()
    H = WeightHessian(model, x, y, loss=nn.CrossEntropyLoss())
    assert H.dense()[0, 0].item() == pytest.approx(p, rel=1e-5)
    assert H.label_relative and H.doubts().item() == pytest.approx(p, rel=1e-5)


def test_class_axis_is_found_or_asked_for():
    tokens = seeded(lambda: torch.randint(0, 3, (2, 5)))
    logits = seeded(lambda: torch.randn(2, 5, 3))
    for loss in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)):
        last = resolve(loss).terms(logits, tokens)
        second = resolve(loss).terms(logits.movedim(-1, 1), tokens)
        assert torch.equal(last, second)
        assert last.sum() / 10 == pytest.approx(loss(logits.movedim(-1, 1), tokens))
    with pytest.raises(InputError, match="do not tell which axis holds the classes"):
        resolve(nn.CrossEntropyLoss()).check(torch.zeros(2, 3, 3), torch.zeros(2, 3, dtype=torch.long))


def test_own_module_with_a_reduction():
    class Focal(nn.Module):
        def __init__(self, reduction="mean"):
            super().__init__()
            self.reduction = reduction

        def forward(self, z, y):
            each = F.cross_entropy(z, y, reduction="none")
            each = (1 - (-each).exp()) ** 2 * each
            return each.mean() if self.reduction == "mean" else each

    model, focal = nn.Linear(4, 3).double(), Focal()
    H = WeightHessian(model, X, LABELS, loss=focal, chunk_size=4)
    assert H.loss() == pytest.approx(focal(model(X), LABELS).item(), rel=1e-12)
    assert focal.reduction == "mean"


def test_bad_losses_are_named():
    model = nn.Linear(4, 3).double()
    column = nn.Linear(4, 1).double()
    cases = [
        (lambda: WeightHessian(model, X, LABELS, loss=lambda z, y: F.cross_entropy(z, y)).loss(), r"shape \(11,\)"),
        (lambda: WeightHessian(model, X, VALUES, loss=nn.MSELoss(reduction="none")).loss(), "one value a sample"),
        (lambda: WeightHessian(column, X, VALUES[:, 0], loss=nn.MSELoss()).loss(), "would be broadcast"),
        (lambda: WeightHessian(model, X, LABELS + 1, loss=nn.CrossEntropyLoss()).loss(), "label 3 is out of range"),
        (lambda: WeightHessian(model, X, LABELS + 1, loss=CASES["weights"][0]), "label 3 is out of range"),
        (lambda: WeightHessian(model, X, LABELS, loss=lambda z, y: 1.0).loss(), "returned float"),
    ]
    for compute, message in cases:
        with pytest.raises(InputError, match=message):
            compute()
