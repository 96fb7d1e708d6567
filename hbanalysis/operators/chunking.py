"""How many samples to differentiate at once: measured, and checked against the memory before a long pass begins."""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise

import torch
from torch import Tensor

from hbanalysis.errors import InputError, require
from hbanalysis.memory import as_text, available
from hbanalysis.operators.products import Engine
from hbanalysis.operators.samples import Chunk

DEFAULT_CHUNK = {"cpu": 100, "cuda": 1000}
_LADDER = {"cpu": (10, 25, 50, 100, 250, 500, 1000, 2500), "cuda": (100, 250, 500, 1000, 2500, 5000, 10_000, 25_000)}
_START = {"cpu": 50, "cuda": 1000}
_WORTH = 10  # sizes are measured if there are so many times as many samples as in the first chunk tried
_REPEATS = 2  # products with a chunk that is tried; the faster one counts
_GAIN = 0.97  # a size that is not faster by this factor is not worth its memory
_PROBES = (2, 8)  # samples in the chunks whose graphs tell the memory a sample takes
_WORKING = 2  # a product needs its chunk's graphs once more for what it computes

Cut = Callable[[int], Iterator[Chunk]]  # chunks of so many samples


class Footprint:
    """Bytes that the graphs of a chunk take, as a straight line through two small chunks.

    Args:
        engine: Builds handles.
        cut: Cuts the data into chunks.
        most: Samples in the larger one at most: where a sample is large, such as a whole batch, not even a small chunk
            may be larger than the one asked for.
    """

    def __init__(self, engine: Engine, cut: Cut, most: int = _PROBES[1]) -> None:
        first, second = (next(cut(min(size, most))) for size in _PROBES)
        low, high = engine.build(first, check=True).bytes, engine.build(second, check=True).bytes
        grown = len(second) - len(first)
        self.probed = len(second)
        self.sample = max((high - low) / grown, 1.0) if grown else high / len(second)
        self.fixed = max(high - self.sample * len(second), 0.0)

    def of(self, samples: int) -> float:
        """Return the bytes for a chunk of so many samples."""
        return self.fixed + self.sample * samples

    def largest(self, device: torch.device) -> int:
        """Return how many samples fit into what is free now."""
        return int((available(device) / _WORKING - self.fixed) / self.sample)

    def check(self, samples: int, device: torch.device) -> None:
        """Raise `InputError` if a chunk of so many samples does not fit.

        Raises:
            InputError: Says what is needed and what is free, in bytes, and which size would fit.
        """
        free, needed = available(device), _WORKING * self.of(samples)
        if needed > free:
            fits = self.largest(device)
            advice = f"Use chunk_size={fits} or less." if fits > 0 else "Not one sample fits; use a smaller model."
            raise InputError(
                f"A product over a chunk of {samples} samples needs about {as_text(needed)} "
                f"({as_text(_WORKING * self.sample)} a sample, measured on {self.probed} samples), but "
                f"{as_text(free)} are free on {device}. {advice}"
            )


class ChunkSize:
    """The chunk size of an operator and of its parts; measured once.

    Args:
        wanted: The size that was asked for, or ``None`` to choose one by measuring.

    Raises:
        InputError: The size is not positive.
    """

    def __init__(self, wanted: int | None = None) -> None:
        require(wanted is None or wanted > 0, f"chunk_size must be at least 1; given {wanted}.")
        self.wanted, self._measured = wanted, 0

    @property
    def known(self) -> int | None:
        """The size that is settled already, if it is."""
        return self.wanted or self._measured or None

    def settle(self, engine: Engine, cut: Cut, own: int, budget: int, vector: Tensor) -> int:
        """Return the size to use: the one wanted if it fits, otherwise the fastest of a few.

        Args:
            engine: Builds handles.
            cut: Cuts the data into chunks.
            own: Samples that this process walks through.
            budget: Bytes for kept graphs.
            vector: What to multiply, ``(n,)``.

        Cost: where sizes are measured, the first time, some two passes over at most twice the samples, if larger sizes
        stay faster; nothing if there are few samples.

        Raises:
            InputError: The size wanted does not fit into memory.
        """
        if own <= _PROBES[-1]:
            return self.known or max(own, 1)
        footprint = Footprint(engine, cut, self.known or _PROBES[1])
        footprint.check(min(self.known or 1, own), vector.device)
        if self.known:
            return self.known
        kind = vector.device.type if vector.device.type in _LADDER else "cuda"
        if own < _WORTH * _START[kind]:
            return max(min(DEFAULT_CHUNK[kind], footprint.largest(vector.device)), 1)
        self._measured = _fastest(engine, cut, own, footprint, budget, vector, kind)
        return self._measured


def _fastest(engine: Engine, cut: Cut, own: int, footprint: Footprint, budget: int, vector: Tensor, kind: str) -> int:
    """Return the chunk size with the fastest products among a few that are tried.

    Sizes are tried upwards from a middle one while they pay, otherwise downwards. What counts is the time a sample:
    that of multiplying, and that of building for the share of the chunks whose graphs the budget cannot hold.
    """
    fits = min(footprint.largest(vector.device), own)
    sizes = (*_LADDER[kind], own) if own < _LADDER[kind][-1] else _LADDER[kind]
    ladder = sorted({size for size in sizes if size <= fits}) or [max(fits, 1)]
    start = max((i for i, size in enumerate(ladder) if size <= _START[kind]), default=0)

    def cost(size: int) -> float:
        built, multiplied = _seconds(engine, next(cut(size)), vector)
        held = min(budget / max(footprint.of(size) * own / size, 1.0), 1.0)
        return (multiplied + (1 - held) * built) / size

    cost(ladder[start])  # warms up
    best, lowest = start, cost(ladder[start])
    for step in (1, -1):
        place = start + step
        while 0 <= place < len(ladder):
            tried = cost(ladder[place])
            if tried > _GAIN * lowest:
                break
            best, lowest = place, tried
            place += step
        if best != start:
            break
    return ladder[best]


def _seconds(engine: Engine, chunk: Chunk, vector: Tensor) -> tuple[float, float]:
    """Return the seconds to build a chunk's handle, and to multiply by it (the fastest of a few)."""
    started = _now(vector.device)
    handle = engine.build(chunk, check=True)
    times = [_now(vector.device)]
    for _ in range(_REPEATS):
        handle.multiply(vector)
        times.append(_now(vector.device))
    return times[0] - started, min(after - before for before, after in pairwise(times))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
