"""An interrupted run of products goes on where it stopped."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hbanalysis import checkpoints
from hbanalysis.eigen.basis import norm
from hbanalysis.eigen.krylov import KrylovSpace
from hbanalysis.errors import InputError

INTERVAL = 300.0  # seconds between two states on disk
SAME = 1e-3  # relative deviation of a product from the one stored, above which the operator is another


@contextmanager
def keeping(space: KrylovSpace, path: str | Path | None) -> Iterator[Callable[[], None]]:
    """Load ``space`` from ``path`` if that exists, and yield a function that keeps its state there now and then.

    The state is also written when the block is left by an exception, and removed when it ends.

    Raises:
        InputError: The file belongs to another operator.
        StoreError: The file cannot be read or written.
    """
    if path is None:
        yield lambda: None
        return
    file, last = Path(path), time.monotonic()
    if file.exists():
        state, _ = checkpoints.load(file)
        _compare(space, state, file)
        space.load(state)

    def after() -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            checkpoints.save(file, space.state(), sealed=True)
            last = time.monotonic()

    try:
        yield after
    except BaseException:
        if space.size:
            checkpoints.save(file, space.state(), sealed=True)
        raise
    file.unlink(missing_ok=True)


def _compare(space: KrylovSpace, state: dict[str, torch.Tensor], file: Path) -> None:
    """Raise unless the operator still does to the first vector what the stored relation says. Cost: one product."""
    columns, M, F = state["columns"], state["M"], state["F"]
    message = f"{file} keeps a run of another operator (other weights, data or loss). Delete it or name another file."
    if columns.shape[1] != space.n or columns.dtype != space.operator.dtype:
        raise InputError(message)
    stored = torch.cat([M[:, 0], F[0]]) @ columns.double()
    product = (space.operator @ columns[0].to(space.operator.device)).double().cpu()
    if norm(product - stored) > SAME * max(norm(stored), float(M.abs().max())):
        raise InputError(message)
