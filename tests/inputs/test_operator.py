"""The per-sample Hessian operator against dense Hessians, and its promises."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import hbanalysis as hb
from hbanalysis.errors import InputError, NumericalError
from tests.input_nets import Functional, dense_gradients, dense_hessians, problem
from tests.oracles import close, seeded
from tests.small_nets import Square

NAMES = ["conv", "shortcut", "softplus", "linear"]


def products(H, vectors):
    """Dense (n, d, d) times (n, ...)."""
    return (H @ vectors.flatten(1)[:, :, None])[:, :, 0].reshape(vectors.shape)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("settings", [{}, {"chunk_size": 3}, {"chunk_size": 2, "memory_budget": 1}])
def test_products_are_those_of_the_dense_hessian(name, settings):
    model, x, y = problem(name)
    truth = dense_hessians(model, x, y)
    H = hb.InputHessian(model, x, y, **settings)
    v = seeded(lambda: torch.randn_like(x))
    for _ in range(2):  # the second product uses what the first kept
        assert close(H @ v, products(truth, v), 1e-12)
    assert (H.products, H.shape, H.dtype, H.device.type) == (2, (7, 2, 6, 6), torch.float64, "cpu")


def test_blocks_of_vectors():
    model, x, y = problem()
    H = hb.InputHessian(model, x, y, chunk_size=4)
    block = seeded(lambda: torch.randn(7, 3, 2, 6, 6, dtype=torch.float64))
    found = H @ block
    assert H.products == 3 and found.shape == block.shape
    for column in range(3):
        assert close(found[:, column], H @ block[:, column], 1e-13)


def test_gradient_and_losses():
    model, x, y = problem("softplus")
    H = hb.InputHessian(model, x, y, chunk_size=2)
    assert close(H.gradient().flatten(1), dense_gradients(model, x, y), 1e-12)
    assert close(H.losses(), nn.functional.cross_entropy(model.eval()(x), y, reduction="none").detach(), 1e-12)


def test_a_sample_does_not_feel_its_batch():
    model, x, y = problem()
    v = seeded(lambda: torch.randn_like(x))
    whole = hb.InputHessian(model, x, y) @ v
    assert close(hb.InputHessian(model, x[2:3], y[2:3]) @ v[2:3], whole[2:3], 1e-12)


def test_dtypes_follow_inputs_and_vectors():
    model, x, y = problem()
    truth = dense_hessians(model, x, y)
    H = hb.InputHessian(model, x.float(), y.int())
    v = seeded(lambda: torch.randn_like(x))
    assert (H.dtype, H.gradient().dtype) == (torch.float32, torch.float32)
    assert (H @ v).dtype == torch.float64 and close(H @ v, products(truth, v), 1e-5)
    single = hb.InputHessian(model.float(), x, y) @ v.float().requires_grad_()
    assert single.dtype == torch.float32 and not single.requires_grad
    assert close(single.double(), products(truth, v), 1e-5)


def test_saturated_float32_keeps_its_curvature():
    """1 - p_y = 1e-17: the textbook cross-entropy has lost all digits here."""
    model = nn.Linear(2, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 1.0], [-39.0, 0.0], [-41.0, 0.0]]))
    x, y, v = torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([[1.0, 2.0]])
    found = hb.InputHessian(model, x, y) @ v
    exact = hb.InputHessian(model.double(), x.double(), y) @ v.double()
    assert 0 < exact.abs().max() < 1e-12
    assert close(found.double(), exact, 1e-5)


def test_a_constant_slope_has_no_curvature():
    """Logits that differ by a constant: p does not move."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
    assert not (hb.InputHessian(model, torch.rand(2, 3), torch.tensor([0, 1])) @ torch.ones(2, 3)).any()


@pytest.mark.parametrize("function", [torch.sign, torch.round])
def test_a_staircase_has_no_curvature(function):
    """Its slope is 0 without a graph of its own."""
    model, x = seeded(lambda: Functional(function)), torch.rand(3, 6)
    found = hb.InputHessian(model, x, torch.arange(3)) @ torch.ones(3, 6, dtype=torch.float64)
    assert found.shape == (3, 6) and found.dtype == torch.float64 and not found.any()


def test_changes_of_weights_and_inputs_are_noticed():
    model, x, y = problem()
    H = hb.InputHessian(model, x, y, memory_budget=10**9)
    v = seeded(lambda: torch.randn_like(x))
    H @ v
    with torch.no_grad():
        model[0].weight *= 1.5
    assert close(H @ v, products(dense_hessians(model, x, y), v), 1e-12)
    x.add_(0.25)
    assert close(H @ v, products(dense_hessians(model, x, y), v), 1e-12)
    model[-1].weight.data.mul_(2.0)
    assert close(H @ v, products(dense_hessians(model, x, y), v), 1e-12)
    H.release()
    assert close(H @ v, products(dense_hessians(model, x, y), v), 1e-12)


def test_leaves_the_model_as_it_was():
    model, x, y = problem()
    model[1].eval()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before, modes = {n: t.clone() for n, t in model.state_dict().items()}, [m.training for m in model.modules()]
    with torch.no_grad():
        H = hb.InputHessian(model, x, y)
        H @ x
        H.gradient()
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight)) and x.grad is None
    assert all(p.requires_grad for p in model.parameters())


def test_attention_normalisation_and_logits_in_an_output():
    class Attentive(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(4, 2, 5, activation="gelu", batch_first=True)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return {"logits": self.head(self.layer(x).mean(1))}

    model = seeded(Attentive).double()
    x, y = seeded(lambda: torch.randn(3, 5, 4, dtype=torch.float64)), torch.arange(3)
    model.eval()

    def loss(one, label):
        return nn.functional.cross_entropy(model(one[None])["logits"], label[None])

    with sdpa_kernel(SDPBackend.MATH):
        blocks = [
            torch.autograd.functional.hessian(lambda a, label=label: loss(a, label), one)
            for one, label in zip(x, y, strict=True)
        ]
    H = torch.stack(blocks).reshape(3, 20, 20)
    v = seeded(lambda: torch.randn_like(x))
    assert close(hb.InputHessian(model, x, y) @ v, products(H, v), 1e-11)


def test_bad_input_is_named():
    model, x, y = problem()
    H = hb.InputHessian(model, x, y)
    rows = torch.randn(7, 6)
    cases = [
        (lambda: H @ x[:3], r"Vectors of shape \(7, 2, 6, 6\), or blocks .* given \(3, 2, 6, 6\)"),
        (lambda: H @ x.flatten(1), r"given \(7, 72\)"),
        (lambda: H @ x.long(), "given torch.int64"),
        (lambda: H @ x.half(), "given torch.float16"),
        (lambda: hb.InputHessian(model, x, y + 1), "label 4 of sample 3"),
        (lambda: hb.InputHessian(Functional(Square.apply), rows, y), "Square cannot be differentiated twice"),
        (lambda: hb.InputHessian(model, x, y, chunk_size=-1), "chunk_size must be at least 1"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()
    with pytest.raises(NumericalError, match="sample 3"):
        H @ torch.where(torch.arange(7)[:, None, None, None] == 3, torch.inf, x)
