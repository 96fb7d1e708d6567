"""Newton directions against dense pseudo-inverses and solves; boundary distances against linear programmes' answers."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn

import hbanalysis as hb
from hbanalysis.errors import InputError, NumericalError, RankWarning
from hbanalysis.inputs import logit_jacobians
from tests.input_nets import dense_gradients, dense_hessians, problem
from tests.oracles import close, seeded


@pytest.mark.parametrize("name", ["conv", "shortcut", "linear"])
def test_direction_is_the_pseudo_inverse_times_the_gradient(name):
    model, x, y = problem(name)
    H, g = dense_hessians(model, x, y), dense_gradients(model, x, y)
    truth = (torch.linalg.pinv(H, rtol=1e-10, hermitian=True) @ g[:, :, None])[:, :, 0]
    found = hb.newton_direction(model, x, y, chunk_size=3)
    assert found.shape == x.shape and close(found.flatten(1), truth, 1e-9)
    assert ((found.flatten(1) * g).sum(1) > 0).all()  # uphill
    unit = hb.newton_direction(model, x, y, normalized=True).flatten(1)
    assert close(unit, truth / truth.norm(dim=1, keepdim=True), 1e-9)


@pytest.mark.parametrize("damping", [1e-6, 1e-2, 1.0, 1e3])
def test_damped_direction_solves_the_system(damping):
    model, x, y = problem()
    H, g = dense_hessians(model, x, y), dense_gradients(model, x, y)
    truth = torch.linalg.solve(H + damping * torch.eye(72, dtype=torch.float64), g)
    found = hb.newton_direction(model, x, y, damping=damping)
    assert close(found.flatten(1), truth, 1e-9)
    unit = hb.newton_direction(model, x, y, damping=damping, normalized=True).flatten(1)
    assert close(unit, truth / truth.norm(dim=1, keepdim=True), 1e-9)


def linear(bias, dtype=torch.float64, inputs=5):
    model = seeded(lambda: nn.Linear(inputs, 3)).to(dtype)
    with torch.no_grad():
        model.bias.copy_(torch.tensor(bias))
    return model


def raising_both(model):
    """The shortest step that raises the logits of classes 1 and 2 by one over that of class 0."""
    rows = (model.weight[1:] - model.weight[:1]).detach().double()
    return torch.linalg.pinv(rows).sum(1)


def exactly_solved(H, g):
    """The solution of a regular system of Decimals, by elimination."""
    rows = [[*row, value] for row, value in zip(H, g, strict=True)]
    for k in range(len(rows)):
        pivot = max(range(k, len(rows)), key=lambda i, k=k: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        for i in range(len(rows)):
            if i != k:
                factor = rows[i][k] / rows[k][k]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[k], strict=True)]
    return [row[-1] / row[k] for k, row in enumerate(rows)]


def exact_direction(rows, relative, damping):
    """(H + damping I)^+ g in 250 digits from R and the relative logits, of full row or column rank, and g."""
    with localcontext() as context:
        context.prec = 250
        R = [[Decimal(value) for value in row] for row in rows.tolist()]
        weights = [Decimal(value).exp() for value in relative.tolist()]
        total = 1 + sum(weights)
        q = [weight / total for weight in weights]
        m, d = len(R), len(R[0])
        g = [sum(q[k] * R[k][a] for k in range(m)) for a in range(d)]
        if damping == 0 and d > m:  # R R^T w = 1 / p_y, and the direction R^T w
            gram = [[sum(a * b for a, b in zip(R[i], R[j], strict=True)) for j in range(m)] for i in range(m)]
            w = exactly_solved(gram, [total] * m)
            return [sum(w[k] * R[k][a] for k in range(m)) for a in range(d)], g
        H = [
            [
                sum(q[k] * R[k][a] * R[k][b] for k in range(m)) - g[a] * g[b] + (a == b) * Decimal(damping)
                for b in range(d)
            ]
            for a in range(d)
        ]
        return exactly_solved(H, g), g


def behind(classes, inputs, gap, spread=1.0, seed=0):
    """A linear model whose label lies so many nats behind, at the origin, and its relative rows and logits."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor([classes - 1])
    model = nn.Linear(inputs, classes).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, inputs, generator=generator))
        model.bias.copy_(spread * torch.randn(classes, generator=generator))
        model.bias[-1] -= gap
        rows, relative = model.weight[:-1] - model.weight[-1], model.bias[:-1] - model.bias[-1]
    return model, torch.zeros(1, inputs, dtype=torch.float64), label, rows, relative


@pytest.mark.filterwarnings("ignore:The gradients of the relative logits:hbanalysis.errors.RankWarning")
@pytest.mark.parametrize(("classes", "inputs"), [(3, 1), (6, 2), (5, 3), (5, 8), (2, 3)])
@pytest.mark.parametrize("gap", [0, 30, 40, 70, 140, -70])
def test_directions_are_right_however_improbable_the_label(classes, inputs, gap):
    """With and without rank, damped and not, with the other classes close together or far apart."""
    for spread in (1.0, 20.0):
        model, x, y, rows, relative = behind(classes, inputs, gap, spread)
        for damping in (0, 1e-6, 1.0, 1e3):
            exact, _ = exact_direction(rows, relative, damping)
            truth = torch.tensor([float(value) for value in exact], dtype=torch.float64)
            found = hb.newton_direction(model, x, y, damping=damping)[0]
            assert close(found, truth, 1e-12), (spread, damping)


def test_a_lead_of_thousands_of_nats_keeps_the_direction():
    """Whatever p_y is then, its square root underflows; the damped direction is that of its limit p_y = 0."""
    model, x, y, rows, relative = behind(5, 3, 4000)
    q = torch.softmax(relative, 0)
    H, g = rows.T @ (torch.diag(q) - q[:, None] * q) @ rows, rows.T @ q
    for damping in (1e-3, 1.0):
        truth = torch.linalg.solve(H + damping * torch.eye(3, dtype=torch.float64), g)
        assert close(hb.newton_direction(model, x, y, damping=damping)[0], truth, 1e-9)
    with pytest.warns(RankWarning):
        assert close(hb.newton_direction(model, x, y)[0], torch.linalg.solve(H, g), 1e-9)


def test_a_direction_that_is_lost_is_said():
    """Of three dependent rows the two smaller ones have no weight in float64."""
    model, x, y, _, _ = behind(4, 2, 0)
    with torch.no_grad():
        model.bias.copy_(torch.tensor([-1500.0, -3500.0, -3000.0, 0.0]))
    with pytest.raises(NumericalError, match="Use a positive damping"):
        hb.newton_direction(model, x, y, normalized=True)


@pytest.mark.parametrize("gap", [40, 70, 140, -40])
def test_eigenvectors_point_uphill_however_improbable_the_label(gap):
    """All slopes here exceed 1e-6 of the gradient, so that their signs are certain."""
    for seed in range(5):
        model, x, y, rows, relative = behind(5, 8, gap, seed=seed)
        _, exact = exact_direction(rows, relative, 1)
        g = torch.tensor([float(value * Decimal(max(-gap, 0)).exp()) for value in exact], dtype=torch.float64)
        slopes = next(logit_jacobians(model, x, y)).eigenpairs()[1][0] @ g
        certain = slopes.abs() > 1e-6 * g.norm()
        assert certain.sum() >= 3 and (slopes[certain] > 0).all()


@pytest.mark.parametrize("inputs", [64, 3072, 150_528])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_rank_does_not_depend_on_the_number_of_inputs(inputs, dtype):
    """Ten logits from four: dependent to rounding. A row that is another one but for 1 % is not."""
    bottleneck = seeded(lambda: nn.Sequential(nn.Linear(inputs, 4), nn.Linear(4, 10))).to(dtype)
    x = seeded(lambda: torch.rand(2, inputs, dtype=dtype))
    assert next(logit_jacobians(bottleneck, x, torch.tensor([0, 3]))).ranks().tolist() == [4, 4]
    near = seeded(lambda: nn.Linear(inputs, 4)).to(dtype)
    with torch.no_grad():
        noise = seeded(lambda: torch.randn(inputs, dtype=dtype)) * near.weight[0].std()
        near.weight[3] = near.weight[0] + 0.01 * noise
        rows = (near.weight[[0, 1, 3]] - near.weight[2]).double()
    found = hb.newton_direction(near, x[:1], torch.tensor([2]), normalized=True)[0].double()
    truth = rows.T @ torch.linalg.solve(rows @ rows.T, torch.ones(3, dtype=torch.float64))
    assert close(found, truth / truth.norm(), 1e-3 if dtype == torch.float32 else 1e-9)


@pytest.mark.parametrize("bias", [(46.0, 0.0, -9.0), (0.0, 46.0, -30.0), (0.0, 300.0, -340.0), (800.0, 0.0, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_direction_does_not_depend_on_the_probabilities(bias, dtype):
    model, x = linear(bias, dtype), torch.zeros(1, 5, dtype=dtype)
    truth = raising_both(model)
    found = hb.newton_direction(model, x, torch.tensor([0]), normalized=True)[0].double()
    assert close(found, truth / truth.norm(), 50 * torch.finfo(dtype).eps)
    gradient = next(logit_jacobians(model, x, torch.tensor([0]))).gradient(normalized=True)[0]
    assert gradient.norm().item() == pytest.approx(1, rel=1e-6)  # no underflow either


def test_length_grows_with_one_over_p_and_its_overflow_is_said():
    x, y = torch.zeros(2, 5), torch.tensor([1, 0])
    model = linear((0.0, 46.0, 0.0), torch.float32)
    found = hb.newton_direction(model, x, y)[1].double()
    assert close(found, raising_both(model) * (math.exp(46) + 2), 1e-5)
    with pytest.raises(NumericalError, match="sample 1 is too long for torch.float32.*1e-43.*normalized=True"):
        hb.newton_direction(linear((0.0, 100.0, 0.0), torch.float32), x, y)


@pytest.mark.parametrize("bias", [(46.0, 0.0, -9.0), (0.0, 300.0, -340.0), (900.0, 0.0, 1.0), (0.0, 0.2, 0.1)])
def test_strong_damping_gives_the_gradient_and_weak_damping_the_undamped_direction(bias):
    model, x, y = linear(bias), torch.zeros(1, 5, dtype=torch.float64), torch.tensor([0])
    (part,) = logit_jacobians(model, x, y)
    strong = hb.newton_direction(model, x, y, damping=1e6, normalized=True)
    assert close(strong, part.gradient(normalized=True), 1e-5)
    if bias[0] < 900:  # there H itself lies below what float64 holds
        smallest = part.eigenvalues()[0, -1].item()
        weak = hb.newton_direction(model, x, y, damping=1e-9 * smallest, normalized=True)
        assert close(weak, hb.newton_direction(model, x, y, normalized=True), 1e-6)


def test_a_lack_of_rank_is_said_and_solved_by_least_squares():
    """Two logits that move together up to a constant, and fewer inputs than relative logits."""
    twins = seeded(lambda: nn.Linear(5, 4)).double()
    with torch.no_grad():
        twins.weight[2] = twins.weight[1]
    narrow = seeded(lambda: nn.Linear(2, 5)).double()
    for model, inputs, rank in ((twins, 5, 2), (narrow, 2, 2)):
        x, y = seeded(lambda n=inputs: torch.randn(6, n, dtype=torch.float64)), torch.zeros(6, dtype=torch.long)
        H, g = dense_hessians(model, x, y), dense_gradients(model, x, y)
        truth = (torch.linalg.pinv(H, rtol=1e-10, hermitian=True) @ g[:, :, None])[:, :, 0]
        with pytest.warns(RankWarning, match=rf"for 6 of 6 samples \(sample 0: rank {rank}\)"):
            found = hb.newton_direction(model, x, y)
        assert close(found, truth, 1e-9)
        damped = hb.newton_direction(model, x, y, damping=0.1)  # regular: no warning
        assert close(damped, torch.linalg.solve(H + 0.1 * torch.eye(inputs, dtype=torch.float64), g), 1e-10)
        assert next(logit_jacobians(model, x, y)).ranks().tolist() == [rank] * 6


def test_the_tolerance_decides_which_singular_values_count():
    """Rows of size 1 and 1e-3: with a tolerance of 1e-2 the small one is taken for zero."""
    model = nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1e-3, 0, 0]], dtype=torch.float64))
    x, y = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([0])
    (part,) = logit_jacobians(model, x, y)
    assert part.ranks().tolist() == [2] and part.ranks(1e-2).tolist() == [1]
    assert close(part.newton_direction(), torch.tensor([[3.0, 3e3, 0, 0]], dtype=torch.float64), 1e-9)
    coarse = part.newton_direction(rtol=1e-2)[0]
    assert abs(coarse[1]) < 1e-9 and coarse[0] > 0.1


def test_rank_is_that_of_the_jacobian_however_saturated_the_probabilities():
    model = linear((0.0, 300.0, -340.0))
    (part,) = logit_jacobians(model, torch.zeros(1, 5, dtype=torch.float64), torch.tensor([0]))
    assert part.eigenvalues()[0, 1] < 1e-100 * part.eigenvalues()[0, 0]
    assert part.ranks().tolist() == [2]


def test_a_dead_network_has_direction_zero():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    x, y = torch.rand(2, 4, dtype=torch.float64), torch.tensor([0, 1])
    for settings in ({}, {"damping": 0.1}, {"normalized": True}, {"damping": 0.1, "normalized": True}):
        if "damping" in settings:
            assert not hb.newton_direction(model, x, y, **settings).any()
        else:
            with pytest.warns(RankWarning, match="rank 0"):
                assert not hb.newton_direction(model, x, y, **settings).any()
    assert not hb.input_spectrum(model, x, y).any()
    with torch.no_grad():
        model[2].bias.copy_(torch.tensor([0.0, -5.0, 1000.0]))  # and 1 / p_y overflows
    with pytest.warns(RankWarning, match="rank 0"):
        assert not hb.newton_direction(model, x, y).any()


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_boundary_distance_of_a_linear_model_is_reached_and_not_undercut(norm):
    model, x, y = problem("linear", samples=20)
    y = model(x).argmax(1)
    y[0] = (y[0] + 1) % 4  # one misclassified sample
    found = hb.boundary_distance(model, x, y, norm=norm, chunk_size=6)
    assert found.dtype == torch.float64 and found[0] < 0 and (found[1:] > 0).all()
    W = model[1].weight.detach()
    for i in range(1, 20):
        crossing = []
        for k in set(range(4)) - {int(y[i])}:
            slope = W[k] - W[y[i]]
            step = slope.sign() if norm == "inf" else slope / slope.norm()
            margin = lambda t, k=k, i=i, step=step: (  # noqa: E731
                lambda z: (z[y[i]] - z[k]).item()
            )(model((x[i].flatten() + t * step).reshape(1, 2, 6, 6))[0])
            assert margin(0.999 * found[i]) > 0
            crossing.append(margin(1.001 * found[i]) < 0)
        assert any(crossing)


def test_boundary_distance_of_any_network_where_there_is_no_slope():
    flat = nn.Linear(3, 2)
    with torch.no_grad():
        flat.weight.zero_()
        flat.bias.copy_(torch.tensor([1.0, 0.0]))
    assert hb.boundary_distance(flat, torch.rand(2, 3), torch.tensor([0, 1])).tolist() == [math.inf, -math.inf]
    with torch.no_grad():
        flat.bias.fill_(1.0)
    assert hb.boundary_distance(flat, torch.rand(2, 3), torch.tensor([0, 1])).tolist() == [0.0, 0.0]  # on the boundary
    model, x, y = problem("softplus")
    assert hb.boundary_distance(model, x, y).isfinite().all()


def test_results_follow_the_inputs():
    model, x, y = problem()
    found = hb.newton_direction(model, x.float(), y)
    assert found.dtype == torch.float32 and close(found.double(), hb.newton_direction(model, x, y), 1e-4)


def test_bad_input_is_named():
    model, x, y = problem()
    cases = [
        (lambda: hb.newton_direction(model, x, y, damping=-1.0), "damping is finite and not negative; given -1.0"),
        (lambda: hb.newton_direction(model, x, y, damping=math.inf), "given inf"),
        (lambda: hb.newton_direction(model, x, y + 3), "label 4 of sample 1"),
        (lambda: hb.boundary_distance(model, x, y, norm="1"), "norm is 'inf' or '2'; given '1'"),
        (lambda: hb.boundary_distance(model, x.long(), y), "given torch.int64"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()
