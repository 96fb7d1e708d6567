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
# Relative deviations above which an operator is another: of a product from the one stored, in roundings and at least,
# and of the checksum of the weights.
SAME, SAME_AT_LEAST, SAME_WEIGHTS = 1e3, 1e-9, 1e-12
_FINGERPRINT = "fingerprint"


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
        state, notes = checkpoints.load(file)
        _compare(space, state, notes.get(_FINGERPRINT), file)
        space.load(state)

    def after() -> None:
        nonlocal last
        if time.monotonic() - last >= INTERVAL:
            checkpoints.save(file, space.state(), _notes(space), sealed=True)
            last = time.monotonic()

    try:
        yield after
    except BaseException:
        if space.size:
            checkpoints.save(file, space.state(), _notes(space), sealed=True)
        raise
    file.unlink(missing_ok=True)


def _notes(space: KrylovSpace) -> dict[str, float]:
    """Return the operator's checksum of its weights, if it has weights."""
    taken = getattr(space.operator, _FINGERPRINT, None)
    return {} if taken is None else {_FINGERPRINT: taken()}


def _compare(space: KrylovSpace, state: dict[str, torch.Tensor], stored_sum: float | None, file: Path) -> None:
    """Raise unless the weights are those of the run and the operator does to the first vector what the run says.

    Cost: one product.
    """
    columns, M, F = state["columns"], state["M"], state["F"]
    message = f"{file} keeps a run of another operator (other weights, data or loss). Delete it or name another file."
    if columns.shape[1] != space.n or columns.dtype != space.operator.dtype:
        raise InputError(message)
    now = _notes(space).get(_FINGERPRINT, stored_sum)
    if stored_sum is not None and now is not None and abs(now - stored_sum) > SAME_WEIGHTS * abs(stored_sum):
        raise InputError(message)
    if len(M) > space.width:
        raise InputError(
            f"{file} keeps {len(M)} vectors; go on with subspace={len(M)} at least, as the run before had."
        )
    stored = torch.cat([M[:, 0], F[0]]) @ columns.double()
    product = (space.operator @ columns[0].to(space.operator.device)).double().cpu()
    allowed = max(SAME * torch.finfo(space.operator.dtype).eps, SAME_AT_LEAST)
    if norm(product - stored) > allowed * max(norm(stored), float(M.abs().max())):
        raise InputError(message)
