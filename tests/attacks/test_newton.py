"""FHSM and L2HESS against dense float64 Hessians; conjugate gradients against dense solves and Krylov projections."""

import math

import pytest
import torch
from torch import nn

from hbanalysis import attacks
from hbanalysis.attacks.conjugate_gradients import conjugate_gradients
from hbanalysis.attacks.gradients import Curvature, log_odds
from tests.attack_nets import convolutional, cosines, digits, gradients, hardly_trained, hessians, linear
from tests.oracles import seeded


def krylov_solution(H, g, steps):
    """What so many iterations give in exact arithmetic: the solution of the system projected on span(g, Hg, ...)."""
    basis = [g / g.norm()]
    for _ in range(steps - 1):
        v = H @ basis[-1]
        for _ in range(2):
            for q in basis:
                v = v - (q @ v) * q
        basis.append(v / v.norm())
    Q = torch.stack(basis, 1)
    return Q @ torch.linalg.solve(Q.T @ H @ Q, Q.T @ g)


def directions(model, x, y, **choices):
    """The unit directions of L2HESS."""
    return attacks.l2_hess(model, x, y, 1.0, clip=None, **choices) - x


@pytest.mark.parametrize("net", [digits, convolutional])
def test_one_iteration_is_the_gradient_attack(net):
    model, x, y = net()
    assert torch.equal(attacks.fhsm(model, x, y, 0.1, iterations=1), attacks.fgsm(model, x, y, 0.1))
    assert torch.allclose(
        attacks.l2_hess(model, x, y, 0.7, iterations=1), attacks.l2_grad(model, x, y, 0.7), atol=1e-14
    )


@pytest.mark.parametrize("net", [hardly_trained, convolutional])
def test_run_to_the_rank_it_is_the_newton_direction(net):
    """The pseudo-inverse is that of the dense Hessian; systems worse than 1e7 have no dense answer to compare with."""
    model, x, y = net()
    H, g = hessians(model, x, y), gradients(model, x, y).flatten(1)
    classes = model(x).shape[1]
    values = torch.linalg.eigvalsh(H).flip(1)
    regular = values[:, 0] < 1e7 * values[:, classes - 2]
    assert (values[:, classes - 1] < 1e-9 * values[:, 0]).all() and regular.sum() >= 8
    d = torch.einsum("nij,nj->ni", torch.linalg.pinv(H, rtol=1e-9, hermitian=True), g)
    found = conjugate_gradients(_dense_product(H, x), g.reshape(x.shape), iterations=classes - 1, tolerance=0.0)
    assert cosines(found, d)[regular].min() > 1 - 1e-9
    by_attack = directions(model, x, y, iterations=classes - 1)
    residual = (torch.einsum("nij,nj->ni", H, found.flatten(1)) - g).norm(dim=1) / g.norm(dim=1)
    assert residual[regular].max() < 1e-6
    assert cosines(by_attack, d)[regular].median() > 0.99


def test_few_class_newton_direction_in_closed_form():
    """With full row rank H^+ g = R^+ 1 / p_y: all other logits gain the same on the label's, whatever p is."""
    weight = seeded(lambda: torch.randn(4, 9)).double()
    model, x, y = linear(weight, [3.0, 0.0, -1.0, 0.5]), torch.rand(5, 9, dtype=torch.float64), torch.tensor([0] * 5)
    rows = weight[1:] - weight[0]
    exact = torch.linalg.lstsq(rows, torch.ones(3, 1, dtype=torch.float64)).solution[:, 0]
    found = directions(model, x, y, iterations=9)
    assert cosines(found, exact.expand(5, 9)).min() > 1 - 1e-7
    gained = found @ rows.T
    assert (gained.std(1) < 1e-3 * gained.mean(1)).all()


@pytest.mark.parametrize("iterations", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_iterates_are_those_of_exact_arithmetic(iterations, dtype):
    """In float32 as well, which plain conjugate gradients miss on every tenth sample from the fourth iterate on."""
    model, x, y = digits(dtype)
    wide, exact_x, _ = digits()
    H, g = hessians(wide, exact_x, y), gradients(wide, exact_x, y)
    found = directions(model, x, y, iterations=iterations).double()
    checked = 0
    for i in range(len(x)):
        expected = krylov_solution(H[i], g[i], iterations)
        before = krylov_solution(H[i], g[i], iterations - 1)
        if ((H[i] @ before - g[i]).norm() / g[i].norm()) > 1.1e-4:  # else it stopped before
            checked += 1
            assert cosines(found[i][None], expected[None]).item() > 1 - (1e-10 if dtype == torch.float64 else 1e-5)
    assert checked >= 20


@pytest.mark.parametrize("damping", [1e-12, 1e-4, 1.0, 1e6])
@pytest.mark.parametrize("softmax", ["relative", "plain"])
def test_damping_is_in_units_of_the_curvature(damping, softmax):
    model, x, y = digits()
    H, g = hessians(model, x, y), gradients(model, x, y)
    shifted = H + damping * torch.eye(16, dtype=torch.float64)
    exact = torch.linalg.solve(shifted, g)
    found = directions(model, x, y, iterations=16, damping=damping, softmax=softmax)
    residual = torch.einsum("nij,nj->ni", shifted, found)
    scale = (residual * g).sum(1) / residual.square().sum(1)
    assert ((scale[:, None] * residual - g).norm(dim=1) / g.norm(dim=1)).max() < 1.1e-4
    if damping >= 1:
        assert cosines(found, exact).min() > 0.99


def test_damping_of_a_saturated_sample_does_not_overflow():
    """1 - p_y is 1e-30 and the damping 1: the direction is the gradient's, though their ratio is no float32 number."""
    w = torch.tensor([[1.0, -2.0], [3.0, 1.0], [0.0, 0.5]])
    x, y = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    for gap in (69.0, 200.0):
        model = linear(w, [gap, 0.0, 0.0], torch.float32)
        found = attacks.l2_hess(model, x, y, 0.1, damping=1.0)
        assert torch.allclose(found, attacks.l2_grad(model, x, y, 0.1), atol=1e-7)


def test_log_odds_are_those_of_the_softmax_and_never_underflow():
    z = seeded(lambda: torch.randn(50, 7, dtype=torch.float64))
    y = torch.arange(50) % 7
    p = z.softmax(1).gather(1, y[:, None])[:, 0]
    assert torch.allclose(log_odds(z, y), torch.log((1 - p) / p), atol=1e-12)
    sure = torch.tensor([[1e4, 1.0, 1.0]], requires_grad=True)
    odds = log_odds(sure, torch.tensor([0]))
    assert odds.item() == pytest.approx(1.0 - 1e4 + math.log(2), rel=1e-7)
    assert torch.autograd.grad(odds.sum(), sure)[0].tolist() == [[-1.0, 0.5, 0.5]]


@pytest.mark.parametrize("gap", [20.0, 60.0, 300.0, 1e4])
def test_the_direction_of_a_saturated_sample_does_not_depend_on_how_sure_it_is(gap):
    weight = seeded(lambda: torch.randn(4, 9))
    x, y = torch.full((1, 9), 0.5), torch.tensor([0])
    rows = (weight[1:] - weight[0]).double()
    exact = torch.linalg.lstsq(rows, torch.ones(3, 1, dtype=torch.float64)).solution[:, 0]
    found = directions(linear(weight, [gap, 0.0, 0.0, 0.0], torch.float32), x, y, iterations=3)
    assert cosines(found, exact[None]).item() > 1 - 1e-4


def test_curvature_products_are_those_of_the_dense_hessian():
    model, x, y = digits()
    H, g = hessians(model, x, y), gradients(model, x, y)
    doubt = 1 - model(x).softmax(1).gather(1, y[:, None])
    v = seeded(lambda: torch.randn(60, 16)).double()
    plain, relative = (Curvature(model, x, y, softmax, 0.0) for softmax in ("plain", "relative"))
    truth = torch.einsum("nij,nj->ni", H, v)
    assert torch.allclose(plain.gradient, g, atol=1e-13)
    assert torch.allclose(plain.multiply(v), truth, atol=1e-11)
    assert torch.allclose(relative.gradient * doubt, g, atol=1e-12)
    assert torch.allclose(relative.multiply(v) * doubt, truth, atol=1e-9)


def test_smooth_networks_are_attacked_too():
    """With Softplus the Hessian has negative eigenvalues; the direction still ascends."""
    model = seeded(lambda: nn.Sequential(nn.Linear(6, 12), nn.Softplus(5), nn.Linear(12, 4))).double()
    x, y = seeded(lambda: (torch.rand(30, 6), torch.randint(0, 4, (30,))))
    x = x.double()
    H, g = hessians(model, x, y), gradients(model, x, y)
    assert (torch.linalg.eigvalsh(H)[:, 0] < 0).any()
    for iterations in (1, 3, 6, 20):
        assert (directions(model, x, y, iterations=iterations) * g).sum(1).min() > 0


def test_more_iterations_make_the_attacks_weaker():
    """The paper's FHSM and L2HESS are weaker than FGSM and L2GRAD; how much is the number of iterations."""
    model, x, y = digits(samples=300)
    reached = [
        attacks.gradients.margins(model(attacks.l2_hess(model, x, y, 0.5, iterations=k)), y).mean().item()
        for k in (1, 3, 9)
    ]
    assert reached[0] > reached[1] + 0.1 > reached[2]


def test_conjugate_gradients_solve_systems_of_known_spectrum():
    Q = torch.linalg.qr(seeded(lambda: torch.randn(3, 8, 8)).double()).Q
    spectra = torch.tensor([[5.0, 3, 2, 1, 0, 0, 0, 0], [1e6, 1e3, 1, 1, 1, 0, 0, 0], [1.0] * 8], dtype=torch.float64)
    A = Q @ torch.diag_embed(spectra) @ Q.mT
    b = torch.einsum("nij,nj->ni", A, seeded(lambda: torch.randn(3, 8)).double())
    calls = []

    def multiply(v):
        calls.append(1)
        return torch.einsum("nij,nj->ni", A, v)

    found = conjugate_gradients(multiply, b, 50, tolerance=1e-10)
    assert (torch.einsum("nij,nj->ni", A, found) - b).norm(dim=1).div(b.norm(dim=1)).max() < 1e-9
    assert len(calls) <= 5
    assert torch.allclose(found[2], b[2])


def test_conjugate_gradients_stop_at_curvature_that_is_rounding():
    """Samples: zero matrix, zero right side, negative curvature, indefinite, a product that is not finite."""
    A = torch.stack(
        [torch.zeros(2, 2), torch.eye(2), -torch.eye(2), torch.diag(torch.tensor([2.0, -1.0])), torch.eye(2)]
    )
    b = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0], [1.0, 0.5], [1.0, 2.0]])

    def multiply(v):
        product = torch.einsum("nij,nj->ni", A, v)
        product[4] = torch.nan
        return product

    found = conjugate_gradients(multiply, b, 5)
    assert torch.equal(found[[0, 1, 2, 4]], b[[0, 1, 2, 4]])
    assert torch.allclose(found[3] / found[3].norm(), b[3] / b[3].norm())  # the second step would go down


def _dense_product(H, x):
    return lambda v: torch.einsum("nij,nj->ni", H, v.flatten(1)).reshape(x.shape)
