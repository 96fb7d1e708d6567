"""The Hessian product against dense float64 Hessians, closed forms, and its promise to leave the model alone."""

import copy

import psutil
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hbanalysis import networks
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import WeightHessian
from tests.oracles import close, dense_hessian, dense_oracle, seeded

NETS = {
    "tanh": lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
    "batch_norm": lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3)),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3)
    ),
}


def problem(name="tanh", samples=23):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = NETS[name]().double()
        x, y = torch.randn(samples, 4, dtype=torch.float64), torch.randint(0, 3, (samples,))
        model(x)  # moves the running statistics of batch normalisation off their defaults
    return model, x, y


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
@pytest.mark.parametrize("budget", [0, 10_000, 10**9])
@pytest.mark.survives("Determinism")
def test_matches_dense_hessian_however_it_is_cut(name, chunk, budget):
    """Products with the Hessian equal those with the dense one to 1e-10 for any chunk size and memory budget, with what
    an earlier product kept and without."""
    model, x, y = problem(name)
    H = WeightHessian(model, x, y, chunk_size=chunk, memory_budget=budget)
    oracle = dense_oracle(model, x, y)
    for _ in range(2):  # the second pass uses what the first retained
        assert torch.allclose(H.dense(), oracle, rtol=1e-10, atol=1e-12)


def test_ragged_loader_weights_samples_not_batches():
    model, x, y = problem()
    loader = DataLoader(TensorDataset(x, y), batch_size=9, shuffle=False)
    assert torch.allclose(WeightHessian(model, loader).dense(), dense_oracle(model, x, y), rtol=1e-10, atol=1e-12)


def test_linear_regression_closed_form():
    x = torch.randn(11, 4, dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    H = WeightHessian(model, x, torch.zeros(11, 1, dtype=torch.float64), loss="squared_error")
    assert torch.allclose(H.dense(), 2 * x.T @ x / 11, atol=1e-12)


def test_softmax_regression_closed_form():
    model, x, y = nn.Linear(4, 3, bias=False).double(), torch.randn(7, 4, dtype=torch.float64), torch.arange(7) % 3
    p = model(x).softmax(1).detach()
    blocks = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    expected = torch.einsum("nkl,ni,nj->kilj", blocks, x, x).reshape(12, 12) / 7
    assert torch.allclose(WeightHessian(model, x, y).dense(), expected, atol=1e-12)


def test_gradient_and_loss():
    model, x, y = problem()
    H = WeightHessian(model, x, y, chunk_size=4)
    model.eval()
    loss = nn.functional.cross_entropy(model(x), y)
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
    assert torch.allclose(H.gradient(), expected, atol=1e-12)
    assert H.loss() == pytest.approx(loss.item(), rel=1e-12)


def test_parameter_block_is_block_of_the_whole():
    model, x, y = problem()
    whole = dense_oracle(model, x, y)
    block = WeightHessian(model, x, y, parameters="2.*").dense()
    assert torch.allclose(block, whole[-21:, -21:], atol=1e-12)


def test_tied_and_unused_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.unused = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(2, 2)
            self.b.weight = self.a.weight
            self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)

        def forward(self, x):
            return self.b(torch.tanh(self.a(x)))

    model, x, y = Tied().double(), torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    H = WeightHessian(model, x, y)
    assert H.shape == (16 + 4 + 4 + 6, 16 + 4 + 4 + 6)
    D = H.dense()
    assert torch.allclose(D, dense_oracle(model, x, y), atol=1e-12)
    assert D[[i for i, n in enumerate(_owners(H)) if n.startswith("unused")]].abs().max() == 0


def _owners(H):
    return [name for name, size in zip(H.space.names, H.space.sizes, strict=True) for _ in range(size)]


def test_leaves_the_model_as_it_was():
    model, x, y = problem("batch_norm")
    model[0].eval()  # submodules keep modes of their own
    model.zero_grad()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {n: b.clone() for n, b in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    rng = torch.get_rng_state()
    H = WeightHessian(model, x, y)
    with torch.no_grad():
        H @ torch.ones(H.shape[0], dtype=torch.float64)
        H.gradient()
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(before[n], b) for n, b in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[3].weight.grad is None


def test_an_optimiser_step_rebuilds_the_cache():
    model, x, y = problem()
    H = WeightHessian(model, x, y, memory_budget=10**9)
    old = H.dense()
    with torch.no_grad():
        model[0].weight += 0.5
    assert not torch.allclose(H.dense(), old)
    assert torch.allclose(H.dense(), dense_oracle(model, x, y), atol=1e-12)


def test_dtype_shape_and_count_follow_the_vector():
    model, x, y = problem()
    H = WeightHessian(model.float(), x.float(), y)
    one, many = H @ torch.ones(H.shape[0], dtype=torch.float64), H @ torch.ones(H.shape[0], 3)
    assert (one.dtype, one.shape, many.dtype, many.shape) == (torch.float64, (51,), torch.float32, (51, 3))
    assert H.products == 4


def test_scipy_operator_agrees():
    model, x, y = problem()
    H = WeightHessian(model, x, y)
    v = torch.randn(51, dtype=torch.float64)
    assert torch.allclose(torch.from_numpy(H.to_scipy().matvec(v.numpy())), H @ v, atol=1e-14)


def test_saturated_sample_keeps_its_curvature_in_float32():
    """1 - p_y = 1e-10: the textbook cross-entropy has lost all digits here."""
    model = nn.Linear(1, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [-23.0], [-24.0]]))
    x, y = torch.ones(1, 1), torch.tensor([0])
    exact = WeightHessian(model.double(), x.double(), y).dense()
    single = WeightHessian(model.float(), x, y).dense().double()
    assert exact.abs().max() < 2e-10
    assert torch.allclose(single, exact, rtol=1e-5, atol=1e-19)


def test_bad_input_is_named():
    model, x, y = problem()
    H = WeightHessian(model, x, y)
    lazy = nn.Sequential(nn.LazyLinear(3))
    split = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3, device="meta"))
    by_batch = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, track_running_stats=False)).double()
    cases = [
        (lambda: WeightHessian(model, x, y, parameters="head*"), "matches no parameter"),
        (lambda: WeightHessian(model, x, y, loss="cross_entropi"), "Did you mean 'cross_entropy'"),
        (lambda: H @ torch.ones(3), r"given torch.float32 \(3,\)"),
        (lambda: H @ torch.ones(51, dtype=torch.long), "given torch.int64"),
        (lambda: H @ torch.ones(51, dtype=torch.bfloat16), "of 32 or 64 bits is needed; given torch.bfloat16"),
        (lambda: H @ torch.ones(51, 2, 1), r"\(51, 2, 1\)"),
        (lambda: WeightHessian(copy.deepcopy(model).bfloat16(), x, y), r"bfloat16: .*\.float\(\)"),
        (lambda: WeightHessian(lazy, x, y), "call the model once"),
        (lambda: WeightHessian(split, x, y), "several devices"),
        (lambda: WeightHessian(by_batch, x, y), "'1' has no running statistics"),
        (lambda: WeightHessian(model, x, y, chunk_size=0), "chunk_size must be at least 1"),
        (lambda: WeightHessian(model, x, y, memory_budget=-1), "memory_budget is in bytes"),
        (lambda: WeightHessian(model, x, y, weight_decay=-1.0), "weight_decay must not be negative"),
        (lambda: WeightHessian(model, x, y, total=0), "total, which the sum is divided by"),
        (lambda: WeightHessian(model, x, y, loss=lambda z, t: z.detach()[:, 0]) @ torch.ones(51), "detaches"),
        (lambda: WeightHessian(model.requires_grad_(False), x, y), "requires_grad_"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()


def test_nan_weights_name_the_chunk():
    model, x, y = problem()
    with torch.no_grad():
        model[0].bias[0] = float("nan")
    H = WeightHessian(model, x, y, chunk_size=10)
    with pytest.raises(NumericalError, match="chunk 0"):
        H @ torch.ones(51)


def test_channels_last_changes_nothing_but_rounding():
    x, y = torch.rand(6, 1, 28, 28, dtype=torch.float64), torch.arange(6)
    model = networks.build("M1", (1, 28, 28)).double()
    v = torch.randn(431080, dtype=torch.float64)
    plain = WeightHessian(model, x, y) @ v
    last = WeightHessian(model.to(memory_format=torch.channels_last), x, y) @ v
    assert torch.allclose(plain, last, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("budget", [0, 3_000_000])
def test_products_leave_no_memory_behind(budget):
    """Graphs that own their own outputs are never freed; a sweep of a whole data set would fill the machine."""
    model = nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1152, 10))
    H = WeightHessian(model, torch.rand(800, 1, 28, 28), torch.arange(800) % 10, memory_budget=budget)
    v = torch.ones(H.shape[0])
    process = psutil.Process()
    for _ in range(3):
        H @ v
    before = process.memory_info().rss
    for _ in range(6):
        H @ v
    assert process.memory_info().rss - before < 60e6


@pytest.mark.parametrize("loss", ["squared_error", "binary_cross_entropy"])
def test_logistic_and_least_squares_with_a_bias(loss):
    x, y = seeded(lambda: torch.randn(9, 3)).double(), torch.arange(9) % 2
    model = seeded(lambda: nn.Linear(3, 1)).double()
    p = model(x).sigmoid().detach()
    factor = p * (1 - p) if loss == "binary_cross_entropy" else torch.full_like(p, 2.0)
    design = torch.cat([x, torch.ones(9, 1)], 1)
    assert close(WeightHessian(model, x, y, loss=loss, chunk_size=4).dense(), design.T @ (factor * design) / 9, 1e-12)


def test_weight_decay_is_in_loss_gradient_and_hessian():
    model, x, y = problem()
    plain, decayed = WeightHessian(model, x, y), WeightHessian(model, x, y, weight_decay=0.3)
    theta = plain.space.vector()
    assert decayed.loss() == pytest.approx(plain.loss() + 0.15 * (theta @ theta).item())
    assert torch.allclose(decayed.gradient(), plain.gradient() + 0.3 * theta)
    assert torch.allclose(decayed.dense(), plain.dense() + 0.3 * torch.eye(51, dtype=torch.float64))


def test_products_are_symmetric_and_linear():
    model, x, y = problem("batch_norm")
    H = WeightHessian(model, x, y, chunk_size=5)
    u, v = seeded(lambda: torch.randn(2, H.shape[0], dtype=torch.float64))
    assert (u @ (H @ v)).item() == pytest.approx((v @ (H @ u)).item(), rel=1e-11)
    assert close(H @ (2 * u - 3 * v), 2 * (H @ u) - 3 * (H @ v), 1e-12)


def test_a_scaled_loss_scales_the_hessian():
    """Exactly, for a power of two: nowhere is a constant added."""
    model, x, y = problem()

    def loss(z, t):
        return nn.functional.cross_entropy(z, t, reduction="none")

    plain = WeightHessian(model, x, y, loss=loss).dense()
    small = WeightHessian(model, x, y, loss=lambda z, t: loss(z, t) * 2.0**-20).dense()
    assert torch.equal(plain * 2.0**-20, small)
    million = WeightHessian(model.float(), x.float(), y, loss=lambda z, t: loss(z, t) * 1e-6).dense().double()
    assert close(million, plain * 1e-6, 1e-5)


def test_a_block_notices_changes_outside_it():
    model, x, y = problem()
    H = WeightHessian(model, x, y, parameters="2.*", memory_budget=10**9)
    H.dense()
    with torch.no_grad():
        model[0].weight += 0.5
    assert close(H.dense(), dense_oracle(model, x, y)[-21:, -21:])


def test_writes_through_data_are_noticed():
    model, x, y = problem()
    H = WeightHessian(model, x, y, memory_budget=10**9)
    H.dense()
    model[0].weight.data.mul_(1.5)
    assert close(H.dense(), dense_oracle(model, x, y))


def test_buffers_are_part_of_the_state():
    model, x, y = problem("batch_norm")
    H = WeightHessian(model, x, y, memory_budget=10**9)
    H.dense()
    model[1].running_var.mul_(2.0)
    assert close(H.dense(), dense_oracle(model, x, y))


def test_released_graphs_are_built_anew():
    model, x, y = problem()
    H = WeightHessian(model, x, y, memory_budget=10**9)
    before = H.dense()
    H.release()
    assert torch.equal(H.dense(), before)


def test_inputs_and_vectors_follow_the_model():
    model, x, y = problem()
    truth = dense_oracle(model, x, y)
    H = WeightHessian(model, x.float(), y.int())
    assert close(H.dense(), truth, 1e-6)
    v = torch.ones(51, requires_grad=True)
    assert not (H @ v).requires_grad


@pytest.mark.parametrize("kind", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_are_taken_off(kind):
    model, x, y = problem()
    H = WeightHessian(kind(model), x, y)
    assert H.space.names[0] == "0.weight"
    assert close(H.dense(), dense_oracle(model, x, y))


def test_weighted_oracle():
    model, x, y = problem()
    w = torch.rand(23, dtype=torch.float64)
    truth = dense_hessian(model, x, lambda z: (w * nn.functional.cross_entropy(z, y, reduction="none")).sum() / w.sum())
    H = WeightHessian(model, x, y, weights=w, chunk_size=5)
    assert close(H.dense(), truth) and H.total == pytest.approx(w.sum().item())
