"""Memory stays flat over many products and epochs: what grows a little each time fills a machine in a night."""

import gc
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, nn

import hbanalysis as hb
from hbanalysis import data, training

PRODUCTS, EPOCHS = 1000, 200
ALLOWED = 20e6  # bytes that an allocator may keep for itself; one weight vector lost each time would be more


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())


@pytest.mark.survives("Long runs")
@pytest.mark.parametrize("budget", [0, 10**9])
def test_memory_is_flat_over_a_thousand_products(budget: int):
    """A thousand Hessian-vector products, with graphs kept and without: resident memory and the number of tensors are
    after the last what they were after the first fifty."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))
    samples = data.load("digits", samples=64)
    H = hb.WeightHessian(model, samples.images, samples.labels, chunk_size=32, memory_budget=budget)
    vector = torch.ones(H.shape[0])
    for _ in range(50):
        H @ vector
    before, known = resident(), tensors()
    for _ in range(PRODUCTS):
        H @ vector
    assert 4 * H.shape[0] * PRODUCTS > 4 * ALLOWED  # a leak of one vector a product would show
    assert resident() - before < ALLOWED
    assert tensors() <= known


@pytest.mark.full
@pytest.mark.survives("Long runs")
def test_memory_is_flat_over_two_hundred_epochs(tmp_path: Path):
    """Two hundred epochs of a training with its record and checkpoints: the same, from the twentieth on."""
    samples = data.load("digits", samples=20)
    config = training.TrainingConfig(
        *("digits", "M1", 20), train_samples=20, target_loss=None, max_epochs=EPOCHS, learning_rate=0.001
    )
    seen: dict[int, tuple[int, int]] = {}
    calls = 0

    def watch(fraction: float) -> None:
        nonlocal calls
        calls += 1
        if calls in (20, EPOCHS):
            seen[calls] = resident(), tensors()

    record = training.train(config, samples, tmp_path, watch)
    assert (record.status, len(record.history)) == ("finished", EPOCHS)
    assert calls >= EPOCHS
    (before, known), (after, last) = seen[20], seen[EPOCHS]
    weights = sum(p.numel() for p in config.network_on("cpu").parameters())
    assert 4 * weights * (EPOCHS - 20) > 10 * ALLOWED
    assert after - before < ALLOWED
    assert last <= known
