"""Targets and outputs of several tensors, for losses of one's own; and arithmetic with operators."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from hbanalysis.errors import InputError
from hbanalysis.operators import GaussNewton, WeightHessian
from hbanalysis.operators.guards import check_model
from tests.oracles import close, dense_hessian, seeded

N = 14
X = seeded(lambda: torch.randn(N, 4, dtype=torch.float64))
Y = seeded(lambda: torch.randint(0, 3, (N,)))
R = seeded(lambda: torch.randn(N, 1, dtype=torch.float64))


class TwoHeads(nn.Module):
    """Classes and a number, under names; ``logits`` among them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 1)

    def forward(self, x):
        return {"logits": self.first(x), "value": torch.tanh(self.second(x))}


def both(outputs, targets):
    classes = F.cross_entropy(outputs["logits"], targets["class"], reduction="none")
    return classes + (outputs["value"] - targets["number"]).square()[:, 0]


def rows(targets, which):
    return {name: t[which] for name, t in targets.items()}


class Pairs(Dataset):
    """Images with two targets each."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return X[index], {"class": Y[index], "number": R[index]}


@pytest.fixture(scope="module")
def model():
    return seeded(TwoHeads).double()


@pytest.fixture(scope="module")
def truth(model):
    return dense_hessian(model, X, lambda z: both(z, {"class": Y, "number": R}).mean())


@pytest.mark.parametrize("form", ["tensors", "dataset", "loader", "batches"])
def test_a_loss_of_ones_own_is_given_all_outputs_and_targets(model, truth, form):
    targets = {"class": Y, "number": R}
    data = {
        "tensors": (X, targets),
        "dataset": (Pairs(),),
        "loader": (DataLoader(Pairs(), batch_size=5),),
        "batches": (
            [(X[:6], {k: t[:6] for k, t in targets.items()}), (X[6:], {k: t[6:] for k, t in targets.items()})],
        ),
    }
    H = WeightHessian(model, *data[form], loss=both, chunk_size=4)
    assert H.samples == H.total == N
    assert close(H.dense(), truth, 1e-9)
    part = H.part([3, 8])
    few = rows(targets, [3, 8])
    assert part.loss() == pytest.approx(both(model(X[[3, 8]]), few).mean().item())


def test_gauss_newton_takes_such_targets_under_one_tensor_of_outputs():
    model = seeded(lambda: nn.Linear(4, 1)).double()

    def loss(outputs, targets):
        return ((outputs - targets[0]).square() + (outputs - targets[1]).square())[:, 0]

    G = GaussNewton(model, X, (R, -R), loss=loss)
    assert close(G.dense(), WeightHessian(model, X, (R, -R), loss=loss).dense(), 1e-12)


def test_named_losses_still_find_the_logits_and_take_one_tensor_of_targets(model):
    named = WeightHessian(model, X, Y).loss()
    assert named == pytest.approx(F.cross_entropy(model(X)["logits"], Y).item())
    assert WeightHessian(model, X, Y, loss=nn.CrossEntropyLoss()).loss() == pytest.approx(named)
    with pytest.raises(InputError, match="takes one tensor of targets; given dict"):
        WeightHessian(model, X, {"class": Y, "number": R})


@pytest.mark.parametrize("key", ["labels", "targets", "label", "target"])
def test_dict_batches_name_their_targets_in_any_of_four_ways(model, key):
    assert WeightHessian(model, [{"x": X, key: Y}]).loss() == pytest.approx(WeightHessian(model, X, Y).loss())


def test_operators_are_multiplied_by_numbers(model):
    H = WeightHessian(model, X, Y)
    v = torch.arange(20.0, dtype=torch.float64)
    assert close((2 * H) @ v, 2 * (H @ v)) and close((H * np.float64(0.5)) @ v, 0.5 * (H @ v))
    assert close((H / 4 - H) @ v, -0.75 * (H @ v)) and close((-H) @ v, -(H @ v))
    assert repr(H) == "<WeightHessian 20 x 20, float64 on cpu>"
    for wrong in (lambda: H * v, lambda: H * float("nan"), lambda: H / 0, lambda: H / v, lambda: True * H):
        with pytest.raises(InputError, match="finite number|divided by 0"):
            wrong()


def pixels():
    images, labels = X[..., None].expand(N, 4, 2), Y[:, None].expand(N, 2)
    WeightHessian(nn.Conv1d(4, 3, 1).double(), images, labels).loss()


def complex_layer():
    layer = nn.Linear(4, 3)
    layer.weight = nn.Parameter(torch.zeros(3, 4, dtype=torch.complex64))
    return layer


def named_outputs(model):
    WeightHessian(model, X, R, loss="squared_error", forward=lambda m, x: {"out": m(x)}).loss()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: WeightHessian(nn.Linear(4, 1).double(), X, Y.clamp(max=1)).loss(), "loss='binary_cross_entropy'"),
        (lambda m: WeightHessian(nn.Linear(4, 3).double(), X, X[:, :3]).loss(), "nn.BCEWithLogitsLoss"),
        (lambda m: WeightHessian(nn.Linear(4, 3).double(), X, F.one_hot(Y, 3)).loss(), "nn.BCEWithLogitsLoss"),
        (
            lambda m: WeightHessian(
                nn.Conv1d(4, 3, 1).double(), X[..., None].expand(N, 4, 2), Y[:, None].expand(N, 2)
            ).loss(),
            "second axis, use loss=nn.CrossEntropyLoss",
        ),
        (lambda m: WeightHessian(m, X, Y, loss=nn.MSELoss), "give an instance"),
        (lambda m: WeightHessian(m, X, Y, loss="mse"), r"loss=nn.MSELoss\(\)"),
        (lambda m: WeightHessian(m, X, Y, loss=lambda z, t: z["value"]).loss(), r"flatten\(1\)"),
        (
            lambda m: WeightHessian(m, X, R, loss="squared_error", forward=lambda m, x: {"out": m(x)}).loss(),
            r"inputs\)\['out'\]",
        ),
        (lambda m: check_model(lambda x: x), "forward=lambda"),
        (lambda m: WeightHessian(m, X, Y, parameters=[]), "given none"),
        (lambda m: WeightHessian(m, X, Y, parameters="first"), r"Did you mean 'first\*'"),
        (lambda m: WeightHessian(nn.Embedding(9, 3, sparse=True), Y, Y), "sparse=False"),
        (lambda m: WeightHessian(nn.Embedding(9, 3, max_norm=1.0), Y, Y), "max_norm"),
        (lambda m: check_model(complex_layer()), "is complex"),
    ],
)
def test_common_slips_are_answered_with_what_to_do(model, make, message):
    with pytest.raises(InputError, match=message):
        make(model)
