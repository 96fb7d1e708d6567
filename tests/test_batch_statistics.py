"""The Hessian of the train-mode loss: dense oracles through the model's own train mode and through written-out
statistics, the law of scale invariance, and what is refused."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.func import hessian
from torch.nn.functional import cross_entropy

from hbanalysis import networks
from hbanalysis.batch_statistics import train_mode_hessian
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from tests.oracles import close, seeded


class Nested(nn.Module):
    """Batch normalisation of images and of features, in a submodule and under two names, beside dropout."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()
        )
        self.norm = nn.BatchNorm1d(4)
        self.same, self.none = self.norm, None
        self.first, self.head, self.drop = nn.Linear(12, 4, bias=False), nn.Linear(4, 3), nn.Dropout(0.5)

    def forward(self, x):
        h = self.norm(self.first(self.body(x)))
        return self.head(self.drop(torch.tanh(self.same(h))))


def nested():
    """A net, 12 images and labels in float64, with running statistics of other images."""
    model = seeded(lambda: Nested().double())
    seeded(lambda: model(torch.rand(20, 1, 6, 6, dtype=torch.float64)), 2)
    x, y = seeded(lambda: (torch.rand(12, 1, 6, 6, dtype=torch.float64), torch.randint(0, 3, (12,))), 3)
    return model.eval(), x, y


def cut(x, y, size, seed=0):
    """The batches, drawn here once more."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return [(x[part], y[part]) for part in order.split(size) if len(part) == size]


def train_mode_loss(model, batches):
    """The mean loss by the model's own train mode, without dropout; the running statistics of a copy move."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    total = sum(cross_entropy(model(x), y, reduction="sum") for x, y in batches)
    return total / sum(len(y) for _, y in batches)


def derivatives(model, batches):
    """Loss, gradient and dense Hessian of the train-mode loss, a row at a time by autograd."""
    twin = copy.deepcopy(model)
    parameters = list(twin.parameters())
    loss = train_mode_loss(twin, batches)
    parts = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([part.reshape(-1) for part in parts])
    rows = [torch.autograd.grad(g, parameters, retain_graph=True, materialize_grads=True) for g in gradient]
    return loss.item(), gradient.detach(), torch.stack([torch.cat([r.reshape(-1) for r in row]) for row in rows])


@pytest.mark.parametrize(
    ("size", "chunk", "engine"), [(4, 1, "graph"), (3, 3, "graph"), (12, 1, "graph"), (6, 1, "traced")]
)
def test_loss_gradient_and_hessian_are_those_of_the_models_own_train_mode(size, chunk, engine):
    model, x, y = nested()
    loss, gradient, truth = derivatives(model, cut(x, y, size))
    H = train_mode_hessian(model, x, y, size, chunk_size=chunk, engine=engine)
    assert (H.samples, H.total) == (12 // size, 12)
    assert close(H.dense(), truth)
    assert H.engine == engine
    assert H.loss() == pytest.approx(loss, rel=1e-12)
    assert close(H.gradient(), gradient, 1e-11)
    assert not close(WeightHessian(model, x, y).dense(), truth, 1e-2)


def test_statistics_written_out():
    """No layer of PyTorch's in the oracle: mean and biased variance of the batch by hand, forward over reverse."""
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double())
    x, y = seeded(lambda: (torch.randn(10, 3, dtype=torch.float64), torch.randint(0, 2, (10,))), 1)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([0.5, 2.0, -1.0, 1.5]))
    shapes = [p.shape for p in model.parameters()]
    start = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    batches = cut(x, y, 5, seed=7)

    def loss(vector):
        parts = vector.split([s.numel() for s in shapes])
        w, b, scale, shift, v, c = (part.view(shape) for part, shape in zip(parts, shapes, strict=True))
        total = 0.0
        for images, labels in batches:
            h = images @ w.T + b
            centred = h - h.mean(0)
            h = scale * centred / (centred.square().mean(0) + 1e-5).sqrt() + shift
            total = total + cross_entropy(torch.tanh(h) @ v.T + c, labels, reduction="sum")
        return total / 10

    assert close(train_mode_hessian(model, x, y, 5, seed=7).dense(), hessian(loss)(start))


def test_the_last_incomplete_batch_is_left_out():
    model, x, y = nested()
    H = train_mode_hessian(model, x, y, 5, seed=4)
    assert (H.samples, H.total) == (2, 10)
    assert close(H.dense(), derivatives(model, cut(x, y, 5, seed=4))[2])


def test_a_part_is_some_of_the_batches():
    model, x, y = nested()
    H = train_mode_hessian(model, x, y, 4)
    assert close(H.part([1]).dense(), derivatives(model, cut(x, y, 4)[1:2])[2])
    parts = sum(H.part([i], total=H.total).dense() for i in range(3))
    assert close(parts, H.dense())


@pytest.mark.parametrize("layer", ["linear", "convolution"])
def test_a_layer_in_front_of_normalisation_has_no_scale_in_train_mode(layer):
    """f(c w) = f(w) gives w'g = 0 and H w = -g in that layer, 0 elsewhere; in eval mode neither holds."""
    front = nn.Linear(4, 5) if layer == "linear" else nn.Conv2d(1, 5, 3)
    norm = nn.BatchNorm1d(5, eps=0.0) if layer == "linear" else nn.BatchNorm2d(5, eps=0.0)
    inside = 5 if layer == "linear" else 20
    # ReLU lets a common positive factor through, as in C1 and C2, where it stands before the normalisation.
    model = seeded(
        lambda: nn.Sequential(front, nn.ReLU(), norm, nn.Tanh(), nn.Flatten(), nn.Linear(inside, 3))
    ).double()
    shape = (24, 4) if layer == "linear" else (24, 1, 4, 4)
    x, y = seeded(lambda: (torch.randn(shape, dtype=torch.float64), torch.randint(0, 3, (24,))), 5)
    model[0].bias.data += 1.0  # every unit is active somewhere
    for p in model[0].parameters():
        p.data *= 0.7
    eval_mode, train_mode = WeightHessian(model.eval(), x, y), train_mode_hessian(model, x, y, 8)
    own = train_mode.space.join(p.detach() if name.startswith("0.") else None for name, p in model.named_parameters())
    gradient = train_mode.gradient()
    on_layer = torch.where(own != 0, gradient, 0)
    size = gradient.norm() * own.norm()
    assert on_layer.norm() > 0.01 * gradient.norm()
    assert abs(own @ gradient) < 1e-12 * size
    assert (train_mode @ own + on_layer).norm() < 1e-11 * on_layer.norm()
    assert abs(own @ eval_mode.gradient()) > 1e-3 * size
    assert (eval_mode @ own).norm() > 0.1 * on_layer.norm()
    loss = train_mode.loss()
    for p in model[0].parameters():
        p.data *= 5
    assert train_mode.loss() == pytest.approx(loss, rel=1e-12)


def test_steps_on_the_original_are_seen_and_nothing_else_of_it_changes():
    model, x, y = nested()
    model.train()
    model.body.eval()
    H = train_mode_hessian(model, x, y, 4)
    names = [name for name, _ in model.named_parameters()]
    assert H.space.names == tuple(names)
    assert all(a is b for a, b in zip(H.space.tensors, model.parameters(), strict=True))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    state = torch.get_rng_state()
    with torch.no_grad():
        old = H.dense()
    assert model.training and not model.body.training
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert isinstance(model.same, nn.BatchNorm1d) and model.same is model.norm
    with torch.no_grad():
        model.first.weight.mul_(1.1)
    assert close(H.dense(), derivatives(model, cut(x, y, 4))[2])
    assert not close(H.dense(), old, 1e-3)


def test_losses_tokens_and_several_inputs():
    """A class-weighted loss, one value for each of several tokens, and inputs as a dict."""
    model, x, y = nested()
    weight = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64)
    loss = nn.CrossEntropyLoss(weight=weight)
    batches = cut(x, y, 6)
    twin = copy.deepcopy(model)
    twin.train().drop.eval()
    outputs, labels = torch.cat([twin(a) for a, _ in batches]), torch.cat([b for _, b in batches])
    H = train_mode_hessian(model, {"x": x}, y, 6, loss=loss)
    assert H.loss() == pytest.approx(loss(outputs, labels).item(), rel=1e-12)

    tokens = seeded(lambda: nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3)).double())
    words = seeded(lambda: torch.randn(6, 2, 4, dtype=torch.float64), 1)
    labels = seeded(lambda: torch.randint(0, 3, (6, 4)), 2)
    labels[0, 2:] = -100
    H = train_mode_hessian(tokens, words, labels, 6, forward=lambda model, batch: model(batch).transpose(1, 2))
    assert H.total == 22
    expected = cross_entropy(tokens.train()(words).transpose(1, 2).reshape(-1, 3), labels.reshape(-1))
    assert H.loss() == pytest.approx(expected.item(), rel=1e-12)


def test_a_single_layer_and_layers_without_running_statistics_or_weights():
    x, y = seeded(lambda: (torch.randn(8, 3, dtype=torch.float64), torch.randint(0, 3, (8,))), 1)
    alone = nn.BatchNorm1d(3).double()
    assert close(train_mode_hessian(alone, x, y, 4).dense(), derivatives(alone, cut(x, y, 4))[2])
    by_batch = nn.BatchNorm1d(4, affine=False, track_running_stats=False)
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), by_batch, nn.Linear(4, 3)).double())
    with pytest.raises(InputError, match="no running statistics"):
        WeightHessian(model, x, y)
    assert close(train_mode_hessian(model, x, y, 4).dense(), derivatives(model, cut(x, y, 4))[2])


@pytest.mark.parametrize("missing", ["weight", "bias"])
def test_a_layer_with_one_of_weight_and_bias(missing):
    """The oracle has both; the one that is missing is 1 or 0 there, and its rows and columns are left out."""
    both = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).double())
    x, y = seeded(lambda: (torch.randn(10, 3, dtype=torch.float64), torch.randint(0, 2, (10,))), 1)
    other = both[1].bias if missing == "weight" else both[1].weight
    with torch.no_grad():
        other.copy_(torch.tensor([0.5, 2.0, -1.0, 1.5]))
    kept = [torch.full((p.numel(),), name != f"1.{missing}") for name, p in both.named_parameters()]
    places = torch.cat(kept).nonzero().flatten()
    truth = derivatives(both, cut(x, y, 5))[2][places][:, places]
    one = copy.deepcopy(both)
    one[1].register_parameter(missing, None)
    assert close(train_mode_hessian(one, x, y, 5).dense(), truth)


@pytest.mark.parametrize("kind", ["module", "hook"])
def test_weight_normalisation_before_it(kind):
    """Differences of the gradient, which needs no second derivative; the deprecated hook gives the same."""
    x, y = seeded(lambda: (torch.randn(8, 3, dtype=torch.float64), torch.randint(0, 2, (8,))), 1)

    def make(kind):
        layer = nn.Linear(3, 2, bias=False)
        if kind == "hook":
            with pytest.warns(FutureWarning, match="deprecated"):
                layer = nn.utils.weight_norm(layer)
        else:
            layer = nn.utils.parametrizations.weight_norm(layer)
        return nn.Sequential(layer, nn.BatchNorm1d(2)).double()

    model = seeded(lambda: make(kind))
    with torch.no_grad():
        model(x)  # the hook leaves a weight that copy.deepcopy refuses
    H = train_mode_hessian(model, x, y, 4)
    twin = train_mode_hessian(seeded(lambda: make("module")), x, y, 4)
    centre, rows = twin.space.vector(), []
    for step in 1e-5 * torch.eye(len(centre), dtype=centre.dtype):
        slopes = []
        for sign in (1, -1):
            twin.space.assign(centre + sign * step)
            slopes.append(twin.gradient())
        rows.append((slopes[0] - slopes[1]) / 2e-5)
    assert close(H.dense(), torch.stack(rows), 1e-6)


def test_targets_of_several_tensors():
    model, x, y = nested()
    weights = seeded(lambda: torch.rand(12, dtype=torch.float64))

    def weighed(outputs, targets):
        return targets["weight"] * cross_entropy(outputs, targets["labels"], reduction="none")

    H = train_mode_hessian(model, x, {"labels": y, "weight": weights}, 4, loss=weighed)
    twin, batches = copy.deepcopy(model).train(), cut(x, torch.arange(12), 4)
    twin.drop.eval()
    losses = torch.stack(
        [(weights[rows] * cross_entropy(twin(images), y[rows], reduction="none")).sum() for images, rows in batches]
    )
    assert H.loss() == pytest.approx(losses.sum().item() / 12, rel=1e-12)
    parts = torch.autograd.grad(losses.sum() / 12, list(twin.parameters()))
    assert close(H.gradient(), torch.cat([part.reshape(-1) for part in parts]), 1e-11)
    assert (H.samples, H.total) == (3, 12) and close(H.dense().T, H.dense())


def test_what_comes_with_it_works_eigenvalues_weight_decay_and_blocks():
    model, x, y = nested()
    truth = derivatives(model, cut(x, y, 4))[2]
    exact = torch.linalg.eigvalsh(truth).flip(0)
    H = train_mode_hessian(model, x, y, 4, weight_decay=0.25)
    for method in ("lanczos", "screened"):
        found = eigsh(H, 3, tol=1e-10, method=method)
        assert (found.values - exact[:3] - 0.25).abs().max() < 1e-9 * exact[0]
    block = train_mode_hessian(model, x, y, 4, parameters="head.*")
    assert close(block.dense(), truth[-15:, -15:])
    budget = train_mode_hessian(model, x, y, 4, memory_budget=0)
    assert close(budget.dense(), truth)


def test_single_precision_and_the_papers_network():
    model = networks.build("C1", (1, 8, 8), seed=3).to(memory_format=torch.channels_last)
    x, y = seeded(lambda: (torch.rand(16, 1, 8, 8), torch.arange(16) % 10))
    v = seeded(lambda: torch.randn(sum(p.numel() for p in model.parameters())), 2)
    exact = train_mode_hessian(copy.deepcopy(model).double(), x, y, 8) @ v.double()
    single = train_mode_hessian(model, x, y, 8) @ v
    assert single.dtype == torch.float32
    assert (single - exact).norm() < 1e-4 * exact.norm()
    assert math.isfinite(eigsh(train_mode_hessian(model, x, y, 8), 1, tol=0.1, check=False).values[0])


class Activated(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x).relu()


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)

    def forward(self, x):
        return torch.nn.functional.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)


def test_bad_input_is_named():
    model, x, y = nested()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    odd = nn.Sequential(nn.Flatten(), nn.Linear(36, 3), Activated(3)).double()
    reading, keeping = Reading().double(), nested()[0]
    keeping.kept = [keeping(x)]
    two = nn.Module()
    two.norm = nn.BatchNorm2d(1).double()
    two.forward = lambda x: (x, x)
    cases = [
        (lambda: train_mode_hessian(plain, x, y, 4), r"no batch normalisation.*WeightHessian\(model"),
        (lambda: train_mode_hessian(odd, x, y, 4), "'2' is Activated.*BatchNorm1d, BatchNorm2d"),
        (lambda: train_mode_hessian(model, x, y, 1), r"2\.\.12.*given 1"),
        (lambda: train_mode_hessian(model, x, y, 13), r"2\.\.12.*given 13"),
        (lambda: train_mode_hessian(model, x, y[:5], 4), "as many targets"),
        (lambda: train_mode_hessian(model, x, (y, y), 4), "one tensor of targets; given tuple"),
        (lambda: train_mode_hessian(reading, x, y, 4).loss(), "reads running_mean of a layer of batch normalisation"),
        (lambda: train_mode_hessian(keeping, x, y, 4), r"copy.deepcopy\(model\) fails: Only Tensors.*kept from a call"),
        (lambda: train_mode_hessian(model, x, y + 1, 4) @ torch.ones(104, dtype=x.dtype), "out of range"),
        (lambda: train_mode_hessian(model, x, y, 4, loss="cross"), "Unknown loss"),
        (lambda: train_mode_hessian(model, x, y, 4, chunk_size=0), "chunk_size"),
        (lambda: train_mode_hessian(model, x, y, 4, loss=lambda z, t: z.sum()).loss(), "one value a sample"),
        (lambda: train_mode_hessian(two, x, y, 4).loss(), "One tensor of outputs"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()
