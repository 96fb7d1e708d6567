"""Curvature in the weights of networks, sets and cuts that nobody chose, against dense float64 derivatives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

from hbanalysis.operators import GaussNewton, WeightHessian
from tests.oracles import close, dense_hessian, seeded

SEARCH = settings(max_examples=15, deadline=None)
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "softplus": nn.Softplus, "elu": nn.ELU}
EXACT = {torch.float64: 1e-10, torch.float32: 2e-5}


@st.composite
def problems(draw: st.DrawFn):
    """A network of one or two layers, a set for it, and how it is cut."""
    inputs, hidden, classes = draw(st.integers(1, 5)), draw(st.integers(0, 5)), draw(st.integers(2, 5))
    samples, seed = draw(st.integers(1, 12)), draw(st.integers(0, 10**6))
    activation = ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]
    norm = draw(st.booleans())

    def make():
        body = [nn.Linear(inputs, hidden), *([nn.BatchNorm1d(hidden)] * norm), activation()] if hidden else []
        model = nn.Sequential(*body, nn.Linear(hidden or inputs, classes)).double()
        if samples > 1:
            model(torch.randn(9, inputs, dtype=torch.float64))  # running statistics of its own
        return model, torch.randn(samples, inputs, dtype=torch.float64), torch.randint(0, classes, (samples,))

    model, x, y = seeded(make, seed)
    cut = {
        "chunk_size": draw(st.one_of(st.none(), st.integers(1, samples + 3))),
        "memory_budget": draw(st.sampled_from([0, 3_000, 10**8])),
    }
    return model, x, y, cut


@SEARCH
@given(problem=problems(), dtype=st.sampled_from([torch.float64, torch.float32]), columns=st.integers(1, 4))
@pytest.mark.survives("Input that nobody chose")
def test_products_are_those_of_the_dense_hessian(problem, dtype, columns):
    """Products with the Hessian in the weights, for random networks, numbers of samples, inputs and classes, chunk
    sizes, memory budgets, widths of blocks, and both precisions: those of the dense Hessian, to 1e-10 in float64."""
    model, x, y, cut = problem
    truth = dense_hessian(model, x, lambda z: cross_entropy(z, y))
    block = seeded(lambda: torch.randn(len(truth), columns, dtype=torch.float64))
    H = WeightHessian(model.to(dtype), x.to(dtype), y, **cut)
    scale = truth.abs().max() * block.norm()
    for _ in range(2):  # the second one uses what the first one kept
        found = H @ block
        assert found.dtype == torch.float64 and found.shape == block.shape
        assert (found - truth @ block).abs().max() <= EXACT[dtype] * scale
    assert H.products == 2 * columns
    assert torch.equal(H @ block[:, 0], (H @ block[:, :1])[:, 0])
    assert np.abs(H.to_scipy().matmat(block.numpy()) - (truth @ block).numpy()).max() <= EXACT[dtype] * scale


@SEARCH
@given(problem=problems(), decay=st.sampled_from([0.0, 0.3]), seed=st.integers(0, 99))
def test_weights_parts_and_loaders_give_one_hessian(problem, decay, seed):
    model, x, y, cut = problem
    weights = seeded(lambda: torch.rand(len(x), dtype=torch.float64) + 0.1, seed)
    parameters = sum(p.numel() for p in model.parameters())
    each = torch.stack([dense_hessian(model, x[i : i + 1], lambda z, i=i: cross_entropy(z, y[i : i + 1]))
                        for i in range(len(x))])  # fmt: skip
    truth = torch.einsum("i,iab->ab", weights / weights.sum(), each) + decay * torch.eye(
        parameters, dtype=torch.float64
    )
    H = WeightHessian(model, x, y, weights=weights, weight_decay=decay, **cut)
    assert close(H.dense(), truth)
    order = seeded(lambda: torch.randperm(len(x)), seed)
    parts = [H.part(rows, total=H.total) for rows in order.split(max(1, len(x) // 2))]
    assert close(sum(part.dense() for part in parts), truth)
    loader = DataLoader(TensorDataset(x, y), batch_size=1 + seed % 5)
    plain = each.mean(0) + decay * torch.eye(parameters, dtype=torch.float64)
    assert close(WeightHessian(model, loader, weight_decay=decay).dense(), plain)


@SEARCH
@given(problem=problems(), squared=st.booleans())
def test_gauss_newton_loss_and_gradient(problem, squared):
    model, x, y, cut = problem
    model.eval()
    values = {name: p.detach() for name, p in model.named_parameters()}
    outputs = model(x).detach()
    parts = jacrev(lambda given: functional_call(model, given, (x,)))(values)
    J = torch.cat([part.flatten(2) for part in parts.values()], 2)
    if squared:
        targets = torch.zeros_like(outputs)
        S = (2.0 * torch.eye(outputs.shape[1], dtype=torch.float64)).expand(len(x), -1, -1)
        loss, named = mse_loss(model(x), targets, reduction="sum") / len(x), "squared_error"
    else:
        targets, p = y, outputs.softmax(1)
        S = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        loss, named = cross_entropy(model(x), y), "cross_entropy"
    truth = torch.einsum("nka,nkl,nlb->ab", J, S, J) / len(x)
    G = GaussNewton(model, x, targets, loss=named, **cut)
    assert close(G.dense(), truth)
    assert G.loss() == pytest.approx(loss.item(), rel=1e-12)
    gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert close(G.gradient(), gradient)
