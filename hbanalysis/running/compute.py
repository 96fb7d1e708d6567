"""Computes missing cells over worker processes of one thread each, inside a time budget if there is one.

Two threads on two busy cores can be many times slower than one, so the default is as many processes as cores
with one thread each; on CUDA it is one process. All of them share one store, so that a cell is computed once
and a stopped one goes on where it was.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbanalysis import studies
from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import PART, sweep
from hbanalysis.running.child import Child, Task
from hbanalysis.running.display import Display, duration
from hbanalysis.store import Store

# A worker that does not reach a safe point in this many seconds after Ctrl-C is killed; its last checkpoint
# stays.
_GRACE = 60.0
_RETRY = 1.0


@dataclass(frozen=True)
class Failure:
    """A cell that raised an error, the error, and whether the user's input was at fault."""

    task: Task
    error: str
    trace: str = ""
    bad_input: bool = False


@dataclass
class Outcome:
    """What became of the cells that `run` was asked for.

    Attributes:
        present: Cells whose row was in the store already, or came from another process meanwhile.
        computed: Cells whose row was computed now.
        missing: Cells without a row that did not fail: out of time, or interrupted.
        failed: Cells that raised an error.
        seconds: Wall seconds spent on a cell, by key, finished or not.
        cpu_seconds: CPU-seconds of the workers by study, imports included.
        interrupted: Whether Ctrl-C ended the run.
        elapsed: Wall seconds of the whole run.
    """

    present: list[Task] = field(default_factory=list)
    computed: list[Task] = field(default_factory=list)
    missing: list[Task] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    interrupted: bool = False
    elapsed: float = 0.0

    @property
    def done(self) -> list[Task]:
        """Cells that have a row."""
        return self.present + self.computed

    @property
    def exit_code(self) -> int:
        """0 complete, 1 a cell failed, 2 so by bad input alone, 3 cells missing, 130 interrupted."""
        if self.interrupted:
            return 130
        if self.failed:
            return 2 if all(failure.bad_input for failure in self.failed) else 1
        return 3 if self.missing else 0


def run(
    tasks: Iterable[tuple[str, Any]],
    store: Store,
    *,
    device: str | None = None,
    workers: int | None = None,
    threads: int = 1,
    time_budget: float | None = None,
    low_priority: bool = False,
    longest_first: bool = True,
    show: bool | None = None,
) -> Outcome:
    """Compute the cells that the store lacks; what killed processes left half-written is removed.

    Args:
        tasks: Pairs of a study's name and one of its cells; a cell given twice is computed once.
        store: Where rows and checkpoints are.
        device: ``"cpu"``, ``"cuda"``, ...; ``None`` lets the study choose.
        workers: Number of processes; ``None`` means one a core and ``threads``, or one on CUDA.
        threads: Threads of each process.
        time_budget: Wall seconds after which cells stop at a safe point; ``None`` means no limit.
        low_priority: Compute at the lowest priority of the operating system.
        longest_first: Start with the longest cells, which keeps all workers busy to the end; else in the order given.
        show: ``False`` for no output on standard error.

    Raises:
        InputError: The store cannot be written, or a number or the device is wrong. Errors of a cell do not
            raise: they are in `Outcome.failed`.
    """
    began = time.monotonic()
    for name, number in (("workers", workers), ("threads", threads), ("time_budget", time_budget)):
        if number is not None and number <= 0:
            raise InputError(f"{name} must be positive; given {number}.")
    outcome = Outcome()
    sweep(store.root)
    wanted: dict[str, Task] = {}
    for name, cell in tasks:
        task = Task.of(studies.get(name), cell)
        wanted.setdefault(task.key, task)
    todo: list[Task] = []
    for task in wanted.values():
        try:
            there = store.get(task.study, task.key) is not None
            (outcome.present if there else todo).append(task)
            if there:
                store.discard_work(task.key)
        except StoreError as error:
            outcome.failed.append(Failure(task, str(error)))
            if show is not False:
                print(f"{task.study}, {task.label}: FAILED: {error}", file=sys.stderr)
    if longest_first:
        todo.sort(key=lambda task: -task.cost)
    if todo:
        _require_writable(store.root)
        cuda = uses_cuda(device)
        count = workers or (1 if cuda else max(1, len(os.sched_getaffinity(0)) // threads))
        options = {
            "device": device,
            "threads": threads,
            "low_priority": low_priority,
            "store": str(store.root),
        }
        deadline = None if time_budget is None else began + time_budget
        with Display({task.key: task.cost for task in todo}, show) as display:
            _Schedule(todo, store, options, outcome, display, deadline).run(min(count, len(todo)))
    outcome.cpu_seconds = dict(outcome.cpu_seconds)
    outcome.elapsed = time.monotonic() - began
    return outcome


def uses_cuda(device: str | None) -> bool:
    """Tell whether cells will be computed on CUDA: asked for, or not said and present.

    Raises:
        InputError: Not a device of torch, or CUDA is asked for and absent.
    """
    if device is None and not Path("/dev/nvidiactl").exists():
        return False
    import torch

    try:
        kind = torch.device(device).type if device is not None else None
    except RuntimeError as error:
        raise InputError(f"{device!r} is not a device. Try 'cpu', 'cuda' or 'cuda:0'.") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"Device {device!r} was asked for, but torch finds no CUDA here. Try --device cpu.")
    return kind == "cuda" or (kind is None and torch.cuda.is_available())


def _require_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".writable-{os.getpid()}{PART}"
        probe.touch()
        probe.unlink(missing_ok=True)  # another process may have swept it
    except OSError as error:
        raise InputError(
            f"The store {root} cannot be written: {error.strerror}. Name another folder with --store or "
            "HBANALYSIS_STORE."
        ) from error


class _Schedule:
    """Hands tasks to workers until none is left, the time is over or somebody presses Ctrl-C."""

    def __init__(
        self,
        todo: Sequence[Task],
        store: Store,
        options: dict[str, Any],
        outcome: Outcome,
        display: Display,
        deadline: float | None,
    ) -> None:
        self._pending = list(todo)
        self._elsewhere: list[Task] = []
        self._store, self._options, self._outcome, self._display = store, options, outcome, display
        self._deadline = deadline
        self._workers: list[Child] = []
        self._idle: list[Child] = []
        self._events: queue.Queue[tuple[Child, dict[str, Any]]] = queue.Queue()
        self._retry_at = 0.0
        self._interrupts = 0
        self._kill_at: float | None = None

    def run(self, count: int) -> None:
        # A handler instead of KeyboardInterrupt: an exception could fall between an event and its record.
        ours = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, lambda *_: self._count_interrupt()) if ours else None
        try:
            for _ in range(count):
                self._workers.append(Child(self._options, self._events))
            while self._workers:
                if self._interrupts:
                    self._interrupt()
                self._step()
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.close()
            if ours:
                signal.signal(signal.SIGINT, before)

    def _count_interrupt(self) -> None:
        self._interrupts += 1

    def _step(self) -> None:
        for worker in list(self._idle):
            self._assign(worker)
        if self._kill_at is not None and time.monotonic() > self._kill_at:
            for worker in self._workers:
                worker.process.kill()
            self._kill_at, self._interrupts = None, 1
        if (left := self._left()) is not None and left <= 0:
            self._give_up()
            self._drop_unready()
        try:
            worker, event = self._events.get(timeout=0.2)
        except queue.Empty:
            return
        kind = event["event"]
        if kind == "said":
            self._display.say(event["line"])
        elif kind == "progress" and worker.task is not None:
            self._display.progress(worker.task.key, worker.task.label, event["phase"], event["fraction"])
        elif kind == "ready":
            self._idle.append(worker)
        elif kind == "gone":
            self._gone(worker, event["code"])
        elif worker.task is not None:
            self._ended(worker, worker.task, event)

    def _left(self) -> float | None:
        # Two seconds are kept for the workers to write their last checkpoint and end.
        return None if self._deadline is None else self._deadline - time.monotonic() - 2.0

    def _assign(self, worker: Child) -> None:
        left = self._left()
        if left is not None and left <= 0:
            self._give_up()
        if not self._pending and self._elsewhere and time.monotonic() >= self._retry_at:
            self._pending, self._elsewhere = self._elsewhere, []
            self._retry_at = time.monotonic() + _RETRY
        while self._pending:
            task = self._pending.pop(0)
            if self._store.has(task.study, task.key):
                self._outcome.present.append(task)
                self._display.finished(task.key, f"{task.label}: computed by another process")
                continue
            self._idle.remove(worker)
            worker.task = task
            config = studies.get(task.study).config(task.cell)
            worker.send({"command": "compute", "study": task.study, "config": config, "seconds": left})
            self._display.progress(task.key, task.label, "starting", 0.0)
            return
        if not self._elsewhere:
            self._idle.remove(worker)
            worker.send({"command": "finish"})

    def _ended(self, worker: Child, task: Task, event: dict[str, Any]) -> None:
        worker.task = None
        self._idle.append(worker)
        outcome, key, spent = self._outcome, task.key, event.get("seconds", 0.0)
        outcome.cpu_seconds[task.study] += event["cpu"]
        outcome.seconds[key] = outcome.seconds.get(key, 0.0) + spent
        match event["event"]:
            case "done" if event["computed"]:
                outcome.computed.append(task)
                self._display.finished(key, f"{task.study}, {task.label}: computed in {duration(spent)}")
            case "done":
                outcome.present.append(task)
                self._display.finished(key, f"{task.study}, {task.label}: computed by another process")
            case "busy":
                self._elsewhere.append(task)
                self._display.idle(key)
            case "stopped":
                outcome.missing.append(task)
                self._display.finished(key, f"{task.study}, {task.label}: stopped after {duration(spent)}, kept")
            case _:
                self._failed(task, event["error"], event["trace"], event["bad_input"])

    def _gone(self, worker: Child, code: int) -> None:
        worker.close()
        self._workers.remove(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        if worker.task is not None and self._outcome.interrupted:
            self._outcome.missing.append(worker.task)
        elif worker.task is not None:
            words = " ".join(worker.said[-3:])
            self._failed(worker.task, f"its process ended with code {code}. {words}".strip())
            if self._pending:
                self._workers.append(Child(self._options, self._events))
        elif code != 0 and not self._workers and not self._outcome.interrupted:
            # It never became ready, and no other is left to take over.
            words = " ".join(worker.said[-3:])
            for task in self._pending + self._elsewhere:
                self._failed(task, f"no worker process could start (code {code}). {words}".strip())
            self._pending, self._elsewhere = [], []

    def _failed(self, task: Task, error: str, trace: str = "", bad_input: bool = False) -> None:
        self._outcome.failed.append(Failure(task, error, trace, bad_input))
        self._display.finished(task.key, f"{task.study}, {task.label}: FAILED: {error}")

    def _give_up(self) -> None:
        self._outcome.missing.extend(self._pending + self._elsewhere)
        self._pending, self._elsewhere = [], []

    def _interrupt(self) -> None:
        if self._interrupts > 1:
            self._kill_at = 0.0
        if self._outcome.interrupted:
            return
        self._outcome.interrupted = True
        self._kill_at = time.monotonic() + _GRACE
        self._give_up()
        self._display.say("Stopping at the next safe point; Ctrl-C again to stop at once.")
        for worker in self._workers:
            worker.send({"command": "stop"})
        self._drop_unready()

    def _drop_unready(self) -> None:
        """End workers that are still importing, or ending: there is nothing to lose and nothing to wait for."""
        for worker in self._workers:
            if worker.task is None and worker not in self._idle:
                worker.process.kill()
