"""The Gauss-Newton product against J' S J written out."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from hbanalysis.errors import InputError
from hbanalysis.operators import GaussNewton, WeightHessian
from tests.oracles import Residual, Transformer, close, dense_hessian, seeded

X = seeded(lambda: torch.randn(11, 4, dtype=torch.float64))
Y = torch.arange(11) % 3
W = torch.arange(11) % 3


def net():
    return seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))).double()


def written_out(model, x, curvature, weights):
    """``curvature``: Hessian of each sample's loss in the outputs, (n, c, c)."""
    values = dict(model.named_parameters())
    with sdpa_kernel(SDPBackend.MATH):
        J = jacrev(lambda p: functional_call(model, p, (x,)))(values)
    J = torch.cat([j.flatten(2) for j in J.values()], 2).detach()
    return torch.einsum("n,nki,nkl,nlj->ij", weights / weights.sum(), J, curvature, J)


def softmax_curvature(z):
    p = z.softmax(1).detach()
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


@pytest.mark.parametrize("chunk", [3, 100])
@pytest.mark.parametrize("budget", [0, 10**9])
def test_cross_entropy(chunk, budget):
    model = net()
    truth = written_out(model, X, softmax_curvature(model(X)), W.double())
    G = GaussNewton(model, X, Y, weights=W, chunk_size=chunk, memory_budget=budget)
    for _ in range(2):
        assert close(G.dense(), truth)
    assert torch.linalg.eigvalsh(G.dense()).min() > -1e-12


def test_squared_error_and_parts():
    model = net()
    curvature = (2 * torch.eye(3).double()).expand(11, 3, 3)
    G = GaussNewton(model, X, Y, loss="squared_error", chunk_size=4)
    assert isinstance(G.part([2]), GaussNewton)
    assert close(G.dense(), written_out(model, X, curvature, torch.ones(11).double()))
    assert close(G.part([2]).dense(), written_out(model, X[2:3], curvature[2:3], torch.ones(1).double()))
    assert close(G.gradient(), WeightHessian(model, X, Y, loss="squared_error").gradient())


def test_blocks_and_the_rest():
    model = net()
    H, G = WeightHessian(model, X, Y), GaussNewton(model, X, Y)
    rest = (H - G).dense()
    assert close(G.dense() + rest, dense_hessian(model, X, lambda z: F.cross_entropy(z, Y)))
    assert rest[-18:, -18:].abs().max() < 1e-12  # the outputs are linear in the last layer
    assert close(GaussNewton(model, X, Y, parameters="2.*").dense(), H.dense()[-18:, -18:])


def test_other_nets():
    images, labels = seeded(lambda: torch.rand(5, 1, 5, 5)).double(), torch.arange(5) % 3
    residual = seeded(Residual).double()
    truth = written_out(residual, images, softmax_curvature(residual(images)), torch.ones(5).double())
    assert close(GaussNewton(residual, images, labels, chunk_size=2).dense(), truth)
    tokens = seeded(lambda: torch.randint(0, 6, (4, 3)))
    transformer = seeded(lambda: Transformer(True)).double().eval()
    blocks = torch.zeros(4, 18, 18).double()
    for t in range(3):
        blocks[:, 6 * t : 6 * t + 6, 6 * t : 6 * t + 6] = softmax_curvature(transformer(tokens)[:, t]) / 3
    flat = nn.Sequential(transformer, nn.Flatten())
    truth = written_out(flat, tokens, blocks, torch.ones(4).double())
    assert close(GaussNewton(transformer, tokens, tokens).dense(), truth)


def test_saturated_sample_keeps_its_curvature_in_float32():
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [-23.0]]))
    p = torch.tensor(-23.0, dtype=torch.float64).exp().item()
    G = GaussNewton(model, torch.ones(1, 1), torch.tensor([0]))
    assert G.dense()[1, 1].item() == pytest.approx(p, rel=1e-5)


def test_linear_losses_have_none_and_tuples_are_refused():
    G = GaussNewton(net(), X, Y, loss=lambda z, y: z.sum(1))
    assert torch.equal(G @ torch.ones(43), torch.zeros(43))
    with pytest.raises(InputError, match="the model returned tuple"):
        GaussNewton(net(), X, Y, forward=lambda m, x: (m(x),), loss=lambda z, y: z[0].sum(1)) @ torch.ones(43)
