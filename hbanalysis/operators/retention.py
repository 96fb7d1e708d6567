"""Which chunks' graphs are kept between products, and the checks that every pass sees the same data."""

from collections.abc import Callable, Iterator

from torch import Tensor

from hbanalysis.errors import InputError, require
from hbanalysis.operators.objective import check_finite
from hbanalysis.operators.products import Engine, Handle
from hbanalysis.operators.samples import Chunk

_CHANGED = 1e-4  # relative change of a pass's loss that is more than rounding


class Retention:
    """Handles of all chunks, from the first ones kept in memory and the others built anew in each pass.

    Args:
        engine: Builds handles.
        budget: Bytes that kept handles may take.
        samples: Samples in every pass.
    """

    def __init__(self, engine: Engine, budget: int, samples: int) -> None:
        self.engine, self._budget, self._samples = engine, budget, samples
        self.drop()

    def drop(self) -> None:
        """Forget everything: the weights, or the way the data are cut, have changed."""
        self._kept: list[tuple[Handle, int]] = []
        self._complete = False
        self._seen: list[tuple[float, int]] | None = None

    def handles(self, chunks: Callable[[int], Iterator[Chunk]]) -> Iterator[Handle]:
        """Yield the handle of every chunk.

        Args:
            chunks: Yields the chunks, without so many at the beginning.

        Raises:
            NumericalError: The loss of a chunk is not finite.
            InputError: The data have changed since the first pass.
        """
        kept = list(self._kept)
        yield from (handle for handle, _ in kept)
        if self._complete:
            return
        used = sum(handle.bytes for handle, _ in kept)
        losses: list[Tensor] = []
        names: list[str] = []
        sizes: list[int] = []
        for number, chunk in enumerate(chunks(len(kept)), start=len(kept)):
            handle = self.engine.build(chunk, check=self._seen is None)
            losses.append(handle.loss)
            names.append(chunk.name)
            sizes.append(len(chunk))
            if handle.loss.device.type == "cpu":  # elsewhere reading it would wait for the device
                check_finite(losses[-1:], names[-1:])
            if self._budget and number == len(self._kept) and used + handle.bytes <= self._budget:
                used += handle.bytes
                self._kept.append((handle, len(chunk)))
            yield handle
            del handle
        check_finite(losses, names)
        seen = [(handle.loss.item(), size) for handle, size in kept]
        seen += [(loss.item(), size) for loss, size in zip(losses, sizes, strict=True)]
        self._compare(seen, len(kept))
        self._complete = len(self._kept) == len(seen)

    def _compare(self, seen: list[tuple[float, int]], kept: int) -> None:
        samples = sum(size for _, size in seen)
        require(
            samples == self._samples,
            f"The data gave {samples} samples in this pass and {self._samples} in an earlier one. Every pass must give "
            "the same samples; a loader over a generator does not.",
        )
        if self._seen is None:
            self._seen = seen
            return
        new, old = (sum(loss for loss, _ in losses[kept:]) for losses in (seen, self._seen))
        if abs(new - old) > _CHANGED * sum(abs(loss) for loss, _ in self._seen[kept:]):
            raise InputError(
                f"The summed loss of the same samples was {old:.8g} in the first pass and is {new:.8g} now, with the "
                "same weights. Data and model must not change from pass to pass: use a fixed order (shuffle=False), no "
                "random augmentation, and no randomness in eval mode."
            )
