"""Several processes as one: rank, sums and decisions on ``torch.distributed``; every call is a no-op in one process.

Under ``torchrun`` the first call starts the process group, NCCL for CUDA tensors and gloo for the others. A group that
the program has started itself is used as it is.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor

from hbanalysis.errors import InputError, NumericalError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def world() -> int:
    """Return the number of processes that share the work, 1 without ``torchrun``."""
    return dist.get_world_size() if _joined() else 1


def rank() -> int:
    """Return this process's number among them, 0 without ``torchrun``."""
    return dist.get_rank() if _joined() else 0


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute for itself, as if there were no others: for work that one rank only does.

    Operators keep what held where they were made.

    Example:
        >>> with alone():
        ...     world()
        1
    """
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def all_reduce(tensor: Tensor) -> Tensor:
    """Return the sum of ``tensor`` over the processes, the same on each of them; one collective."""
    if not _joined():
        return tensor
    carried = tensor.to(_carrier(tensor.device), copy=True)
    dist.all_reduce(carried)
    return carried.to(tensor.device)


def broadcast(tensor: Tensor) -> Tensor:
    """Return rank 0's ``tensor``; one collective."""
    if not _joined():
        return tensor
    carried = tensor.to(_carrier(tensor.device), copy=True)
    dist.broadcast(carried, src=0)
    return carried.to(tensor.device)


def agree(flag: bool) -> bool:
    """Return rank 0's decision, so that every process stops at the same step.

    Example:
        >>> agree(True)
        True
    """
    return bool(broadcast(torch.tensor([int(flag)])).item())


def together(compute: Callable[[], Tensor], like: Tensor, same: Sequence[float] = ()) -> Tensor:
    """Return the sum over the processes of ``compute()``, in one all-reduce.

    A process that fails tells the others, which would wait for it otherwise.

    Args:
        compute: Returns this process's share, shaped as ``like``.
        like: A float64 tensor whose shape and device the result has.
        same: Numbers that must be equal in every process, such as the sum of the weights.

    Raises:
        InputError: The numbers that must be equal differ.
        NumericalError: Another process failed; its own message says why.
    """
    if not _joined():
        raise InputError("This was made for several processes; inside distributed.alone() make it anew.")
    failure: Exception | None = None
    share = torch.zeros_like(like)
    try:
        share = compute()
    except Exception as error:
        failure = error
    marks = torch.tensor([float(failure is not None), *same], dtype=torch.float64, device=like.device)
    reduced = all_reduce(torch.cat([share.reshape(-1), marks]))
    if failure is not None:
        raise failure
    failed, *sums = reduced[like.numel() :].tolist()
    if failed:
        raise NumericalError(f"{int(failed)} of {world()} processes failed in this product; see their messages.")
    if any(abs(total - world() * own) > 1e-12 * abs(total) for total, own in zip(sums, same, strict=True)):
        raise InputError(
            "The processes hold different data or weights, or multiply different vectors. Give every process the whole "
            "data, which are shared here; load the same checkpoint and seed every process alike; for work that one "
            "rank does by itself use distributed.alone()."
        )
    return reduced[: like.numel()].reshape(like.shape)


def _joined() -> bool:
    if _ALONE.get() or not dist.is_available():
        return False
    if not dist.is_initialized():
        if any(name not in os.environ for name in _VARIABLES) or int(os.environ["WORLD_SIZE"]) < 2:
            return False
        _start()
    return dist.get_world_size() > 1


def _start() -> None:
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if dist.is_nccl_available() and local < torch.cuda.device_count():
        torch.cuda.set_device(local)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    atexit.register(_stop)


def _stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _carrier(device: torch.device) -> torch.device:
    """The device on which a tensor can travel: a group of NCCL alone carries CUDA tensors only."""
    return torch.device("cuda") if device.type == "cpu" and dist.get_backend() == "nccl" else device
