"""Graphs are kept within the budget, memory stays flat, and losses that are not finite name their chunk."""

import threading

import psutil
import pytest
import torch
from torch import nn

from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import GaussNewton, WeightHessian
from hbanalysis.operators.products import GraphEngine, graph_bytes
from hbanalysis.operators.retention import Retention
from tests.oracles import seeded


class Spy(GraphEngine):
    """Counts the handles that it builds."""

    built = 0

    def build(self, chunk, check=False):
        self.built += 1
        return super().build(chunk, check)


def operator(budget, samples=40, size=10):
    class Spied(WeightHessian):
        _engine_type = Spy

    model = seeded(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    x = seeded(lambda: torch.randn(samples, 4))
    return Spied(model, x, torch.arange(samples) % 3, chunk_size=size, memory_budget=budget)


def handle_bytes():
    H = operator(0)
    chunk = next(H._chunks(10))
    return H._retention.engine.build(chunk).bytes


@pytest.mark.parametrize("kept", [0, 1, 2, 4])
def test_as_many_chunks_are_kept_as_fit(kept):
    H = operator(kept * handle_bytes() + 8)
    v = torch.ones(H.shape[0])
    first = H @ v
    engine = H._retention.engine
    engine.built = 0
    assert torch.equal(H @ v, first)
    assert engine.built == 4 - kept


def test_bytes_of_a_graph_are_those_it_saves():
    """tanh and linear save their inputs and outputs once; the weights are there anyway."""
    x, w = torch.randn(1000, 10), torch.randn(10, 10, requires_grad=True)
    size = graph_bytes(lambda: (x @ w).tanh().sum(), {w.untyped_storage().data_ptr()})
    assert size == x.nbytes + 1000 * 10 * 4
    engine, chunk = operator(0)._retention.engine, next(operator(0)._chunks(10))
    with torch.enable_grad():
        engine.build(chunk)  # the first call of a model is given copies of its inputs
    assert handle_bytes() == pytest.approx(engine.bytes_of(chunk))


def test_an_aborted_pass_leaves_a_usable_cache():
    H = operator(10**9)
    engine, chunks = H._retention.engine, list(H._chunks(10))
    retention = Retention(engine, 10**9, 40)

    def broken(skip):
        yield from chunks[skip:2]
        raise InterruptedError

    with pytest.raises(InterruptedError), torch.enable_grad():
        list(retention.handles(broken))
    assert len(list(retention.handles(lambda skip: iter(chunks[skip:])))) == 4
    engine.built = 0
    assert len(list(retention.handles(lambda skip: iter(chunks[skip:])))) == 4 and engine.built == 0


def test_a_loss_that_is_not_finite_names_its_chunk():
    H = operator(0)
    H._source._inputs[23] = torch.inf
    H._data = H._source.version()
    for compute in (lambda: H @ torch.ones(H.shape[0]), H.loss, H.gradient):
        with pytest.raises(NumericalError, match=r"The loss of chunk 2 \(samples 20 on\) is nan"):
            compute()
    assert H.products == 0


def test_samples_are_counted_in_every_pass():
    H = operator(0)
    retention = Retention(H._retention.engine, 0, 41)
    with pytest.raises(InputError, match="gave 40 samples in this pass and 41"):
        list(retention.handles(lambda skip: H._chunks(10, skip)))


class Peak:
    """Resident memory at its highest while a block runs, above that at its beginning."""

    def __enter__(self):
        self.process, self.stop = psutil.Process(), threading.Event()
        self.start = self.highest = self.process.memory_info().rss
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def watch(self):
        while not self.stop.wait(0.002):
            self.highest = max(self.highest, self.process.memory_info().rss)

    def __exit__(self, *error):
        self.stop.set()
        self.thread.join()

    @property
    def bytes(self):
        return self.highest - self.start


@pytest.mark.full
@pytest.mark.parametrize("kind", [WeightHessian, GaussNewton])
def test_peak_memory_does_not_grow_with_the_samples(kind):
    """Twelve times the samples would keep some 400 MB more; the budget is 40 MB."""
    peaks = []
    for samples in (400, 400, 4800):
        model = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2304, 10))
        H = kind(
            model, torch.rand(samples, 1, 28, 28), torch.arange(samples) % 10, chunk_size=50, memory_budget=40 << 20
        )
        v = torch.ones(H.shape[0])
        with Peak() as peak:
            H @ v, H @ v
        peaks.append(peak.bytes)
    assert peaks[2] < max(peaks[:2]) + 100e6
