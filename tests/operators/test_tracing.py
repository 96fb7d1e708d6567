"""Traced programs give the products of the graphs, or are not used."""

import logging
import warnings

import pytest
import torch
from torch import nn

from hbanalysis.batch_statistics import train_mode_hessian
from hbanalysis.errors import InputError
from hbanalysis.operators import GaussNewton, WeightHessian, tracing
from tests.oracles import Recurrent, Residual, Transformer, close, dense_oracle, differences, seeded

IMAGES, LABELS = seeded(lambda: torch.rand(11, 1, 6, 6)).double(), torch.arange(11) % 3
TOKENS, NEXT = seeded(lambda: torch.randint(0, 6, (9, 5))), seeded(lambda: torch.randint(0, 6, (9, 5)), 2)


def cross_entropy(labels, ignored=-100):
    return lambda z: nn.functional.cross_entropy(z.reshape(-1, z.shape[-1]), labels.reshape(-1), ignore_index=ignored)


def convolutional(pool=nn.MaxPool2d, inplace=True):
    layers = [nn.Conv2d(1, 3, 3), nn.ReLU(inplace), nn.BatchNorm2d(3), pool(2), nn.Flatten(), nn.Linear(12, 3)]
    net = nn.Sequential(*layers).double()
    net[2].running_mean += 0.1
    return net.eval()


NETS = {
    "perceptron": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 3)), IMAGES, LABELS),
    "convolutional": (convolutional, IMAGES, LABELS),
    "average": (lambda: convolutional(nn.AvgPool2d), IMAGES, LABELS),
    "residual": (Residual, IMAGES, LABELS),
    "transformer": (Transformer, TOKENS, NEXT),
    "tied": (lambda: Transformer(True), TOKENS, NEXT),
    "recurrent": (Recurrent, seeded(lambda: torch.randint(0, 7, (8, 4))), torch.arange(8) % 3),
}


@pytest.mark.parametrize("name", NETS)
def test_traced_products_are_right(name):
    build, x, y = NETS[name]
    model = seeded(build).double().eval()
    H = WeightHessian(model, x, y, chunk_size=4, engine="traced")
    found = H.dense()
    assert H.engine == "traced"
    assert close(found, differences(model, x, cross_entropy(y)), 1e-8)
    assert close(H.dense(), found, 1e-13)


def operator(model, **options):
    return WeightHessian(model, IMAGES, LABELS, **{"chunk_size": 4, "engine": "traced"} | options)


def ones(H):
    return torch.ones(H.shape[0], dtype=torch.float64)


def test_weights_ignored_labels_decay_and_blocks():
    model, weights = seeded(convolutional), torch.arange(11) % 4
    options = {"weights": weights, "weight_decay": 0.1, "parameters": ["0.*", "5.bias"], "memory_budget": 0}
    traced, graph = (operator(model, engine=engine, **options) for engine in ("traced", "graph"))
    assert close(traced.dense(), graph.dense(), 1e-12) and (traced.engine, graph.engine) == ("traced", "graph")
    ignored = NEXT.masked_fill(NEXT == 1, -100)
    H = WeightHessian(seeded(Transformer).double(), TOKENS, ignored, chunk_size=3, engine="traced")
    truth = differences(H.model, TOKENS, cross_entropy(ignored))
    assert close(H.dense(), truth, 1e-8) and H.engine == "traced"


def test_new_weights_and_buffers_are_seen():
    model = seeded(convolutional)
    H = operator(model)
    before = H @ ones(H)
    with torch.no_grad():
        model[0].weight *= 1.5
        model[2].running_var *= 2
    after = H @ ones(H)
    assert not close(after, before, 1e-3)
    assert close(after, dense_oracle(model, IMAGES, LABELS) @ ones(H)) and H.engine == "traced"
    model[0].weight = nn.Parameter(model[0].weight.detach() / 2)
    again = operator(model)
    assert close(again @ ones(H), dense_oracle(model, IMAGES, LABELS) @ ones(H))


def test_parts_share_the_program(monkeypatch):
    built = []

    class Counted(tracing.Program):
        def __init__(self, *arguments):
            built.append(1)
            super().__init__(*arguments)

    monkeypatch.setattr(tracing, "Program", Counted)
    H = operator(seeded(convolutional))
    part = H.part(range(2, 10))
    assert close(part @ ones(H), dense_oracle(H.model, IMAGES[2:10], LABELS[2:10]) @ ones(H))
    assert close(H @ ones(H), dense_oracle(H.model, IMAGES, LABELS) @ ones(H))
    assert len(built) == 1


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_a_program_that_disagrees_is_not_used(monkeypatch, caplog, scale):
    """However small the loss is."""
    model = seeded(convolutional)

    def loss(z, y):
        return scale * nn.functional.cross_entropy(z, y, reduction="none")

    whole = tracing.Program.build

    def wrong(program, chunk):
        loss, saved = whole(program, chunk)
        return loss, tuple(t * 1.001 if t.is_floating_point() else t for t in saved)

    monkeypatch.setattr(tracing.Program, "build", wrong)
    truth = scale * dense_oracle(model, IMAGES, LABELS)
    H = operator(model, loss=loss)
    with pytest.warns(UserWarning, match=r"some 1.3 times slower \(ArithmeticError: .* off by"):
        found = H @ ones(H)
    assert close(found, truth @ ones(H)) and H.engine.startswith("graph (ArithmeticError")
    quiet = operator(model, loss=loss, engine="auto")
    monkeypatch.setitem(tracing.WORTHWHILE, "cpu", 0)
    with caplog.at_level(logging.INFO):
        assert close(quiet @ ones(H), truth @ ones(H))
    assert "come from autograd graphs" in caplog.text


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = convolutional()

    def forward(self, x):
        z = self.inner(x)
        return z * 2 if z.sum() > 1e3 else z


def test_what_cannot_be_traced_comes_from_the_graphs():
    model = seeded(Branching)
    H = operator(model)
    with pytest.warns(UserWarning, match="not traced"):
        found = H.dense()
    assert close(found, dense_oracle(model, IMAGES, LABELS)) and H.engine.startswith("graph (")


def test_tracing_waits_for_enough_samples(monkeypatch):
    H = operator(seeded(convolutional), engine="auto")
    H @ ones(H)
    assert H.engine == "graph"
    monkeypatch.setitem(tracing.WORTHWHILE, "cpu", 1000.0)
    H = operator(seeded(convolutional), engine="auto")
    H @ ones(H)
    assert H.engine == "traced"


def test_kept_results_are_counted():
    H = operator(seeded(convolutional))
    H @ ones(H)
    (first, size), *_ = H._retention._kept
    assert size == 4 and first.bytes > 4 * IMAGES[0].nbytes
    tight = operator(seeded(convolutional), memory_budget=first.bytes + 1)
    tight @ ones(H)
    assert len(tight._retention._kept) == 1
    assert close(tight @ ones(H), H @ ones(H), 1e-13)


FEW = seeded(lambda: torch.randn(9, 3, dtype=torch.float64)), torch.arange(9) % 3


def small(**options):
    model = seeded(lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 3))).double()
    return WeightHessian(model, *FEW, **{"chunk_size": 3, "engine": "traced"} | options)


def test_a_program_goes_on_after_the_weights_change_and_draws_no_numbers():
    H = small()
    state = torch.get_rng_state()
    for _ in range(2):  # the second time the program is there already
        assert close(H @ ones(H), small(engine="graph") @ ones(H), 1e-12) and H.engine == "traced"
    with torch.no_grad():
        H.model[0].weight *= 2.0
    changed = H @ ones(H)
    assert H.engine == "traced"
    assert close(changed, WeightHessian(H.model, *FEW, engine="graph") @ ones(H), 1e-12)
    assert torch.equal(torch.get_rng_state(), state)


def test_graphs_stay_graphs_where_they_were_asked_for(monkeypatch):
    monkeypatch.setitem(tracing.WORTHWHILE, "cpu", 0)
    monkeypatch.setattr(tracing, "Program", None)  # nobody needs it
    H = small(engine="graph")
    assert close(H @ ones(H), small(engine="graph", chunk_size=9) @ ones(H), 1e-12) and H.engine == "graph"


def test_unknown_engines_are_refused():
    with pytest.raises(InputError, match="engine must be one of auto, graph, traced here; given 'jit'"):
        operator(convolutional(), engine="jit")
    with pytest.raises(InputError, match="engine must be one of auto, graph here; given 'traced'"):
        GaussNewton(convolutional(), IMAGES, LABELS, engine="traced")


class Twice(nn.Module):
    """One layer under two names, and its weights once more in another layer."""

    def __init__(self):
        super().__init__()
        self.first, self.tied, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.again, self.tied.weight = self.first, self.first.weight

    def forward(self, x):
        return self.head(torch.tanh(self.tied(torch.tanh(self.again(torch.tanh(self.first(x)))))))


def test_a_module_with_two_names_is_traced_and_left_as_it_was():
    model = seeded(lambda: Twice().double())
    x, y = seeded(lambda: torch.randn(12, 4, dtype=torch.float64)), torch.arange(12) % 3
    before = dict(model.named_parameters())
    H = WeightHessian(model, x, y, engine="traced")
    assert close(H.dense(), differences(model, x, cross_entropy(y)), 1e-8)
    assert H.engine == "traced"
    after = dict(model.named_parameters())
    assert before.keys() == after.keys() and all(after[name] is p for name, p in before.items())


class Counting(nn.Module):
    """The mean over the tokens that are no padding, whose number is taken out of the tensor."""

    def __init__(self, count):
        super().__init__()
        self.table, self.out, self.count = nn.Embedding(7, 4), nn.Linear(4, 3), count

    def forward(self, ids):
        sums = [self.table(line).mul((line > 0)[:, None]).sum(0) / self.count(line) for line in ids]
        return self.out(torch.tanh(torch.stack(sums)))


@pytest.mark.parametrize(
    "count",
    [
        lambda line: max(len(line.nonzero()), 1),
        lambda line: len(line[line > 0]) + 1,
        lambda line: torch.unique(line).numel(),
        lambda line: (line > 0).sum() + 1,
    ],
)
def test_counts_of_one_chunk_are_no_counts_of_the_next(count):
    """Each chunk has another number of tokens; a program that had kept that of the first would be wrong on the rest."""
    ids = torch.tensor([[1, 2, 3, 4], [1, 0, 0, 0], [5, 6, 0, 0], [2, 2, 2, 0], [3, 1, 0, 0], [6, 0, 0, 0]])
    labels, model = torch.arange(6) % 3, seeded(lambda: Counting(count)).double()
    graph = WeightHessian(model, ids, labels, chunk_size=1, engine="graph").dense()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert close(WeightHessian(model, ids, labels, chunk_size=1, engine="traced").dense(), graph, 1e-12)


def test_a_program_that_fits_one_chunk_alone_is_given_up(monkeypatch):
    """Were a count to slip in without a trace, the loss of the next chunk tells."""
    ids = torch.tensor([[1, 2, 3, 4], [1, 0, 0, 0]])
    labels, model = torch.arange(2), seeded(lambda: Counting(lambda line: max(len(line.nonzero()), 1))).double()
    monkeypatch.setattr(tracing, "_refuse_counts", lambda graph, inputs: None)
    H = WeightHessian(model, ids, labels, chunk_size=1, engine="traced")
    with pytest.warns(UserWarning, match="the traced loss of chunk 1"):
        found = H.dense()
    assert "graph" in H.engine
    assert close(found, WeightHessian(model, ids, labels, engine="graph").dense(), 1e-12)


def test_indexing_by_numbers_is_traced():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    order = torch.tensor([2, 0, 1])
    H = WeightHessian(model, IMAGES, LABELS, engine="traced", forward=lambda m, x: m(x)[:, order])
    assert close(H.dense(), WeightHessian(model, IMAGES, order[LABELS], engine="graph").dense(), 1e-12)
    assert H.engine == "traced"


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.MSELoss(reduction="sum"), nn.functional.mse_loss])
def test_the_squared_error_of_pytorch_is_traced(loss):
    """Traced as it is, it ends the process with PyTorch 2.15."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    targets = seeded(lambda: torch.randn(11, 3)).double()
    H = WeightHessian(model, IMAGES, targets, loss=loss, engine="traced")
    assert close(H.dense(), WeightHessian(model, IMAGES, targets, loss=loss, engine="graph").dense(), 1e-12)
    assert H.engine == "traced"


def test_a_loss_of_ones_own_made_of_it_comes_from_the_graphs():
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)).double()
    targets = seeded(lambda: torch.randn(11, 3)).double()

    def loss(outputs, targets):
        return nn.functional.mse_loss(outputs, targets, reduction="none").sum(1)

    H = WeightHessian(model, IMAGES, targets, loss=loss, engine="traced")
    with pytest.warns(UserWarning, match="MseLossBackward0 cannot be traced"):
        found = H.dense()
    assert close(found, WeightHessian(model, IMAGES, targets, loss="squared_error").dense(), 1e-12)


def test_parameters_whose_part_of_a_product_is_rounding_are_no_reason_to_refuse():
    """A bias in front of batch normalisation of the batch has no effect at all."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(48, 3)).double()
    H = train_mode_hessian(net, IMAGES, LABELS, 5, engine="traced")
    H @ torch.ones(H.shape[0], dtype=torch.float64)
    assert H.engine == "traced"
