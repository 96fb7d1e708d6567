"""Methods run in turn, round by round, so that a busy minute of the machine hits all alike; and how right they are."""

import os
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import scipy

from benchmarks import peers
from benchmarks.peers import Answer, Entry, K, Task
from hbanalysis.store import provenance

RIGHT = 1e-4
MISSING = 1e-3


def by_modulus(values: Iterable[float], count: int = K) -> np.ndarray:
    """Return the ``count`` values of largest modulus, descending."""
    values = np.asarray(list(values), dtype=float)
    return values[np.argsort(-np.abs(values), kind="stable")][:count]


def score(values: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return how far the values, signs included, are from the true top 20."""
    values = by_modulus(values)
    if len(values) < K:
        values = np.append(values, np.full(K - len(values), np.nan))
    errors = np.abs(values - truth) / np.abs(truth)
    nearest = np.nanmin(np.abs(values[None] - truth[:, None]) / np.abs(truth)[:, None], axis=1, initial=np.inf)
    return {
        "max_relative_error": None if np.isnan(errors).any() else float(errors.max()),
        "right": int((errors <= RIGHT).sum()),
        "missing": int((nearest > MISSING).sum()),
        "values": [None if np.isnan(value) else float(value) for value in values],
    }


class Rounds:
    """Answers and seconds of some methods on one task.

    Args:
        methods: What is run.
        task: On what.
    """

    def __init__(self, methods: Sequence[Entry], task: Task) -> None:
        self.methods, self.task = methods, task
        self.load = os.getloadavg()
        self.spent: dict[str, list[float]] = {row.name: [] for row in methods}
        self.answers: dict[str, Answer] = {}

    def play(self) -> None:
        """Run each method once more."""
        for row in self.methods:
            if row.run is None:
                continue
            started = time.perf_counter()
            self.answers[row.name] = row.run(self.task, 0)
            self.spent[row.name].append(time.perf_counter() - started)
            print(f"{row.name}, {self.spent[row.name][-1]:.1f} s, {self.answers[row.name].report}", flush=True)

    def results(self, unit: float, truth: np.ndarray) -> list[dict[str, Any]]:
        """Return one entry a method; ``unit`` are the seconds of the fastest full-data gradient."""
        found = []
        for row in self.methods:
            entry: dict[str, Any] = {"name": row.name, "settings": row.settings, "status": "not installed"}
            if row.run is not None:
                answer, spent = self.answers[row.name], self.spent[row.name]
                entry |= {
                    "status": "run",
                    "products": answer.products,
                    "seconds": spent,
                    "gradients": min(spent) / unit,
                    "gradients_most": max(spent) / unit,
                    "report": answer.report,
                    **score(answer.values, truth),
                }
            found.append(entry)
        return found

    def environment(self) -> dict[str, Any]:
        """Return where this ran, with the versions of the peers and how busy the machine was before and after."""
        versions = {package: found[1] for package, found in peers.peers().items()} | {"scipy": scipy.__version__}
        return provenance.environment("cpu") | {
            "versions": versions,
            "load_before": self.load,
            "load_after": os.getloadavg(),
        }
