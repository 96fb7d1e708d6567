"""Loaders: any re-iterable of batches, regrouped into chunks; and the choice of what given data are.

How a loader groups samples into batches does not matter: they are regrouped across batch borders, as long as their
shapes allow it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset
from torch.utils.data.distributed import DistributedSampler
from torch.utils.data.sampler import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from hbanalysis.errors import InputError, require
from hbanalysis.memory import as_text
from hbanalysis.operators import structures
from hbanalysis.operators.samples import Chunk, DatasetSamples, Samples, TensorSamples, checked, unpacked

_DRAWN = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


def samples_of(data: Any, targets: Any = None, weights: Any = None) -> Samples:
    """Return what was given as samples.

    Args:
        data: Inputs if ``targets`` are given (a tensor, or a tuple or dict of tensors); otherwise one dict with
            ``"labels"``, a map-style data set, or a re-iterable of batches.
        targets: Targets ``(N,)`` or ``(N, ...)``, or a tuple or dict of such tensors.
        weights: Weights of the samples, ``(N,)``.

    Raises:
        InputError: Missing targets, data that can be iterated only once, or lengths that do not match.
    """
    weights = None if weights is None else torch.as_tensor(weights)
    if targets is not None:
        given = checked(data, targets, weights)
        return TensorSamples(given.inputs, given.targets, given.weights)
    if isinstance(data, Mapping):
        batch = unpacked(data)
        return samples_of(batch.inputs, batch.targets, weights)
    if isinstance(data, Tensor) or not (hasattr(data, "__iter__") or hasattr(data, "__getitem__")):
        raise InputError(
            f"Inputs need as many targets; given none, with data of type {type(data).__name__}. Give inputs and "
            "targets, a Dataset, or a DataLoader or list of batches."
        )
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        samples = DatasetSamples(data, weights)
        require(weights is None or weights.shape == (len(samples),), _unequal(len(samples), weights))
        return samples
    _check_loader(data)
    return LoaderSamples(data, weights)


def _check_loader(data: Any) -> None:
    require(
        not hasattr(data, "__next__"),
        "The data can be iterated only once (a generator or iterator), but every product needs a whole pass. "
        "Give a list of batches, a DataLoader, or two tensors.",
    )
    require(not isinstance(data, IterableDataset), "An IterableDataset yields single samples; give a DataLoader of it.")
    require(
        not isinstance(getattr(data, "sampler", None), DistributedSampler),
        "The samples are shared among the processes here; give the loader without a DistributedSampler, which repeats "
        "samples to make equal shares.",
    )


def _unequal(samples: int, weights: Tensor | None) -> str:
    return f"{samples} samples need as many weights; given {0 if weights is None else len(weights)}."


class LoaderSamples(Samples):
    """Any re-iterable of batches, regrouped into chunks."""

    def __init__(self, batches: Iterable[Any], weights: Tensor | None) -> None:
        self._batches, self._weights = batches, weights
        by_batch = getattr(getattr(batches, "batch_sampler", None), "sampler", None)
        self.fixed = not isinstance(getattr(batches, "sampler", None), _DRAWN) and not isinstance(by_batch, _DRAWN)
        require(
            weights is None or self.fixed,
            "A loader that shuffles cannot be given weights=; yield them as the third entry of each batch.",
        )

    def chunks(self, size: int, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Chunk]:
        """See `Samples.chunks`; a chunk ends early where the shape of the samples changes."""
        waiting: list[Chunk] = []
        number = 0
        for piece in self._pieces(rank, world):
            if waiting and waiting[0].row_signature != piece.row_signature:
                yield from _numbered([_joined(waiting)], number, skip)
                number, waiting = number + 1, []
            waiting.append(piece)
            if sum(map(len, waiting)) < size:
                continue
            whole = _joined(waiting)
            cut = len(whole) - len(whole) % size
            full = [_shifted(whole, a, size, world) for a in range(0, cut, size)]
            yield from _numbered(full, number, skip)
            number += len(full)
            waiting = [_shifted(whole, cut, size, world)] if cut < len(whole) else []
        if waiting:
            yield from _numbered([_joined(waiting)], number, skip)

    def indexable(self, limit: int) -> TensorSamples:
        """Return the samples gathered into memory."""
        pieces: list[Chunk] = []
        taken = 0
        for piece in self._pieces(0, 1):
            taken += sum(t.nbytes for t in structures.leaves((piece.inputs, piece.targets, piece.weights)))
            require(
                taken <= limit,
                f"Choosing samples of a loader gathers it into memory, and it takes more than {as_text(limit)}. "
                "Raise memory_budget, or give tensors or a Dataset with len() and [index].",
            )
            require(
                not pieces or pieces[0].row_signature == piece.row_signature,
                "Samples of different shapes cannot be gathered from a loader; pad them to one shape or give a "
                "Dataset with len() and [index].",
            )
            pieces.append(piece)
        require(bool(pieces), "The data holds no sample; a mean loss needs at least one.")
        whole = _joined(pieces)
        return TensorSamples(whole.inputs, whole.targets, whole.weights)

    def _pieces(self, rank: int, world: int) -> Iterator[Chunk]:
        """Yield this process's samples of every batch that has some."""
        offset = 0
        for batch in self._batches:
            piece = unpacked(batch)
            if self._weights is not None:
                require(piece.weights is None, "Weights are given twice: weights= and as the third entry of a batch.")
                given = self._weights[offset : offset + len(piece)]
                require(
                    len(given) == len(piece),
                    f"More than {offset + len(given)} samples need as many weights; given {len(self._weights)}.",
                )
                piece = Chunk(piece.inputs, piece.targets, given)
            start = (rank - offset) % world
            own = piece if world == 1 else piece.rows(slice(start, None, world))
            if len(own):
                yield Chunk(own.inputs, own.targets, own.weights, 0, offset + start)
            offset += len(piece)
        if self._weights is not None:
            require(offset == len(self._weights), _unequal(offset, self._weights))


def _joined(pieces: list[Chunk]) -> Chunk:
    if len(pieces) == 1:
        return pieces[0]
    inputs, targets, weights = structures.zipped(torch.cat, [(p.inputs, p.targets, p.weights) for p in pieces])
    return Chunk(inputs, targets, weights, 0, pieces[0].first)


def _shifted(whole: Chunk, start: int, size: int, world: int) -> Chunk:
    return replace(whole.rows(slice(start, start + size)), first=whole.first + start * world)


def _numbered(chunks: list[Chunk], number: int, skip: int) -> Iterator[Chunk]:
    for index, chunk in enumerate(chunks, start=number):
        if index >= skip:
            yield replace(chunk, index=index)
