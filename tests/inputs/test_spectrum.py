"""Input spectra against dense Hessians and, where the probabilities saturate, against exact arithmetic."""

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
import torch
from torch import nn

import hbanalysis as hb
from hbanalysis import networks
from hbanalysis.errors import ConvergenceWarning, GeneralPathWarning, InputError
from hbanalysis.inputs import logit_jacobians
from hbanalysis.inputs.logits import LogitMap
from hbanalysis.inputs.softmax import softmax_curvature
from tests.input_nets import dense_gradients, dense_hessians, problem
from tests.oracles import close, seeded


@pytest.mark.parametrize("name", ["conv", "shortcut", "leaky", "linear"])
def test_values_and_vectors_are_those_of_the_dense_hessian(name):
    model, x, y = problem(name)
    H = dense_hessians(model, x, y)
    truth = torch.linalg.eigvalsh(H).flip(1)
    found = hb.input_spectrum(model, x, y, vectors=True, chunk_size=3)
    assert found.values.shape == (7, 3) and found.vectors.shape == (7, 3, 2, 6, 6)
    assert close(found.values, truth[:, :3], 1e-12)
    assert truth[:, 3:].abs().max() < 1e-13 * truth.max()  # what is not returned is zero
    V = found.vectors.flatten(2)
    assert (V @ V.mT - torch.eye(3)).abs().max() < 1e-12
    assert close(H @ V.mT, V.mT * found.values[:, None, :], 1e-12)
    assert (found.method, found.obstacle, found.residuals) == ("exact", None, None)
    assert found.converged.tolist() == [True] * 7 and found.converged.dtype == torch.bool


def test_vectors_point_uphill():
    model, x, y = problem()
    vectors = hb.input_spectrum(model, x, y, vectors=True).vectors.flatten(2)
    slopes = (vectors @ dense_gradients(model, x, y)[:, :, None])[:, :, 0]
    assert (slopes > 0).all()


def test_theorem_on_the_dense_hessian():
    """PSD and rank c - 1, which the exact path has by construction, are properties of autograd's own Hessian."""
    model, x, y = problem("shortcut", samples=12)
    values = torch.linalg.eigvalsh(dense_hessians(model, x, y)).flip(1)
    floor = 72 * torch.finfo(torch.float64).eps * values[:, :1]
    assert (values > -floor).all()
    assert ((values > floor).sum(1) == 3).all()


def reference(model, x, label):
    """p_y and both eigenvalues of a linear model with three classes, from its own numbers in exact arithmetic."""
    W, b = ([[Fraction(v) for v in row] for row in t.tolist()] for t in (model.weight, model.bias[:, None]))
    point = [Fraction(v) for v in x.tolist()]
    with localcontext() as context:
        context.prec = 1500
        logits = [
            sum((w * v for w, v in zip(row, point, strict=True)), bias[0]) for row, bias in zip(W, b, strict=True)
        ]
        top = max(logits)
        weights = [(Decimal((z - top).numerator) / Decimal((z - top).denominator)).exp() for z in logits]
        p = [w / sum(weights) for w in weights]
        i, j = (k for k in range(3) if k != label)
        rows = [[W[k][a] - W[label][a] for a in range(len(point))] for k in (i, j)]
        gram = [
            sum((a * b for a, b in zip(rows[s], rows[t], strict=True)), Fraction(0))
            for s, t in ((0, 0), (0, 1), (1, 1))
        ]
        kii, kij, kjj = (Decimal(g.numerator) / Decimal(g.denominator) for g in gram)
        aii, aij, ajj = p[i] * (1 - p[i]), -p[i] * p[j], p[j] * (1 - p[j])
        trace = aii * kii + 2 * aij * kij + ajj * kjj
        determinant = (aii * ajj - aij * aij) * (kii * kjj - kij * kij)
        first = (trace + (trace * trace - 4 * determinant).sqrt()) / 2
        return float(p[label]), float(first), float(determinant / first)


SATURATED = {
    "right, 1 - p_y about 1e-20": (46.0, 0.0, 0.0),
    "right, 1e-40 beside 1e-9": (20.0, -70.0, 0.0),
    "right, below float32": (460.0, 0.0, -30.0),
    "wrong, p_y about 1e-20": (0.0, 46.0, 0.0),
    "wrong, p_y about 1e-33": (0.0, -60.0, 70.0),
    "wrong, below float32": (0.0, 300.0, -40.0),
    "torn between two wrong classes": (0.0, 46.0, 45.9),
    "undecided": (0.0, 0.3, -0.2),
}


@pytest.mark.parametrize("name", SATURATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_relative_accuracy_survives_saturation(name, dtype):
    model = seeded(lambda: nn.Linear(6, 3)).to(dtype)
    x = seeded(lambda: torch.randn(1, 6, dtype=dtype))
    with torch.no_grad():
        model.bias.copy_(torch.tensor(SATURATED[name]))
    found = hb.input_spectrum(model, x, torch.tensor([0]))
    _, first, second = reference(model, x[0], 0)
    size = max(model.bias.abs().max().item(), 1.0)
    tolerance = 4 * size * torch.finfo(dtype).eps  # the rounding of logits of this size
    assert found.dtype == torch.float64
    assert found[0].tolist() == pytest.approx([first, second], rel=tolerance, abs=0)


def test_a_saturated_float32_network_keeps_the_curvature_of_its_float64_twin():
    model, x, y = problem()
    with torch.no_grad():
        model[-1].weight *= 60
        model[-1].bias *= 60
    truth = torch.linalg.eigvalsh(dense_hessians(model, x, y)).flip(1)[:, 0]
    doubts = 1 - torch.softmax(model.eval()(x), 1).gather(1, y[:, None])[:, 0]
    assert truth.min() < 1e-8 and doubts.max() > 0.999  # both kinds are there
    found = hb.input_spectrum(model.float(), x.float(), y)[:, 0]
    assert found.tolist() == pytest.approx(truth.tolist(), rel=1e-3)


def test_factor_is_that_of_the_softmax_hessian():
    relative = seeded(lambda: 4 * torch.randn(9, 5, dtype=torch.float64))
    curvature = softmax_curvature(relative)
    q = torch.softmax(nn.functional.pad(relative, (0, 1)), 1)[:, :-1]
    A = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    C = curvature.factor * (curvature.scale / 2).exp()[:, None, None]
    assert close(C @ C.mT, A, 1e-14)
    pulled = curvature.pulled * curvature.pulled_scale.exp()[:, None]
    assert close((C @ pulled[:, :, None])[:, :, 0], q, 1e-13)
    assert (curvature.pulled > 0).all()


@pytest.mark.survives("Determinism")
def test_chunks_batches_and_budgets_change_nothing():
    """Input spectra do not depend on chunk size, memory budget or the other samples, to 1e-12."""
    model, x, y = problem("shortcut")
    whole = hb.input_spectrum(model, x, y)
    for settings in ({"chunk_size": 1}, {"chunk_size": 3}, {"memory_budget": 1}, {"memory_budget": 10**9}):
        assert close(hb.input_spectrum(model, x, y, **settings), whole, 1e-12)
    order = torch.tensor([4, 0, 6])
    assert close(hb.input_spectrum(model, x[order], y[order]), whole[order], 1e-12)


def test_k_cuts_and_fewer_inputs_than_classes():
    model, x, y = problem()
    assert torch.equal(hb.input_spectrum(model, x, y, k=1), hb.input_spectrum(model, x, y)[:, :1])
    narrow, points = seeded(lambda: nn.Linear(2, 5)).double(), torch.randn(6, 2, dtype=torch.float64)
    found = hb.input_spectrum(narrow, points, torch.arange(6) % 5, vectors=True)
    truth = torch.linalg.eigvalsh(dense_hessians(narrow, points, torch.arange(6) % 5)).flip(1)
    assert found.values.shape == (6, 2) and close(found.values, truth, 1e-12)


def test_channels_last_is_taken_where_the_model_allows():
    """A model that flattens by view cannot take it; both give the same."""

    class Viewing(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.features, self.head = inner[:4], inner[5:]

        def forward(self, x):
            h = self.features(x)
            return self.head(h.view(len(h), -1))

    model, x, y = problem()
    viewing = Viewing(model)
    taken = [LogitMap(net, x, y).piece(slice(0, 3)).inputs.stride() for net in (model, viewing)]
    assert taken == [(72, 1, 12, 2), (72, 36, 6, 1)]
    assert close(hb.input_spectrum(viewing, x, y), hb.input_spectrum(model, x, y), 1e-12)


def test_models_that_write_into_their_inputs_and_wrapped_ones():
    class Normalising(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x.sub_(0.5).div_(0.25))

    model, x, y = problem()
    before = x.clone()
    writing, plain = Normalising(model), hb.input_spectrum(model, (x - 0.5) / 0.25, y) * 16
    assert close(hb.input_spectrum(writing, x, y), plain, 1e-12) and torch.equal(x, before)
    assert close(hb.input_spectrum(nn.DataParallel(writing), x, y), plain, 1e-12)


def test_the_papers_networks_and_a_hundred_classes_in_bounded_memory():
    x, y = seeded(lambda: torch.rand(3, 3, 32, 32)), torch.tensor([0, 50, 99])
    model = networks.build("C3", classes=100)
    found = hb.input_spectrum(model, x, y, memory_budget=20_000_000)
    assert found.shape == (3, 99) and (found >= 0).all() and (found.diff(dim=1) <= 0).all()
    H = hb.InputHessian(model.double(), x.double(), y)
    pairs = hb.input_spectrum(model, x.double(), y, vectors=True, k=2)
    assert close(H @ pairs.vectors, pairs.values[:, :, None, None, None] * pairs.vectors, 1e-10)
    assert close(found[:, :2], pairs.values, 1e-4)


def test_general_path_says_why_and_is_right():
    model, x, y = problem("softplus", samples=4)
    truth = torch.linalg.eigvalsh(dense_hessians(model, x, y))
    with pytest.warns(GeneralPathWarning, match="because of softplus"):
        values = hb.input_spectrum(model, x, y)
    assert close(values, truth.flip(1)[:, :3], 1e-6)
    lowest = hb.input_spectrum(model, x, y, method="lanczos", which="SA", k=2, vectors=True)
    assert close(lowest.values, truth[:, :2], 1e-6)
    assert truth[:, 0].min() < -1e-4  # not PSD: the theorem ends here
    assert (lowest.method, lowest.obstacle) == ("lanczos", "softplus") and bool(lowest.converged.all())
    by_size = truth.gather(1, truth.abs().argsort(dim=1, descending=True))
    assert close(hb.input_spectrum(model, x, y, method="lanczos", which="LM", k=3), by_size[:, :3], 1e-6)


def test_lanczos_does_not_depend_on_the_batch_and_reports_what_it_missed():
    model, x, y = problem("softplus", samples=4)
    whole = hb.input_spectrum(model, x, y, method="lanczos", k=2)
    alone = hb.input_spectrum(model, x[2:3], y[2:3], method="lanczos", k=2, chunk_size=1)
    assert close(alone, whole[2:3], 1e-9)
    with pytest.warns(ConvergenceWarning, match="after 3 products before the residuals of 4 of 4"):
        early = hb.input_spectrum(model, x, y, method="lanczos", k=2, max_products=3, vectors=True)
    assert not early.converged.any()
    H = dense_hessians(model, x, y)
    V = early.vectors.flatten(2)
    residuals = (H @ V.mT - V.mT * early.values[:, None, :]).norm(dim=1)
    assert torch.allclose(residuals, early.residuals, rtol=1e-6)


def test_lanczos_on_a_piecewise_linear_network_finds_the_exact_values_and_then_zeros():
    model, x, y = problem(samples=3)
    found = hb.input_spectrum(model, x, y, method="lanczos", k=6)
    assert close(found[:, :3], hb.input_spectrum(model, x, y), 1e-10)
    assert found[:, 3:].abs().max() < 1e-10 * found.max()


def test_works_and_leaves_the_model_as_it_was_inside_inference_mode():
    model, x, y = problem()
    truth = hb.input_spectrum(model, x, y)
    model[1].eval()
    modes, buffers = [m.training for m in model.modules()], [b.clone() for b in model.buffers()]
    model[0].weight.requires_grad_(False)
    state = torch.get_rng_state()
    with torch.inference_mode():
        assert close(hb.input_spectrum(model, x.clone(), y.clone()), truth, 1e-13)
    with torch.no_grad():
        assert close(hb.input_spectrum(model, x.clone().requires_grad_(), y), truth, 1e-13)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), buffers, strict=True))
    assert all(p.grad is None for p in model.parameters()) and not model[0].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_one_pass_gives_everything():
    model, x, y = problem()
    H, g = dense_hessians(model, x, y), dense_gradients(model, x, y)
    v = seeded(lambda: torch.randn_like(x))
    products = (H @ v.flatten(1)[:, :, None])[:, :, 0].reshape(x.shape)
    for part in logit_jacobians(model, x, y, chunk_size=3):
        which = slice(part.first, part.first + len(part))
        assert close(part.gradient().flatten(1), g[which], 1e-12)
        assert close(part.gradient_norms(), g[which].norm(dim=1), 1e-12)
        assert close(part.gradient(normalized=True).flatten(1), g[which] / g[which].norm(dim=1, keepdim=True), 1e-12)
        assert close(part.multiply(v[which]), products[which], 1e-12)
        assert close(part.eigenvalues(), torch.linalg.eigvalsh(H[which]).flip(1)[:, :3], 1e-12)
        assert part.ranks().tolist() == [3] * len(part)


def test_any_network_gives_the_gauss_newton_part():
    model, x, y = problem("softplus", samples=2)
    with pytest.raises(InputError, match="because of softplus"):
        logit_jacobians(model, x, y)
    (part,) = logit_jacobians(model, x, y, any_network=True)
    assert close(part.gradient().flatten(1), dense_gradients(model, x, y), 1e-12)
    J = torch.autograd.functional.jacobian(lambda a: model.eval()(a).sum(0), x).permute(1, 0, 2, 3, 4).flatten(2)
    p = model(x).softmax(1).detach()
    A = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    assert close(part.eigenvalues(), torch.linalg.eigvalsh(J.mT @ A @ J).flip(1)[:, :3], 1e-11)
