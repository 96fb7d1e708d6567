"""Means over samples as operators: data, cache, processes, and the part of them that subclasses ask for."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from hbanalysis import distributed
from hbanalysis.errors import InputError, require
from hbanalysis.memory import available
from hbanalysis.operators import structures
from hbanalysis.operators.chunking import DEFAULT_CHUNK, ChunkSize
from hbanalysis.operators.guards import check_model, checksum, differentiation, unwrapped, versions, weights_sum
from hbanalysis.operators.loaders import samples_of
from hbanalysis.operators.losses import IGNORED, Loss, PerSampleLoss
from hbanalysis.operators.matrices import Operator
from hbanalysis.operators.objective import Forward, Objective
from hbanalysis.operators.parameters import ParameterSpace
from hbanalysis.operators.products import GraphEngine
from hbanalysis.operators.retention import Retention
from hbanalysis.operators.samples import Chunk, IndexedSamples, Samples
from hbanalysis.operators.torch_losses import resolve

LARGEST_BUDGET = 4 << 30
_COUNTED = 1000  # samples read at once while they are counted
_COMPARED = 8  # samples read twice, to see whether they are the same, and compared among processes


class MeanOperator(Operator):
    """A symmetric operator that is a weighted mean over samples, plus weight decay; see `operators.WeightHessian`."""

    _engine_type: type[GraphEngine] = GraphEngine
    _retention: Retention
    _size: int  # samples in a chunk, 0 until that is settled
    total: float
    weight_decay: float

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        targets: Any = None,
        *,
        loss: str | PerSampleLoss | Loss = "cross_entropy",
        parameters: str | Sequence[str] | None = None,
        weights: Tensor | Sequence[float] | None = None,
        weight_decay: float = 0.0,
        ignore_index: int = IGNORED,
        forward: Forward | None = None,
        chunk_size: int | None = None,
        memory_budget: int | None = None,
        total: float | None = None,
        engine: str = "auto",
    ) -> None:
        bytes_given = memory_budget is None or (isinstance(memory_budget, int | float) and memory_budget >= 0)
        require(bytes_given, f"memory_budget is in bytes, a whole number; given {memory_budget!r}.")
        number = isinstance(weight_decay, int | float) and weight_decay >= 0
        require(number, f"weight_decay must not be negative, and one number; given {weight_decay!r}.")
        self.model = unwrapped(model)
        check_model(self.model)
        self.space = ParameterSpace(self.model, parameters)
        super().__init__(self.space.size, self.space.dtype, self.space.device)
        self._weight_decay = weight_decay
        self._loss = loss if isinstance(loss, Loss) else resolve(loss, ignore_index)
        self._objective = Objective(self.model, self.space, self._loss, forward)
        self._rank, self._world = distributed.rank(), distributed.world()
        self._engine = self._engine_type(self._objective, engine)
        self._chunk_size, self._memory_budget = ChunkSize(chunk_size), memory_budget
        self._state: tuple[float, ...] = ()  # of the weights that the kept graphs belong to
        self._walk(samples_of(data, targets, weights), total)

    @property
    def shared(self) -> bool:
        """Whether several processes share the samples, so that all of them must take every product."""
        return self._world > 1

    @property
    def engine(self) -> str:
        """How products are computed, ``"graph"`` or ``"traced"``, and why not faster if that was tried."""
        return f"graph ({self._engine.refused})" if self._engine.refused else self._engine.kind

    def fingerprint(self) -> float:
        """Return a checksum of the weights and buffers, by which a kept run knows its operator again."""
        return weights_sum(self.model)

    def release(self) -> None:
        """Give back the memory of the retained graphs; the next product builds them anew."""
        self._retention.drop()

    def _multiply(self, columns: Tensor) -> Tensor:
        vectors = columns.T.contiguous().clone()
        like = torch.zeros(vectors.shape, dtype=torch.float64, device=self.device)
        weights = weights_sum(self.model)
        if (*versions(self.model), weights) != self._state:
            self._retention.drop()
            self._engine.renew()

        def share() -> Tensor:
            if not self._size:
                self._size = self._chunk_size.settle(self._engine, self._chunks, self._own, self._budget, vectors[0])
                for chunk in islice(self._chunks(self._size), 1):
                    self._engine.prepare(chunk, self._own)
            total = torch.zeros_like(like)
            for handle in self._retention.handles(partial(self._chunks, self._size)):
                for vector, row in zip(vectors, total, strict=True):
                    row += handle.multiply(vector)
                del handle  # before the next chunk's graphs are built
            return total

        total = self._summed(share, like, float(vectors.sum(dtype=torch.float64)))
        self._state = (*versions(self.model), weights)  # buffers that a forward pass wrote were written back
        return total.T / self.total + self.weight_decay * columns.double()

    def _summed(self, share: Callable[[], Tensor], like: Tensor, same: float = 0.0, grad: bool = True) -> Tensor:
        """Run ``share`` with the model guarded, and add up the processes, which must agree on the weights."""
        self.space.check(self.model)
        require(
            self._source.version() == self._data,
            "The data were written in place after the operator was made; make a new operator.",
        )
        with differentiation(self.model, grad):
            if self._world == 1:
                return share()
            return distributed.together(share, like, [weights_sum(self.model), same])

    def _walk(self, source: Samples, total: float | None) -> None:
        """Take the samples: count them, and what the mean divides by, in one pass over the targets."""
        spare = available(self.device)
        most = spare // 2 if self.device.type == "cuda" else min(spare // 4, LARGEST_BUDGET)
        self._budget = most if self._memory_budget is None else self._memory_budget
        self._source, self._own, self._state = source, 0, ()
        self._data = source.version()
        self._size = 0
        self.label_relative = self._loss.relative
        if not source.fixed:
            self._fix_order()

        def share() -> Tensor:
            counted = torch.zeros((), dtype=torch.float64)
            for chunk in self._source.chunks(_COUNTED, self._rank, self._world):
                self._loss.check_form(chunk.targets)
                each = self._loss.counts(chunk.targets).cpu()
                counted += (each if chunk.weights is None else each * chunk.weights.cpu()).sum()
                self._own += len(chunk)
                self.label_relative &= not structures.first(chunk.targets).is_floating_point()
            return torch.stack([torch.tensor(self._own, dtype=torch.float64), counted])

        with differentiation(self.model, grad=False):
            first = self._first_samples()
        samples, counted = self._summed(share, torch.zeros(2, dtype=torch.float64), first, grad=False).tolist()
        require(samples > 0, "The data holds no sample; a mean loss needs at least one.")
        nothing = f"None of the {int(samples)} samples counts: weights are 0, or every label is ignored."
        require(counted > 0 or total is not None, nothing)  # a summand may be zero
        require(total is None or total > 0, f"total, which the sum is divided by, must be positive; given {total}.")
        self.samples, self.total = int(samples), total or counted
        self.weight_decay = self._weight_decay * counted / self.total
        self._retention = Retention(self._engine, self._budget, self._own)

    def _first_samples(self) -> float:
        """Return a checksum of the first samples of the whole set, after reading them twice.

        Raises:
            InputError: They were not the same both times.
        """
        if not self._source.fixed:
            return 0.0
        reads = [next(self._source.chunks(_COMPARED), None) for _ in range(1 if self._source.stored else 2)]
        found = [structures.leaves((one.inputs, one.targets)) if one else [] for one in reads]
        same = all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(found[0], found[-1], strict=True))
        require(
            same,
            "Two passes over the data gave different samples, and every product needs a pass. Use a fixed order "
            "(shuffle=False) and no random augmentation.",
        )
        return checksum(found[0])

    def _fix_order(self) -> None:
        """Gather a loader that shuffles, or else keep nothing between its passes."""
        try:
            self._indexable()
        except InputError:
            if self._world > 1:
                raise
            self._budget = 0

    def _indexable(self) -> IndexedSamples:
        """Return the samples in memory, where every later pass takes them from."""
        limit = available(torch.device("cpu")) // 4 if self._memory_budget is None else self._memory_budget
        found = self._source.indexable(limit)
        if found is not self._source:
            self._source, self._state, self._data = found, (), found.version()
        return found

    def _chunks(self, size: int, skip: int = 0) -> Iterator[Chunk]:
        for chunk in self._source.chunks(size, self._rank, self._world, skip):
            yield chunk.to(self.device, self.dtype)

    def _whole(self) -> Iterator[Chunk]:
        """Every chunk, for passes whose chunks leave nothing behind."""
        return self._chunks(self._size or self._chunk_size.known or DEFAULT_CHUNK.get(self.device.type, 1000))
