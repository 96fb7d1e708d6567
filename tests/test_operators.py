"""The Hessian product against dense float64 Hessians, closed forms, and its promise to leave the model alone."""

import psutil
import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian
from torch.utils.data import DataLoader, TensorDataset

from hbanalysis import networks
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import WeightHessian

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


def dense_oracle(model, x, y):
    """Forward-over-reverse through torch.func, independent of the operator's double backward."""
    model.eval()
    values = {n: p.detach() for n, p in model.named_parameters()}
    sizes, shapes = [v.numel() for v in values.values()], [v.shape for v in values.values()]

    def mean_loss(vector):
        parts = [p.view(s) for p, s in zip(vector.split(sizes), shapes, strict=True)]
        z = functional_call(model, dict(zip(values, parts, strict=True)), (x,))
        return nn.functional.cross_entropy(z, y)

    H = hessian(mean_loss)(torch.cat([v.reshape(-1) for v in values.values()]))
    model.train()
    return H


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
@pytest.mark.parametrize("budget", [0, 10_000, 10**9])
def test_matches_dense_hessian_however_it_is_cut(name, chunk, budget):
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
    assert torch.allclose(D, dense_oracle(model, x, y)[3:, 3:], atol=1e-12)  # frozen comes first and does not count
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
    cases = [
        (lambda: WeightHessian(model, (b for b in [(x, y)])), "only once"),
        (lambda: WeightHessian(model, x[:0], y[:0]), "no sample"),
        (lambda: WeightHessian(model, x, y[:5]), "as many targets; given 5"),
        (lambda: WeightHessian(model, x), "given none"),
        (lambda: WeightHessian(model, x, y, parameters="head*"), "matches no parameter"),
        (lambda: WeightHessian(model, x, y, loss="cross_entropi"), "Did you mean 'cross_entropy'"),
        (lambda: WeightHessian(model, x, y) @ torch.ones(3), r"given torch.float32 \(3,\)"),
        (lambda: WeightHessian(model, x, y, loss=nn.CrossEntropyLoss()) @ torch.ones(51), "reduction='none'"),
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
