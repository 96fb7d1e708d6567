"""Plugin of pytest that tries mutants: one process a mutant, forked when all tests are collected.

Collecting the tests imports PyTorch, the package with all its mutants, and the test modules: once. Each mutant then
costs a fork and those tests that reach its function, quickest first, until one fails.
"""

import contextlib
import importlib
import itertools
import json
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from mutmut.configuration import config as mutmut_config
from mutmut.mutation.trampoline import set_mutant_under_test
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

SLOWEST = 2.0  # seconds; tests that take longer take no part
TOGETHER = 5.0  # seconds that the tests of one mutant may take together; the quickest are taken
MEMORY = 6 << 30  # bytes that a mutant may take beyond what the tests have
LEFT_OUT = ("__mutmut_", "leave_no_memory_behind", "peak_memory", "bounded_memory")
STATUS = {0: "survived", 1: "killed"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options that ``audit.mutation`` passes."""
    parser.addoption("--trial-plan", type=Path, help="JSON: names of mutants")
    parser.addoption("--trial-results", type=Path, help="JSON lines, appended to")
    parser.addoption("--trial-reach", type=Path, help="JSON: seconds of every test and the functions it reaches")
    parser.addoption("--trial-states", type=Path, help="JSON: a digest of what each file of tests depends on")
    parser.addoption("--trial-workers", type=int, default=1)
    parser.addoption("--trial-slow", action="store_true", help="take tests of any length")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out the doctests of copies of functions, and tests that measure resident memory: forks share it."""
    items[:] = [item for item in items if not any(part in item.nodeid for part in LEFT_OUT)]


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Try the mutants of the plan instead of running the tests."""
    options = session.config.option
    mutmut_config()  # read here, where the folder is the project's: tests change the folder
    states = json.loads(options.trial_states.read_text(encoding="utf-8"))
    reach = json.loads(options.trial_reach.read_text(encoding="utf-8")) if options.trial_reach.exists() else {}
    known = {name: one for name, one in reach.get("tests", {}).items() if one["state"] == states[_file(name)]}
    fresh = [item for item in session.items if item.nodeid not in known]
    limits = (math.inf, math.inf) if options.trial_slow else (SLOWEST, TOGETHER)
    if fresh:
        measured = options.trial_reach.with_suffix(".fresh")
        _in_fork(lambda: _measure(fresh, measured))
        if not measured.exists():
            raise pytest.UsageError("The tests fail without any mutant; see above.")
        found = json.loads(measured.read_text(encoding="utf-8"))
        measured.unlink()
        added = {name: {**one, "state": states[_file(name)]} for name, one in found["tests"].items()}
        if failed := Trials(fresh, added, options.trial_results, limits).control():
            raise pytest.UsageError(f"In the order of the trials a test fails without any mutant: {failed}")
        reach = {"tests": known | added, "modules": sorted({*reach.get("modules", []), *found["modules"]})}
        options.trial_reach.write_text(json.dumps(reach), encoding="utf-8")
    for name in reach["modules"]:  # what tests import when they run: once here, not in every process
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    trials = Trials(session.items, reach["tests"], options.trial_results, limits)
    trials.run(json.loads(options.trial_plan.read_text(encoding="utf-8")), options.trial_workers)
    return True


class Trials:
    """All trials of one run."""

    def __init__(
        self, items: list[pytest.Item], reach: dict[str, dict], results: Path, limits: tuple[float, float]
    ) -> None:
        self.items = {item.nodeid: item for item in items}
        self.reach = reach
        self.results = results
        self.slowest, self.together = limits
        self.running: dict[int, tuple[str, float, float, int]] = {}

    def run(self, names: list[str], workers: int) -> None:
        """Try every mutant of a list, some at once."""
        for name in names:
            tests = self.tests_of(name)
            if not tests:
                self.note(name, "unreached", "", 0.0, 0)
                continue
            while len(self.running) >= workers:
                self.reap()
            self.start(name, tests)
        while self.running:
            self.reap()

    def control(self) -> str:
        """Run what a trial runs, without a mutant, and return the test that fails, if one does."""
        reader, writer = os.pipe()

        def trial() -> None:
            _quiet()
            os.write(writer, _first_failure([self.items[test] for test in self.quickest(self.reach)]).encode())

        _in_fork(trial)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            return pipe.read()

    def quickest(self, names: Iterable[str]) -> list[str]:
        """Return those of some tests that are quick enough, quickest first."""
        quick = [name for name in names if name in self.items and self.reach[name]["seconds"] <= self.slowest]
        return sorted(quick, key=lambda name: self.reach[name]["seconds"])

    def tests_of(self, name: str) -> list[str]:
        """Return the tests that reach the function of a mutant, quickest first."""
        function = mangled_name_from_mutant_name(name)
        quick = self.quickest(test for test, seen in self.reach.items() if function in seen["functions"])
        summed = itertools.accumulate(self.reach[test]["seconds"] for test in quick)
        return [test for test, seconds in zip(quick, summed, strict=True) if seconds <= self.together]

    def start(self, name: str, tests: list[str]) -> None:
        """Fork the process that runs the tests with one mutant."""
        expected = sum(self.reach[test]["seconds"] for test in tests)
        allowed = int(10 + 4 * expected)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _alone(allowed)
            set_mutant_under_test(name)
            killer = _first_failure([self.items[test] for test in tests])
            os.write(writer, killer.encode())
            os._exit(1 if killer else 0)
        os.close(writer)
        self.running[child] = (name, time.monotonic(), 10.0 * allowed, reader)

    def reap(self) -> None:
        """Wait for one process and write down what came of it."""
        while True:
            child, status, used = os.wait4(-1, os.WNOHANG)
            if child in self.running:
                break
            for process, (_, begun, limit, _) in self.running.items():
                if time.monotonic() - begun > limit:
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.01)
        name, _, _, reader = self.running.pop(child)
        with os.fdopen(reader) as pipe:
            killer = pipe.read()
        result = STATUS.get(os.waitstatus_to_exitcode(status), "crashed")
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL):
            result = "timeout"
        self.note(name, result, killer, used.ru_utime + used.ru_stime, len(self.tests_of(name)))

    def note(self, name: str, status: str, killer: str, seconds: float, tests: int) -> None:
        """Append one line to the results."""
        entry = {"name": name, "status": status, "killer": killer, "seconds": round(seconds, 2), "tests": tests}
        with self.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")


def _file(test: str) -> str:
    return test.partition("::")[0]


def _alone(allowed: int) -> None:
    """Limit the forked process, and keep what it says to itself."""
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, allowed + 5))
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    _quiet()


def _quiet() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _first_failure(items: list[pytest.Item]) -> str:
    """Run tests until one fails, and return its name; an empty name if none does."""
    for item, following in itertools.pairwise([*items, None]):
        if any(report.failed for report in runtestprotocol(item, log=False, nextitem=following)):
            return item.nodeid
    return ""


def _measure(items: list[pytest.Item], path: Path) -> None:
    """Run all tests without a mutant; write the seconds of each, and the functions it reached."""
    set_mutant_under_test("stats")
    seen, failed, loaded = {}, [], set(sys.modules)
    for item, following in itertools.pairwise([*items, None]):
        state()._stats.clear()
        begun = time.process_time()
        reports = runtestprotocol(item, log=False, nextitem=following)
        seconds = round(time.process_time() - begun, 3)
        failed += [f"{item.nodeid}\n{report.longreprtext}" for report in reports if report.failed]
        if not any(report.skipped for report in reports):
            seen[item.nodeid] = {"seconds": seconds, "functions": sorted(state()._stats)}
    if failed:
        sys.__stderr__.write("\n\n".join(failed) + "\n")
        return
    modules = [name for name in sys.modules if name not in loaded and not name.startswith(("hbanalysis", "tests"))]
    path.write_text(json.dumps({"tests": seen, "modules": modules}), encoding="utf-8")


def _in_fork(work: Callable[[], None]) -> None:
    child = os.fork()
    if child == 0:
        work()
        sys.__stderr__.flush()
        os._exit(0)
    os.waitpid(child, 0)
