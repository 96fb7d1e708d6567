"""Samples as chunks of one shape, and samples that can be asked for by number: tensors and indexable data sets.

A chunk is what is differentiated at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from hbanalysis.errors import InputError, require
from hbanalysis.operators import structures

_TARGETS = ("labels", "targets", "label", "target")


@dataclass(frozen=True)
class Chunk:
    """Samples that are differentiated at once.

    Attributes:
        inputs: A tensor, or a tuple or dict of tensors; each holds one entry a sample.
        targets: Targets ``(n,)`` or ``(n, ...)``, or a tuple or dict of such tensors for a loss that takes one.
        weights: Weight of each sample in the mean, ``(n,)``, or ``None`` for ones.
        index: Number of the chunk in its pass.
        first: Number of its first sample in the data set.
    """

    inputs: Any
    targets: Any
    weights: Tensor | None = None
    index: int = 0
    first: int = 0

    def __len__(self) -> int:
        return len(structures.first(self.targets))

    @property
    def name(self) -> str:
        """What error messages call it."""
        return f"chunk {self.index} (samples {self.first} on)"

    @property
    def signature(self) -> tuple[Any, ...]:
        """Shapes and kinds of everything in it: chunks of the same signature need the same memory."""
        return len(self), *self.row_signature

    @property
    def row_signature(self) -> tuple[Any, ...]:
        """The same for one sample: pieces of the same row signature can be joined."""
        return structures.signature((self.inputs, self.targets, self.weights))

    def to(self, device: torch.device, dtype: torch.dtype) -> "Chunk":
        """Return it on a device, floating-point tensors in ``dtype``, others as they are."""

        def moved(t: Tensor) -> Tensor:
            there = t.to(device, dtype if t.is_floating_point() else t.dtype)
            return there.clone() if there.is_inference() else there

        weights = None if self.weights is None else self.weights.to(device)
        weights = weights.clone() if weights is not None and weights.is_inference() else weights
        inputs, targets = structures.mapped(moved, (self.inputs, self.targets))
        return Chunk(inputs, targets, weights, self.index, self.first)

    def rows(self, which: slice | Tensor) -> "Chunk":
        """Return some of the samples."""
        inputs, targets, weights = structures.mapped(lambda t: t[which], (self.inputs, self.targets, self.weights))
        return Chunk(inputs, targets, weights, self.index, self.first)


class Samples(ABC):
    """A data set that can be walked through any number of times."""

    fixed = True  # every pass gives the same samples in the same order
    stored = False  # they are tensors that are there, so that no pass makes them anew

    def version(self) -> tuple[int, ...]:
        """Return counters that change when stored tensors are written in place; none where nothing is stored."""
        return ()

    @abstractmethod
    def chunks(self, size: int, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Chunk]:
        """Yield chunks of ``size`` samples, the last one of what is left.

        Args:
            size: Samples in a chunk.
            rank: Takes samples ``rank``, ``rank + world``, ...
            world: Number of processes that share the samples.
            skip: Leave out that many chunks at the beginning.
        """

    @abstractmethod
    def indexable(self, limit: int) -> "IndexedSamples":
        """Return the samples in a form that `IndexedSamples.part` can index.

        Raises:
            InputError: That would take more than ``limit`` bytes.
        """


class IndexedSamples(Samples):
    """Samples that can be asked for by number."""

    def __init__(self, stored: int, weights: Tensor | None, indices: Tensor | None = None) -> None:
        self._stored, self._weights, self._indices = stored, weights, indices

    def __len__(self) -> int:
        return self._stored if self._indices is None else len(self._indices)

    @abstractmethod
    def _take(self, which: slice | Tensor) -> tuple[Any, Any, Tensor | None]:
        """Return inputs, targets and weights of the stored samples ``which``."""

    @abstractmethod
    def _over(self, indices: Tensor) -> "IndexedSamples":
        """Return the stored samples ``indices``."""

    def chunks(self, size: int, rank: int = 0, world: int = 1, skip: int = 0) -> Iterator[Chunk]:
        """See `Samples.chunks`."""
        for number, start in enumerate(range(rank, len(self), size * world)):
            if number < skip:
                continue
            which = slice(start, start + size * world, world)
            stored = which if self._indices is None else self._indices[which]
            inputs, targets, weights = self._take(stored)
            first = start if self._indices is None else int(self._indices[start])
            yield Chunk(inputs, targets, weights, number, first)

    def indexable(self, limit: int) -> "IndexedSamples":
        """Return itself."""
        return self

    def part(self, indices: Iterable[int] | Tensor) -> "IndexedSamples":
        """Return the samples with these numbers, in this order; a number given twice counts twice.

        Raises:
            InputError: A number is out of range, or ``indices`` are no integers.
        """
        chosen = indices if isinstance(indices, Tensor) else torch.as_tensor(list(indices))
        if chosen.numel() == 0:
            chosen = chosen.long()
        if chosen.ndim != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise InputError(
                f"Samples are chosen by integers (k,); given {chosen.dtype} {tuple(chosen.shape)}. "
                "Of a mask, take mask.nonzero().flatten()."
            )
        chosen = chosen.long().cpu()
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        require(outside.numel() == 0, f"Sample {outside[:1].tolist()} is out of range; there are 0..{len(self) - 1}.")
        return self._over(chosen if self._indices is None else self._indices[chosen])


class TensorSamples(IndexedSamples):
    """Samples held in tensors: ``inputs`` and ``targets`` are tensors, or tuples or dicts of tensors."""

    stored = True

    def __init__(self, inputs: Any, targets: Any, weights: Tensor | None, indices: Tensor | None = None) -> None:
        super().__init__(len(structures.first(targets)), weights, indices)
        self._inputs, self._targets = inputs, targets

    def _take(self, which: slice | Tensor) -> tuple[Any, Any, Tensor | None]:
        return structures.mapped(lambda t: t[which], (self._inputs, self._targets, self._weights))

    def version(self) -> tuple[int, ...]:
        """See `Samples.version`."""
        tensors = structures.leaves((self._inputs, self._targets, self._weights))
        return tuple(t._version for t in tensors if not t.is_inference())

    def _over(self, indices: Tensor) -> "TensorSamples":
        return TensorSamples(self._inputs, self._targets, self._weights, indices)


class DatasetSamples(IndexedSamples):
    """A map-style ``torch.utils.data.Dataset``, collated chunk by chunk."""

    def __init__(self, dataset: Any, weights: Tensor | None, indices: Tensor | None = None) -> None:
        super().__init__(len(dataset), weights, indices)
        self._dataset = dataset

    def _take(self, which: slice | Tensor) -> tuple[Any, Any, Tensor | None]:
        numbers = range(*which.indices(self._stored)) if isinstance(which, slice) else which.tolist()
        samples = [self._dataset[i] for i in numbers]
        try:
            batch = unpacked(default_collate(samples))
        except RuntimeError as error:
            error.add_note("Samples of different shapes need a DataLoader with a collate_fn that pads them.")
            raise
        require(
            batch.weights is None or self._weights is None,
            "Weights are given twice: weights= and as the third entry of a sample.",
        )
        return batch.inputs, batch.targets, batch.weights if self._weights is None else self._weights[which]

    def _over(self, indices: Tensor) -> "DatasetSamples":
        return DatasetSamples(self._dataset, self._weights, indices)


def unpacked(batch: Any) -> Chunk:
    """Return a batch as a chunk.

    Args:
        batch: ``(inputs, targets)``, ``(inputs, targets, weights)``, or a dict with the targets under ``"labels"``,
            ``"targets"``, ``"label"`` or ``"target"`` whose other entries are keyword arguments of the model.

    Raises:
        InputError: The batch is none of these, or its tensors do not hold one entry a sample.
    """
    inputs: Any
    weights: Any = None
    if isinstance(batch, Mapping):
        key = next((name for name in _TARGETS if name in batch), None)
        require(
            key is not None,
            f"A dict batch needs its targets under 'labels' or 'targets'; it has {', '.join(map(repr, batch))}.",
        )
        inputs, targets = {name: value for name, value in batch.items() if name != key}, batch[key]
    elif isinstance(batch, list | tuple) and len(batch) in (2, 3):
        inputs, targets = batch[:2]
        weights = _weights(batch[2]) if len(batch) == 3 else None
    else:
        raise InputError(
            "A batch must be (inputs, targets), (inputs, targets, weights) or a dict with 'labels'; given "
            f"{type(batch).__name__}{f' of {len(batch)}' if isinstance(batch, list | tuple) else ''}. "
            "Tensors are given as WeightHessian(model, inputs, targets)."
        )
    return checked(inputs, targets, weights)


def _weights(third: Any) -> Tensor:
    """Return the third entry of a batch, which must be weights: an index or a name has no place there."""
    if isinstance(third, Tensor | np.ndarray) and torch.as_tensor(third).is_floating_point():
        return torch.as_tensor(third)
    kind = torch.as_tensor(third).dtype if isinstance(third, Tensor | np.ndarray) else type(third).__name__
    raise InputError(
        "The third entry of a batch is taken as the weights of its samples, a tensor of floating point; given "
        f"{kind}. Leave out an index or a name; turn whole weights into weights.float(); inputs of several tensors are "
        "a tuple, (inputs, targets) = ((a, b), targets)."
    )


def checked(inputs: Any, targets: Any, weights: Tensor | None = None) -> Chunk:
    """Return samples as one chunk, NumPy arrays as tensors.

    Raises:
        InputError: Inputs, targets and weights do not hold one entry for each of the same samples, or a weight is
            negative or not finite.
    """
    inputs, targets, weights = structures.mapped(lambda t: t, (inputs, targets, weights))
    found = structures.leaves(targets)
    require(bool(found), f"Targets must be a tensor, or a tuple or dict of tensors; given {type(targets).__name__}.")
    n = len(found[0]) if found[0].ndim else 0
    tensors = structures.leaves(inputs)
    require(bool(tensors), f"The inputs hold no tensor; given {type(inputs).__name__}.")
    for t in (*tensors, *found):
        size = len(t) if t.ndim else 0
        require(
            size == n and t.ndim > 0,
            f"Inputs of {size} samples need as many targets; given {n}. Every tensor holds one entry a sample along "
            "its first axis; bind anything else by forward=.",
        )
    lists = structures.lists_of_numbers((inputs, targets))
    require(
        n < 2 or all(len(numbers) != n for numbers in lists),
        f"A list of {n} numbers stands beside {n} samples, and only tensors are cut with them. Give a tensor; if these "
        "numbers belong to the model, bind them by forward=.",
    )
    if weights is not None:
        require(weights.shape == (n,), f"{n} samples need as many weights, shape ({n},); given {tuple(weights.shape)}.")
        wrong = weights[~(weights >= 0) | weights.isinf()]
        require(wrong.numel() == 0, f"Weights of samples are finite and not negative; given {wrong[:1].tolist()}.")
    return Chunk(inputs, targets, weights)
