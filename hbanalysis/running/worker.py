"""One cell at a time: in this process, or as the child process that `hbanalysis.running.compute` starts and talks to.

A child is started as ``python -m hbanalysis.running.worker`` with the thread counts in its environment, since those
are read when torch is imported. It reads one JSON command a line from its standard input and answers with one
JSON event a line on what was its standard output; whatever a computation prints goes to standard error. A
closed input (the parent is gone) stops it at the next safe point, so that no orphan goes on computing.
"""

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from hbanalysis import studies
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.store import Row, Store
from hbanalysis.store.locks import KeyLock

Progress = Callable[[str, float], None]


class SafePoints:
    """A progress callback that stops a computation where nothing is lost.

    It raises `OutOfTimeError` when the next safe point, at the longest distance seen so far, would lie beyond
    the deadline, and KeyboardInterrupt once ``stop`` is set.
    """

    def __init__(
        self,
        seconds: float | None = None,
        stop: threading.Event | None = None,
        report: Progress = lambda phase, fraction: None,
    ) -> None:
        """Start the clock.

        Args:
            seconds: Time from now to the deadline; ``None`` means no deadline.
            stop: Set from elsewhere to stop at the next safe point.
            report: Called at every safe point that is passed.
        """
        self._last = time.monotonic()
        self._deadline = None if seconds is None else self._last + seconds
        self._longest = 0.0
        self._stop = stop or threading.Event()
        self._report = report

    def __call__(self, phase: str, fraction: float) -> None:
        """Pass a safe point, or raise."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last = now
        if self._stop.is_set():
            raise KeyboardInterrupt
        if self._deadline is not None and now + self._longest >= self._deadline:
            raise OutOfTimeError(f"the time budget ends in {max(self._deadline - now, 0.0):.0f} s")
        self._report(phase, fraction)


def compute_cell(
    study: Any,
    cell: Any,
    store: Store,
    *,
    device: str | None = None,
    progress: Progress = lambda phase, fraction: None,
    wait: bool = True,
) -> tuple[Row | None, bool]:
    """Return the row of a cell and whether it was computed by this call.

    The cell's key is locked while it is computed: where another process computes it already, this one waits
    and then reads that row.

    Args:
        study: The study.
        cell: One of its cells.
        store: Where the row is looked for and written.
        device: Passed to the study.
        progress: Called at safe points and while waiting.
        wait: Wait for another process that computes this cell; otherwise return ``(None, False)``.

    Raises:
        OutOfTimeError: From ``progress``; what was done is kept in the store.
    """
    key = study.key(cell)
    lock = KeyLock(store.root, key)
    if not lock.acquire(wait=wait, check=lambda: progress("waiting", 0.0)):
        return None, False
    with lock:
        row = store.get(study.name, key)
        if row is not None:
            store.discard_work(key)
            return row, False
        return study.compute(cell, store, device=device, progress=progress), True


def main() -> None:
    """Serve a parent process until it says that there is nothing left, or is gone."""
    # The terminal sends Ctrl-C to the whole group; only the parent acts on it, and asks for a stop at a safe
    # point.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    options = json.loads(sys.stdin.readline())
    if options["low_priority"]:
        _lower_priority()
    import torch

    torch.set_num_threads(options["threads"])
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(commands, stop), daemon=True).start()
    store = Store(options["store"])
    _answer(answers, event="ready", cpu=0.0)
    spent = 0.0
    while (command := commands.get()) is not None and not stop.is_set():
        result = _serve(command, store, options["device"], stop, answers)
        now = time.process_time()
        # The first cell carries the imports too, so that the sum over cells is what the process used.
        _answer(answers, **result, cpu=now - spent)
        spent = now


def _lower_priority() -> None:
    """Give way to every other process.

    Linux may share its cores between terminals first (autogroups) and look at niceness only within one, so a session of
    its own is lowered as a whole.
    """
    os.nice(19)
    group = Path("/proc/self/autogroup")
    if group.exists():
        with contextlib.suppress(OSError):
            os.setsid()
            group.write_text("19")


def _listen(commands: "queue.Queue[dict[str, Any] | None]", stop: threading.Event) -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if command["command"] == "finish":
            commands.put(None)
            return
        if command["command"] == "stop":
            break
        commands.put(command)
    stop.set()
    commands.put(None)


def _serve(
    command: dict[str, Any], store: Store, device: str | None, stop: threading.Event, answers: TextIO
) -> dict[str, Any]:
    started, told = time.monotonic(), [0.0]

    def report(phase: str, fraction: float) -> None:
        if time.monotonic() - told[0] > 0.2:
            told[0] = time.monotonic()
            _answer(answers, event="progress", phase=phase, fraction=fraction)

    try:
        study = studies.get(command["study"])
        row, computed = compute_cell(
            study,
            study.from_config(command["config"]),
            store,
            device=device,
            progress=SafePoints(command["seconds"], stop, report),
            wait=False,
        )
    except (OutOfTimeError, KeyboardInterrupt) as error:
        return {"event": "stopped", "why": str(error), "seconds": time.monotonic() - started}
    except Exception as error:  # one failing cell must not stop the others; the parent reports it
        return {
            "event": "failed",
            "bad_input": isinstance(error, InputError),
            "error": f"{type(error).__name__}: {error}",
            "trace": traceback.format_exc(),
        }
    if row is None:
        return {"event": "busy"}
    return {"event": "done", "computed": computed, "seconds": time.monotonic() - started}


def _answer(answers: TextIO, **event: Any) -> None:
    # Where the parent is gone, the closed input stops the computation at its next safe point.
    with contextlib.suppress(BrokenPipeError):
        answers.write(json.dumps(event) + "\n")


if __name__ == "__main__":
    main()
