"""Data in every form give the same Hessian, and chunks of one shape whatever the batches were."""

from itertools import chain

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from hbanalysis.operators.loaders import samples_of
from tests.oracles import close, seeded

X = seeded(lambda: torch.randn(23, 4, dtype=torch.float64))
Y = seeded(lambda: torch.randint(0, 3, (23,)))
W = torch.arange(23) % 4


@pytest.fixture(scope="module")
def model():
    return seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))).double()


@pytest.fixture(scope="module")
def truth(model):
    return WeightHessian(model, X, Y, chunk_size=100, memory_budget=0).dense()


class Numbered(Dataset):
    """A map-style data set of (image, label) pairs, as torchvision has them."""

    def __len__(self):
        return 23

    def __getitem__(self, index):
        return X[index], int(Y[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([(X[0], Y[0])])


def batches(size):
    return list(zip(X.split(size), Y.split(size), strict=True))


FORMS = {
    "loader": lambda: DataLoader(TensorDataset(X, Y), batch_size=9),
    "shuffled": lambda: DataLoader(TensorDataset(X, Y), batch_size=9, shuffle=True),
    "dataset": lambda: Numbered(),
    "list": lambda: batches(5),
    "dict": lambda: {"input": X, "labels": Y},
    "numpy": lambda: [(x.numpy(), y.numpy()) for x, y in batches(7)],
    "unequal": lambda: batches(23) and [(X[:1], Y[:1]), (X[1:20], Y[1:20]), (X[20:], Y[20:])],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("budget", [0, 3000, 10**9])
def test_every_form_gives_the_same_hessian(model, truth, form, budget):
    H = WeightHessian(model, FORMS[form](), chunk_size=4, memory_budget=budget)
    assert (H.samples, H.total) == (23, 23.0)
    for _ in range(2):
        assert close(H.dense(), truth, 1e-12)


def test_order_and_float32_change_nothing_but_rounding(model, truth):
    order = seeded(lambda: torch.randperm(23))
    assert close(WeightHessian(model, X[order], Y[order], chunk_size=7).dense(), truth, 1e-12)
    single = seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))
    sizes = [WeightHessian(single, X, Y, chunk_size=size).dense().double() for size in (3, 23)]
    assert close(*sizes, 1e-6)


@pytest.mark.parametrize("form", ["tensors", "third", "loader", "dataset", "dict"])
def test_integer_weights_equal_repeated_samples(model, form):
    repeated = WeightHessian(model, X.repeat_interleave(W, 0), Y.repeat_interleave(W)).dense()
    data = {
        "tensors": ((X, Y), W),
        "third": ((DataLoader(TensorDataset(X, Y, W.double()), batch_size=5),), None),
        "loader": ((batches(6),), W),
        "dataset": ((Numbered(),), W),
        "dict": (({"input": X, "labels": Y},), W),
    }
    arguments, weights = data[form]
    H = WeightHessian(model, *arguments, weights=weights, chunk_size=4)
    assert (H.samples, H.total) == (23, W.sum().item())
    assert close(H.dense(), repeated, 1e-12)


def test_batches_are_regrouped_across_their_borders():
    samples = samples_of([(X[a:b], Y[a:b]) for a, b in [(0, 3), (3, 4), (4, 15), (15, 23)]])
    chunks = list(samples.chunks(5))
    assert [(len(c), c.index, c.first) for c in chunks] == [(5, 0, 0), (5, 1, 5), (5, 2, 10), (5, 3, 15), (3, 4, 20)]
    assert torch.equal(torch.cat([c.inputs for c in chunks]), X)
    assert [c.index for c in samples.chunks(5, skip=3)] == [3, 4]


def test_samples_of_other_shapes_end_a_chunk():
    short, long = torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 4, dtype=torch.long)
    samples = samples_of([(short, Y[:3]), (short, Y[:3]), (long, Y[:3]), (short, Y[:3])])
    assert [tuple(c.inputs.shape) for c in samples.chunks(4)] == [(4, 2), (2, 2), (3, 4), (3, 2)]
    with pytest.raises(InputError, match="different shapes cannot be gathered"):
        samples.indexable(10**6)


@pytest.mark.parametrize("form", ["list", "dataset", "dict", "unequal"])
@pytest.mark.parametrize("world", [2, 5, 30])
def test_shares_of_processes_are_strided_and_cover_the_set(form, world):
    samples = samples_of(FORMS[form]() if form != "dict" else {"input": X, "labels": Y})
    for rank in range(world):
        chunks = list(samples.chunks(3, rank, world))
        found = [c.inputs["input"] if form == "dict" else c.inputs for c in chunks]
        assert torch.equal(torch.cat(found) if found else X[:0], X[rank::world])
        assert [c.first for c in chunks] == list(range(rank, 23, 3 * world))


def test_parts_take_samples_by_number():
    samples = samples_of(X, Y, W).part([5, 3, 3, 20])
    (chunk,) = samples.chunks(10)
    assert torch.equal(chunk.inputs, X[[5, 3, 3, 20]]) and chunk.weights.tolist() == [1, 3, 3, 0] and chunk.first == 5
    (again,) = samples.part(torch.tensor([3, 0])).chunks(10)
    assert torch.equal(again.targets, Y[[20, 5]])
    (numbered,) = samples_of(Numbered(), None, W).part([5, 3, 3, 20]).chunks(10)
    assert torch.equal(numbered.inputs, chunk.inputs) and numbered.weights.tolist() == [1, 3, 3, 0]


def test_gathering_a_loader_stops_at_the_limit_whatever_its_batches_are():
    samples = samples_of(batches(5))
    whole = X.nbytes + Y.nbytes
    assert len(samples.indexable(whole)) == 23
    with pytest.raises(InputError, match="takes more than"):
        samples.indexable(whole - 1)


@pytest.mark.parametrize("form", FORMS)
def test_parts_of_every_form_add_up(model, truth, form):
    H = WeightHessian(model, FORMS[form](), chunk_size=4, weight_decay=0.1)
    some = list(range(0, 23, 3))
    rest = [i for i in range(23) if i not in some]
    parts = H.part(some, total=H.total), H.part(rest, total=H.total)
    decay = 0.1 * torch.eye(43, dtype=torch.float64)
    assert close(parts[0].dense() + parts[1].dense(), truth + decay, 1e-12)
    assert close(parts[0].gradient() + parts[1].gradient(), H.gradient(), 1e-12)
    assert parts[0].samples == len(some) and H.part(some).weight_decay == pytest.approx(0.1)


def test_sub_sampled_hessians(model):
    H = WeightHessian(model, X, Y, chunk_size=4)
    for size in (1, 5, 23):
        alone = WeightHessian(model, X[:size], Y[:size]).dense()
        assert close(H.part(range(size)).dense(), alone, 1e-12)
        assert close(H.part(range(size), total=size).dense(), alone, 1e-12)
    assert close(H.part([7, 7, 2]).part([0, 1]).dense(), WeightHessian(model, X[7:8], Y[7:8]).dense(), 1e-12)


def test_a_summand_of_ignored_samples_is_zero(model):
    labels = Y.clone()
    labels[:3] = -100
    H = WeightHessian(model, X, labels, weight_decay=1.0)
    assert torch.equal(H.doubts()[:3], torch.zeros(3, dtype=torch.float64)) and H.total == 20
    assert torch.equal(H.part([0, 2], total=H.total) @ torch.ones(43), torch.zeros(43))
    with pytest.raises(InputError, match="None of the 2 samples counts"):
        H.part([0, 2])


def test_doubts_come_in_the_order_of_the_samples(model):
    truth = 1 - model(X).softmax(1).gather(1, Y[:, None])[:, 0]
    for form in ("loader", "dataset", "list"):
        H = WeightHessian(model, FORMS[form](), chunk_size=4)
        assert torch.allclose(H.doubts(), truth, atol=1e-14)
    shuffled = WeightHessian(model, FORMS["shuffled"](), chunk_size=4)
    heaviest = int(shuffled.doubts().argmax())
    assert torch.allclose(shuffled.part([heaviest]).doubts(), truth.max(), atol=1e-14)


def test_bad_data_are_named(model):
    loader = DataLoader(TensorDataset(X, Y), batch_size=9)
    half = WeightHessian(model, loader, memory_budget=100)
    cases = [
        (lambda: WeightHessian(model, (b for b in [(X, Y)])), "only once"),
        (lambda: WeightHessian(model, zip([X], [Y], strict=True)), "only once"),
        (lambda: WeightHessian(model, X[:0], Y[:0]), "no sample"),
        (lambda: WeightHessian(model, []), "no sample"),
        (lambda: WeightHessian(model, X, Y[:5]), "Inputs of 23 samples need as many targets; given 5"),
        (lambda: WeightHessian(model, X), "given none"),
        (lambda: WeightHessian(model, 3), "given none, with data of type int"),
        (lambda: WeightHessian(model, (X, Y)), "given Tensor. .* WeightHessian"),
        (lambda: WeightHessian(model, [(X, Y, W, W)]), "given tuple of 4"),
        (lambda: WeightHessian(model, {"x": X}), "it has 'x'"),
        (
            lambda: WeightHessian(model, [(X, [1, 2])]),
            "a tuple or dict of tensors; given list",
        ),
        (lambda: WeightHessian(model, (X, torch.eye(4)), Y), "Inputs of 4 samples need as many targets; given 23"),
        (lambda: WeightHessian(model, ["text"], Y), "hold no tensor"),
        (lambda: WeightHessian(model, Stream()), "give a DataLoader of it"),
        (lambda: WeightHessian(model, X, Y, weights=W[:4]), "23 samples need as many weights"),
        (lambda: WeightHessian(model, Numbered(), weights=W[:4]), "23 samples need as many weights; given 4"),
        (lambda: WeightHessian(model, loader, weights=W[:4]), "samples need as many weights; given 4"),
        (lambda: WeightHessian(model, loader, weights=torch.ones(40)), "23 samples need as many weights; given 40"),
        (lambda: WeightHessian(model, [(X, Y, W.double())], weights=W), "given twice"),
        (lambda: WeightHessian(model, X, Y, weights=-W), r"not negative; given \[-1"),
        (lambda: WeightHessian(model, X, Y, weights=W * float("nan")), "not negative; given"),
        (lambda: WeightHessian(model, X, Y, weights=W * 0), "None of the 23 samples counts"),
        (lambda: WeightHessian(model, FORMS["shuffled"](), weights=W), "shuffles cannot be given weights="),
        (lambda: WeightHessian(model, DataLoader(Numbered(), sampler=distributed_sampler())), "DistributedSampler"),
        (lambda: WeightHessian(model, X, Y).part([23]), r"Sample \[23\] is out of range; there are 0..22"),
        (lambda: WeightHessian(model, X, Y).part(torch.ones(23) > 0), "Of a mask"),
        (lambda: WeightHessian(model, X, Y).part([]), "no sample"),
        (lambda: half.part([1]), "takes more than 100 bytes"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message):
            make()


def distributed_sampler():
    return DistributedSampler(Numbered(), num_replicas=2, rank=0)


def test_labels_out_of_range_name_value_range_and_chunk(model):
    labels = Y.clone()
    labels[13] = 7
    for compute in (
        lambda: WeightHessian(model, X, labels, chunk_size=5) @ torch.ones(43),
        lambda: WeightHessian(model, X, labels, chunk_size=5).loss(),
        lambda: WeightHessian(model, X, labels, chunk_size=5).doubts(),
    ):
        with pytest.raises(InputError, match=r"In chunk 2 \(samples 10 on\): The label 7 is out of range: .* 0\.\.2"):
            compute()


def test_data_that_change_between_passes_are_found(model):
    class Noisy(Numbered):
        def __getitem__(self, index):
            return X[index] + next(noise), int(Y[index])

    noise = chain([0.0] * 39, torch.linspace(0, 1, 23 * 10))  # two looks at eight samples, and the pass that counts
    H = WeightHessian(model, Noisy(), chunk_size=5, memory_budget=0)
    v = torch.ones(H.shape[0])
    H @ v
    with pytest.raises(InputError, match="must not change from pass to pass"):
        H @ v


def test_a_loader_that_runs_dry_is_found(model):
    class Dry:
        def __iter__(self):
            return iter(next(passes))

    passes = iter([*[batches(5)] * 3, *[batches(5)[:3]] * 9])
    H = WeightHessian(model, Dry(), chunk_size=5, memory_budget=0)
    with pytest.raises(InputError, match="gave 15 samples in this pass and 23 in an earlier one"):
        H @ torch.ones(H.shape[0])
