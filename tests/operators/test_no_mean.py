"""What is no mean of one loss a sample, or changes between passes, is found before it gives a wrong Hessian."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, TensorDataset

from hbanalysis.errors import InputError
from hbanalysis.operators import GaussNewton, WeightHessian
from tests.oracles import close, dense_hessian, seeded

N = 24
X = seeded(lambda: torch.randn(N, 5, dtype=torch.float64))
Y = seeded(lambda: torch.randint(0, 3, (N,)))
V = torch.ones(39, dtype=torch.float64)


def plain() -> nn.Sequential:
    return seeded(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double())


class Does(nn.Module):
    """A function as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def contrast(outputs, targets):
    directions = F.normalize(outputs)
    return F.cross_entropy(directions @ directions.T, torch.arange(len(outputs)), reduction="none")


def leaking(function) -> nn.Sequential:
    return nn.Sequential(Does(function), plain())


@pytest.mark.survives("Input that cannot work")
@pytest.mark.parametrize(
    ("model", "loss"),
    [
        (plain(), contrast),
        (leaking(lambda x: F.dropout(x, 0.5)), "cross_entropy"),
        (leaking(lambda x: F.batch_norm(x, None, None, training=True)), "cross_entropy"),
        (leaking(lambda x: x + torch.randn_like(x)), "cross_entropy"),
        (leaking(lambda x: x - x.mean(0)), "cross_entropy"),
    ],
)
@pytest.mark.parametrize("call", [lambda H: H @ V, lambda H: H.loss(), lambda H: H.gradient()])
def test_samples_that_depend_on_each_other_or_on_chance_are_found(model, loss, call):
    """A loss between the samples of a batch, statistics of the batch, and dropout that is always on are refused."""
    for size in (None, 10):
        with pytest.raises(InputError, match="depends on nothing but itself"):
            call(WeightHessian(model, X, Y, loss=loss, chunk_size=size))


def test_two_samples_and_one_are_enough_to_see_it_and_sound_ones_pass():
    with pytest.raises(InputError, match="The last 1 samples of chunk 0"):
        WeightHessian(leaking(lambda x: x - x.mean(0)), X[:2], Y[:2]).loss()
    WeightHessian(plain(), X[:1], Y[:1]).loss()


def test_rounding_of_small_losses_beside_large_ones_is_no_dependence():
    model = nn.Linear(3, 3)
    logits = torch.cat([torch.zeros(1, 3), 40 * F.one_hot(Y, 3)])
    labels = torch.cat([torch.zeros(1, dtype=torch.long), Y])
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    assert WeightHessian(model, logits, labels, loss=nn.CrossEntropyLoss(label_smoothing=1e-9)).loss() > 0


def test_a_model_that_needs_all_samples_at_once_is_told_to_take_them_as_one():
    edges = torch.rand(N, N, dtype=torch.float64)
    net = plain()
    graph = leaking(lambda x: edges @ x)
    with pytest.raises(InputError, match=r"are one sample: give inputs\[None\], targets\[None\]"):
        WeightHessian(graph, X, Y).loss()
    whole = nn.Sequential(Does(lambda x: edges @ x), net)
    H = WeightHessian(whole, X[None], Y[None])
    assert close(H.dense(), dense_hessian(whole, X, lambda z: F.cross_entropy(z, Y)), 1e-9)


def ignoring(outputs, targets, reduction="mean"):
    return F.cross_entropy(outputs, targets, ignore_index=2, reduction=reduction)


class Weighted(nn.CrossEntropyLoss):
    """A subclass may do anything, so it is not taken for PyTorch's own."""


@pytest.mark.parametrize("loss", [ignoring, Weighted(weight=torch.tensor([1.0, 2.0, 9.0], dtype=torch.float64))])
def test_a_loss_that_divides_by_something_else_than_the_samples_is_refused(loss):
    with pytest.raises(InputError, match="it divides by something else than the samples"):
        WeightHessian(plain(), X, Y, loss=loss) @ V


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (nn.MSELoss(), X[:, :3]),
        (nn.MSELoss(reduction="sum"), X[:, :3]),
        (nn.HuberLoss(), X[:, :3]),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)), X[:, :3].sigmoid()),
        (nn.KLDivLoss(reduction="batchmean"), X[:, :3].softmax(1)),
        (F.smooth_l1_loss, X[:, :3]),
    ],
)
def test_losses_that_are_means_over_samples_are_taken(loss, targets):
    assert torch.isfinite(WeightHessian(plain(), X, targets, loss=loss, chunk_size=10) @ V).all()


class Augmented(Dataset):
    """Gives another image every time."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return X[index] + 0.1 * torch.randn(5), int(Y[index])


def test_random_augmentation_is_found_before_the_first_product():
    with pytest.raises(InputError, match="no random augmentation"):
        WeightHessian(plain(), Augmented())


@pytest.mark.parametrize("third", [torch.arange(N), Y > 0, ["a"] * N])
def test_a_third_entry_that_is_no_weight_is_refused(third):
    with pytest.raises(InputError, match="weights of its samples, a tensor of floating point; given"):
        WeightHessian(plain(), [(X, Y, third)])
    if isinstance(third, torch.Tensor):
        with pytest.raises(InputError, match="Leave out an index"):
            WeightHessian(plain(), TensorDataset(X, Y, third))


class Aged(nn.Module):
    """Takes a plain list beside the samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 1).double()

    def forward(self, x, age):
        return self.layer(x) * torch.as_tensor(age[: len(x)], dtype=x.dtype)[:, None]


def test_a_list_with_a_number_for_each_sample_is_refused_and_other_lists_are_constants():
    ages = [float(i) for i in range(N)]
    with pytest.raises(InputError, match="A list of 24 numbers stands beside 24 samples"):
        WeightHessian(Aged(), {"x": X, "age": ages, "labels": X[:, :1]}, loss="squared_error")
    longer = WeightHessian(Aged(), {"x": X, "age": [*ages, 1.0], "labels": X[:, :1]}, loss="squared_error")
    with pytest.raises(InputError, match="lists of numbers"):
        longer.loss()
    tensor = {"x": X, "age": torch.tensor(ages), "labels": X[:, :1]}
    sizes = [WeightHessian(Aged(), tensor, loss="squared_error", chunk_size=size).loss for size in (None, 2)]
    torch.manual_seed(0)
    assert all(torch.isfinite(torch.tensor(loss())) for loss in sizes)


def doubled(model):
    model.load_state_dict({name: 2 * t for name, t in model.state_dict().items()}, assign=True)


def replaced(model):
    model[0] = nn.Linear(5, 4).double()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (doubled, "'0.weight' was replaced"),
        (replaced, "'0.weight' was replaced"),
        (lambda model: model.float(), "'0.weight' is now torch.float32 on cpu"),
        (lambda model: model[2].requires_grad_(False), "'2.weight' was frozen"),
    ],
)
@pytest.mark.parametrize("kind", [WeightHessian, GaussNewton])
def test_parameters_that_are_no_longer_the_models_are_refused(change, message, kind):
    model = plain()
    H = kind(model, X, Y)
    H @ V
    change(model)
    for call in (lambda: H @ V, H.loss, H.gradient):
        with pytest.raises(InputError, match=message):
            call()


def test_a_swap_through_data_is_seen():
    """The sum of the weights is the same before and after."""
    model = plain()
    H = WeightHessian(model, X, Y)
    H @ V
    model[2].weight.data.copy_(model[2].weight.data.flip(1))
    assert close(H.dense(), WeightHessian(model, X, Y).dense(), 1e-12)


def test_autocast_around_a_product_changes_nothing():
    model = plain().float()
    H = WeightHessian(model, X, Y, engine="graph")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = H @ V.float()
        loss = H.loss()
    H.release()
    assert torch.equal(inside, H @ V.float()) and loss == H.loss()


def test_outputs_of_sixteen_bits_are_refused():
    with pytest.raises(InputError, match=r"outputs in torch.bfloat16.*autocast"):
        WeightHessian(nn.Sequential(plain().float(), Does(lambda x: x.bfloat16())), X, Y).loss()


@pytest.mark.filterwarnings("ignore:Using `torch.compile")
def test_compiled_modules_run_as_they_were():
    plainly = WeightHessian(plain(), X, Y) @ V
    inside = nn.Sequential(torch.compile(plain(), backend="aot_eager"), nn.Identity())
    itself = plain()
    itself.compile(backend="aot_eager")
    for model in (inside, itself):
        assert close(WeightHessian(model, X, Y) @ V, plainly, 1e-12)


@pytest.mark.parametrize("what", ["inputs", "labels", "weights"])
def test_data_that_are_written_in_place_are_no_longer_multiplied(what):
    """Kept graphs are those of the data as they were."""
    data = {"inputs": X.float(), "labels": Y.clone(), "weights": torch.ones(N)}
    H = WeightHessian(plain(), data["inputs"], data["labels"], weights=data["weights"])
    H @ V
    data[what][0] = 2 - data[what][0]
    for call in (lambda: H @ V, H.loss, H.gradient):
        with pytest.raises(InputError, match="written in place after the operator was made"):
            call()


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss()])
def test_labels_of_eight_bits_are_labels(loss):
    """In 8 bits the label that does not count, -100, would be 156."""
    model = seeded(lambda: nn.Linear(5, 171)).double()
    labels = torch.tensor([3, 156, 170, 156]).to(torch.uint8)
    H = WeightHessian(model, X[:4], labels, loss=loss)
    assert H.total == 4
    assert H.loss() == pytest.approx(F.cross_entropy(model(X[:4]), labels.long()).item())


@pytest.mark.parametrize("targets", [Y[:5], Y[:5].double()])
def test_targets_that_would_be_broadcast_are_refused_whatever_their_kind(targets):
    column = nn.Linear(5, 1).double()
    with pytest.raises(InputError, match="would be broadcast"):
        WeightHessian(column, X[:5], targets, loss=nn.SmoothL1Loss()).loss()
    assert WeightHessian(nn.Sequential(column, nn.Flatten(0)), X[:5], targets, loss=nn.SmoothL1Loss()).loss() > 0


def test_weights_are_not_given_twice_nor_to_a_loader_that_shuffles():
    both = TensorDataset(X, Y, torch.rand(N))
    with pytest.raises(InputError, match="given twice"):
        WeightHessian(plain(), both, weights=torch.ones(N))
    shuffled = DataLoader(TensorDataset(X, Y), batch_sampler=BatchSampler(RandomSampler(range(N)), 5, False))
    with pytest.raises(InputError, match="shuffles cannot be given weights="):
        WeightHessian(plain(), shuffled, weights=torch.ones(N))
    assert close(WeightHessian(plain(), shuffled).dense(), WeightHessian(plain(), X, Y).dense(), 1e-12)


def test_inputs_that_a_model_writes_into_stay_the_callers():
    inputs = X.clone()
    model = leaking(lambda x: x.sub_(0.5).div_(0.25))
    H = WeightHessian(model, inputs, Y)
    truth = WeightHessian(leaking(lambda x: (x - 0.5) / 0.25), X, Y)
    for _ in range(2):
        assert close(H @ V, truth @ V, 1e-12) and H.loss() == pytest.approx(truth.loss())
    assert torch.equal(inputs, X)


class Counter(nn.Module):
    """Puts another tensor in place of its buffer at every call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return x


def test_buffers_that_a_model_replaces_are_put_back():
    counter = Counter()
    before = counter.calls
    WeightHessian(nn.Sequential(counter, plain()), X, Y) @ V
    assert counter.calls is before and before == 0


def test_gauss_newton_of_weights_that_are_not_used_is_zero():
    model = plain()
    model.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    G = GaussNewton(model, X, Y, parameters="unused", forward=lambda m, x: m(x), weight_decay=0.1)
    assert close(G.dense(), 0.1 * torch.eye(2, dtype=torch.float64), 1e-15)


def test_tensors_of_inference_mode_serve():
    with torch.inference_mode():
        x, y, w = X.clone(), Y.clone(), torch.ones(N)
    assert close(WeightHessian(plain(), x, y, weights=w) @ V, WeightHessian(plain(), X, Y) @ V, 1e-12)


def test_settings_of_precision_that_are_exact_already_are_not_touched():
    """Written once, a setting no longer follows the one of all backends, so this needs a process of its own."""
    code = """
import torch, hbanalysis as hb
H = hb.WeightHessian(torch.nn.Linear(3, 2), torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))
H @ torch.ones(8)
torch.backends.fp32_precision = "tf32"
exact = H @ torch.ones(8)
print(torch.backends.mkldnn.matmul.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tf32", "tf32"]
