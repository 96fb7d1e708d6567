"""The chunk size is the fastest of those tried; one that does not fit is refused in bytes."""

import pytest
import torch
from torch import nn

from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian, chunking
from hbanalysis.operators.chunking import ChunkSize
from hbanalysis.operators.products import Engine, Handle
from hbanalysis.operators.samples import Chunk
from tests.oracles import close, seeded


class Clock(Engine):
    """A machine whose products take ``seconds(size)``."""

    def __init__(self, seconds, per_sample=1000):
        self.seconds, self.per_sample, self.time = seconds, per_sample, 0.0
        self.tried = []

    def build(self, chunk, check=False):
        self.time += self.seconds(len(chunk)) / 2
        return Timed(self, len(chunk))


class Timed(Handle):
    def __init__(self, clock, size):
        super().__init__(torch.zeros(()))
        self.clock, self.size = clock, size

    @property
    def bytes(self):
        return 5000 + self.clock.per_sample * self.size

    def multiply(self, vector):
        self.clock.tried.append(self.size)
        self.clock.time += self.clock.seconds(self.size)
        return vector


def choose(monkeypatch, clock, own=10_000, wanted=None, free=10**9, budget=10**8):
    monkeypatch.setattr(chunking, "available", lambda device: free)
    monkeypatch.setattr(chunking, "_now", lambda device: clock.time)
    data = torch.zeros(own)

    def cut(size):
        return iter([Chunk(data[:size], data[:size])])

    return ChunkSize(wanted).settle(clock, cut, own, budget, torch.ones(3))


@pytest.mark.parametrize("best", [10, 25, 50, 100, 250, 500])
def test_the_fastest_size_is_found(monkeypatch, best):
    clock = Clock(lambda size: size * (1 + abs(torch.log(torch.tensor(size / best)).item())))
    assert choose(monkeypatch, clock) == best
    assert sum(clock.tried) <= 4000


def test_few_samples_are_not_measured(monkeypatch):
    clock = Clock(lambda size: 1.0)
    assert choose(monkeypatch, clock, own=400) == 100
    assert choose(monkeypatch, clock, own=5) == 5
    assert choose(monkeypatch, clock, own=0) == 1
    assert clock.tried == []


def test_memory_bounds_the_size(monkeypatch):
    always_larger = Clock(lambda size: 1.0)
    assert choose(monkeypatch, always_larger) == 2500
    assert choose(monkeypatch, always_larger, own=1797) == 1797
    assert choose(monkeypatch, always_larger, free=200_000) == 50
    assert choose(monkeypatch, always_larger, free=20_000) == 5


def test_what_does_not_fit_is_said_in_bytes(monkeypatch):
    clock = Clock(lambda size: 1.0, per_sample=10**6)
    message = r"chunk of 5000 samples needs about 10 GB \(2 MB a sample.* 2.*MB are free on cpu. Use chunk_size=12"
    with pytest.raises(InputError, match=message):
        choose(monkeypatch, clock, wanted=5000, free=25_600_000)
    with pytest.raises(InputError, match="Not one sample fits"):
        choose(monkeypatch, clock, free=10**6)
    assert choose(monkeypatch, clock, wanted=12, free=25_600_000) == 12
    assert clock.tried == []


def test_measured_sizes_change_nothing_but_rounding():
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))).double()
    x, y = seeded(lambda: torch.randn(700, 4)).double(), torch.arange(700) % 3
    fixed, measured = WeightHessian(model, x, y, chunk_size=33), WeightHessian(model, x, y)
    v = seeded(lambda: torch.randn(fixed.shape[0], 2)).double()
    assert close(measured @ v, fixed @ v, 1e-12)
    assert close(measured.part(range(20)) @ v, WeightHessian(model, x[:20], y[:20]) @ v, 1e-12)


def test_memory_is_measured_on_no_more_than_the_size_asked_for(monkeypatch):
    clock = Clock(lambda size: 1.0)
    built = []
    monkeypatch.setattr(clock, "build", lambda chunk, check=False: built.append(len(chunk)) or Timed(clock, len(chunk)))
    assert choose(monkeypatch, clock, wanted=1) == 1
    assert max(built) == 1
    assert choose(monkeypatch, clock, wanted=5) == 5
    assert max(built) == 5
