"""Curvature in the input of networks, images and cuts that nobody chose, against autograd's own second derivatives."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from hbanalysis import inputs
from hbanalysis.inputs import InputHessian
from tests.input_nets import dense_gradients, dense_hessians
from tests.oracles import seeded

SEARCH = settings(max_examples=15, deadline=None)
EXACT = {torch.float64: 1e-10, torch.float32: 1e-4}
BENDS = {"relu": nn.ReLU, "leaky": nn.LeakyReLU, "softplus": nn.Softplus, "tanh": nn.Tanh}


@st.composite
def problems(draw: st.DrawFn, bends=("relu", "leaky")):
    """A network of vectors or images with c classes, its images and labels, and how they are cut."""
    classes, samples = draw(st.integers(2, 6)), draw(st.integers(1, 7))
    bend, seed = BENDS[draw(st.sampled_from(bends))], draw(st.integers(0, 10**6))
    side, hidden, size = draw(st.integers(3, 5)), draw(st.integers(1, 7)), draw(st.integers(1, 9))
    shape = draw(st.sampled_from([(size,), (1, side, side)]))

    def make():
        if len(shape) == 1:
            model = nn.Sequential(nn.Linear(size, hidden), bend(), nn.Linear(hidden, classes))
        else:
            convolution = [nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), bend(), nn.Flatten()]
            model = nn.Sequential(*convolution, nn.Linear(2 * (side - 1) ** 2, classes))
        x = torch.randn(samples, *shape, dtype=torch.float64)
        return model.double(), x, torch.randint(0, classes, (samples,))

    model, x, y = seeded(make, seed)
    cut = {
        "chunk_size": draw(st.one_of(st.none(), st.integers(1, samples + 2))),
        "memory_budget": draw(st.sampled_from([None, 1, 10**8])),
    }
    return model, x, y, cut


def near(found: torch.Tensor, truth: torch.Tensor, tolerance: float) -> None:
    """Every sample to a share of its own largest entry."""
    scale = truth.flatten(1).abs().amax(1).clamp(min=1e-300)
    assert ((found.double() - truth).flatten(1).abs().amax(1) <= tolerance * scale).all()


@SEARCH
@given(problem=problems(), dtype=st.sampled_from([torch.float64, torch.float32]))
@pytest.mark.survives("Input that nobody chose")
def test_exact_spectra(problem, dtype):
    """Exact input spectra of random piecewise-linear networks, images, numbers of classes and samples, chunk sizes,
    memory budgets, in both precisions: the eigenvalues of each sample's dense Hessian, at most c - 1, none negative."""
    model, x, y, cut = problem
    H = dense_hessians(model, x, y)
    truth = torch.linalg.eigvalsh(H).flip(1)
    found = inputs.input_spectrum(model.to(dtype), x.to(dtype), y, vectors=True, **cut)
    classes = model[-1].out_features
    columns = min(classes - 1, x[0].numel())
    assert found.method == "exact" and found.values.shape == (len(x), columns)
    assert (found.values >= 0).all() and (found.values.diff(dim=1) <= 0).all()
    near(found.values, truth[:, :columns], EXACT[dtype])
    V = found.vectors.flatten(2).double()
    assert (V @ V.mT - torch.eye(columns)).abs().max() < 1e-4
    near(H @ V.mT, V.mT * found.values[:, None, :], 100 * EXACT[dtype])


@SEARCH
@given(problem=problems(tuple(BENDS)), which=st.sampled_from(["LA", "SA", "LM"]), data=st.data())
def test_spectra_by_lanczos(problem, which, data):
    model, x, y, cut = problem
    values = torch.linalg.eigvalsh(dense_hessians(model, x, y)).flip(1)
    assume(bool((values.abs().amax(1) > 1e-10).all()))  # below that a Hessian may be the rounding of its terms
    by_size = values.gather(1, values.abs().argsort(1, descending=True))
    truth = {"LA": values, "SA": values.flip(1), "LM": by_size}[which]
    k = data.draw(st.integers(1, min(4, values.shape[1])))
    found = inputs.input_spectrum(
        model, x, y, k=k, which=which, method="lanczos", tol=1e-6, vectors=True, max_products=400, **cut
    )
    assert found.converged.all()
    found, truth = (v.abs() if which == "LM" else v for v in (found.values, truth[:, :k]))
    largest = values.abs().amax(1, keepdim=True)  # beside it, the wanted end may be nothing but rounding
    near(torch.cat([found, largest], 1), torch.cat([truth, largest], 1), 1e-5)


@SEARCH
@given(problem=problems(tuple(BENDS)), dtype=st.sampled_from([torch.float64, torch.float32]))
def test_products_gradients_and_directions(problem, dtype):
    model, x, y, cut = problem
    H, g = dense_hessians(model, x, y), dense_gradients(model, x, y)
    v = seeded(lambda: torch.randn_like(x))
    operator = InputHessian(model.to(dtype), x.to(dtype), y, **cut)
    product = (operator @ v.to(dtype)).double()
    size = H.flatten(1).norm(dim=1) * v.flatten(1).norm(dim=1)
    assert ((product.flatten(1) - (H @ v.flatten(1)[:, :, None])[:, :, 0]).norm(dim=1) <= EXACT[dtype] * size).all()
    near(operator.gradient().double().flatten(1), g, EXACT[dtype])


@SEARCH
@given(problem=problems(), damping=st.sampled_from([1e-2, 1.0]))
def test_damped_newton_directions_solve_their_system(problem, damping):
    model, x, y, cut = problem
    H, g = dense_hessians(model, x, y), dense_gradients(model, x, y)
    truth = torch.linalg.solve(H + damping * torch.eye(H.shape[1], dtype=torch.float64), g)
    found = inputs.newton_direction(model, x, y, damping=damping, **cut)
    assert found.shape == x.shape
    near(found.flatten(1), truth, 1e-9)


@SEARCH
@given(problem=problems(tuple(BENDS)), norm=st.sampled_from(["inf", "2"]))
def test_boundary_distances_are_the_least_over_the_other_classes(problem, norm):
    model, x, y, cut = problem
    model.eval()
    found = inputs.boundary_distance(model, x, y, norm=norm, **cut)
    for i, label in enumerate(y.tolist()):
        leaf = x[i : i + 1].clone().requires_grad_()
        logits = model(leaf)[0]
        ratios = []
        for k in set(range(len(logits))) - {label}:
            margin = logits[label] - logits[k]
            (slope,) = torch.autograd.grad(margin, leaf, retain_graph=True)
            length = slope.abs().sum() if norm == "inf" else slope.norm()
            # Without a slope no step crosses the boundary: infinitely far, on the side where the sample is.
            ratios.append((margin / length).item() if margin != 0 else 0.0)
        assert found[i].item() == pytest.approx(min(ratios), rel=1e-9)
