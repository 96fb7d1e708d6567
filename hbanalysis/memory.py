"""The allocator's manners: how much memory is free, and keeping what was freed."""

import ctypes
import sys
from pathlib import Path

import psutil
import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt in glibc's malloc.h


_GROUPS = Path("/sys/fs/cgroup")  # limits that containers and schedulers set
_FILES = (  # limit, use, and what of it can be dropped: control groups of version 2 and 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def available(device: torch.device) -> int:
    """Return the bytes that are free on a device now, within the limit of the container if there is one."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(psutil.virtual_memory().available, _room(_GROUPS))


def as_text(size: float) -> str:
    """Return bytes as a person reads them.

    Example:
        >>> as_text(1536), as_text(3_200_000_000)
        ('1.54 kB', '3.2 GB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{int(size)} bytes"


def _room(groups: Path) -> int:
    """What the control group leaves: its limit less what is used and cannot be dropped."""
    for maximum, current, statistics, droppable in _FILES:
        try:
            limit, used = (int((groups / name).read_text()) for name in (maximum, current))
            entries = dict(line.split() for line in (groups / statistics).read_text().splitlines())
        except (OSError, ValueError):  # another version, or no limit ("max")
            continue
        return max(limit - used + int(entries.get(droppable, 0)), 0)
    return sys.maxsize


def keep_freed_memory() -> bool:
    """Let the process keep freed blocks instead of handing each back to the kernel; return whether that worked.

    A training step on a CPU frees and takes the same large blocks again and again; with glibc's defaults every one of
    them is unmapped and mapped anew, and the kernel clears its pages each time. No effect elsewhere than on Linux with
    glibc.
    """
    if sys.platform != "linux":
        return False
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(_MMAP_THRESHOLD, 1 << 30)) and bool(libc.mallopt(_TRIM_THRESHOLD, -1))
    except (OSError, AttributeError):
        return False
