"""A worker process as its parent sees it: started, given a task, listened to."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from dataclasses import dataclass
from typing import Any

from hbanalysis.folders import PROJECT

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """One cell of one study, with its key, its name for people and its cost estimate in CPU-seconds."""

    study: str
    cell: Any
    key: str
    label: str
    cost: float

    @classmethod
    def of(cls, study: Any, cell: Any) -> "Task":
        """Describe a cell of a study."""
        return cls(study.name, cell, study.key(cell), study.label(cell), float(study.cost(cell)))


class Child:
    """A child process, the threads that read it, and the task it works on."""

    def __init__(self, options: dict[str, Any], events: "queue.Queue[tuple[Child, dict[str, Any]]]") -> None:
        environment = dict(os.environ)
        # Read by the numerical libraries when they are imported, hence set before the child exists.
        environment.update({name: str(options["threads"]) for name in _THREAD_VARIABLES})
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hbanalysis.running.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
        )
        self.task: Task | None = None
        self.said: list[str] = []
        self._events = events
        self.send(options)
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in (self._answers, self._words)]
        # The first waits for the second, which therefore has to be started before it: a process may end at once.
        for reader in reversed(self._readers):
            reader.start()

    def send(self, message: dict[str, Any]) -> None:
        """Send one line; a child that is gone shows by its end of output instead."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """Wait for the end of the process and close its pipes."""
        self.process.wait()
        for reader in self._readers:
            reader.join(timeout=5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                # A line that the process did not read any more cannot be written on closing either.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _answers(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._events.put((self, json.loads(line)))
        self._readers[1].join(timeout=2)
        self._events.put((self, {"event": "gone", "code": self.process.wait()}))

    def _words(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said = [*self.said[-19:], line.rstrip()]
            self._events.put((self, {"event": "said", "line": line.rstrip()}))
