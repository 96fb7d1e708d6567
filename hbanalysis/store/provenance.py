"""Where a number comes from: machine, versions, commit, time."""

import os
import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hbanalysis.folders import PACKAGE


def environment(device: str | torch.device) -> dict[str, Any]:
    """Return device, threads, versions, platform, commit and date as JSON data."""
    kind = torch.device(device)
    return {
        "device": kind.type,
        "device_name": torch.cuda.get_device_name(kind) if kind.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "hbanalysis": version("hbanalysis"),
        "commit": commit(),
        "date": datetime.now(UTC).replace(microsecond=0).isoformat(),
    }


@cache
def commit() -> str | None:
    """Return the commit of the checkout that holds the package, ``+changes`` if its code differs, else ``None``."""
    try:
        head = _git(PACKAGE, "rev-parse", "--short=12", "HEAD")
        changed = _git(PACKAGE, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+changes" if changed else head


class Stopwatch:
    """Wall seconds by phase, and the CPU seconds of this process; both add up over interrupted runs."""

    def __init__(self, seconds: dict[str, float] | None = None, cpu_seconds: float = 0.0) -> None:
        self.seconds = dict(seconds or {})
        self._cpu = cpu_seconds - _cpu_seconds()

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds so far, user and system."""
        return self._cpu + _cpu_seconds()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a phase, also when it ends by an exception."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _git(folder: Path, *words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return answer.stdout.strip()


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores"
