"""The allocator's manners: how much memory is free, and keeping what was freed."""

import ctypes
import sys

import psutil
import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of mallopt in glibc's malloc.h


def available(device: torch.device) -> int:
    """Return the bytes that are free on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


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
