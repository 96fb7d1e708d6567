"""The weights of a training at chosen epochs, kept in the work folder of the cell that measures them."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from hbanalysis import checkpoints
from hbanalysis.errors import require


def chosen_epochs(dense: int, growth: float) -> Iterator[int]:
    """Yield 1, 2, ..., ``dense``, and from there on epochs that grow by a factor, without end.

    Raises:
        InputError: ``dense`` below 1, or a factor not above 1.

    Example:
        >>> from itertools import islice
        >>> list(islice(chosen_epochs(3, 2.0), 6))
        [1, 2, 3, 6, 12, 24]
    """
    require(dense >= 1, f"dense must be at least 1 epoch; given {dense}.")
    require(growth > 1, f"growth must be a factor above 1; given {growth}.")
    yield from range(1, dense + 1)
    epoch, place = dense, float(dense)
    while True:
        place *= growth
        if round(place) > epoch:
            epoch = round(place)
            yield epoch


class Snapshots:
    """Keeps the weights at the ends of chosen epochs; to be given to `hbanalysis.training.train` as ``epoch_end``.

    Writing an epoch again, as after an interruption, replaces equal weights by equal ones.

    Args:
        folder: Where they are kept.
        dense: Every epoch up to this one.
        growth: Factor between later epochs.
    """

    def __init__(self, folder: Path, dense: int, growth: float) -> None:
        self.folder, self._epochs = folder, chosen_epochs(dense, growth)
        self._known = [next(self._epochs)]

    def __call__(self, epoch: int, model: nn.Module) -> None:
        """Keep the model's state if this epoch is one of the chosen."""
        if epoch in self.up_to(epoch):
            checkpoints.save(self.path(epoch), model.state_dict())

    def up_to(self, last: int) -> list[int]:
        """Return the chosen epochs up to one."""
        while self._known[-1] < last:
            self._known.append(next(self._epochs))
        return [epoch for epoch in self._known if epoch <= last]

    def complete(self, last: int) -> bool:
        """Whether every chosen epoch up to the last one is there."""
        return all(self.path(epoch).is_file() for epoch in self.up_to(last))

    def path(self, epoch: int) -> Path:
        """Return where the weights of an epoch are, or would be."""
        return self.folder / f"epoch-{epoch}.safetensors"

    def discard(self) -> None:
        """Remove them all."""
        shutil.rmtree(self.folder, ignore_errors=True)
