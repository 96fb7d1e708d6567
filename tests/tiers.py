"""The two tiers of the tests, as a pytest plugin.

A test marked ``full`` belongs to the full tier, every other one to the quick tier; ``--tier`` selects. A run ends by
listing what it did not run and why, and a skip (or an expected failure) that ``allowed_skips.toml`` does not list is
turned into a failure: a test that silently stopped running is how suites rot. Files whose tests are marked
``begun_first`` come first, so that no process is alone with a long one at the end.
"""

import tomllib
from collections import Counter
from collections.abc import Generator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

TIERS = ("quick", "full")
ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.toml")
_COUNTS = pytest.StashKey[dict[str, int]]()
_COMMAND = {"quick": "make test", "full": "make test-full"}


def tier_of(item: pytest.Item) -> str:
    return "full" if item.get_closest_marker("full") else "quick"


def load_allowed(path: Path = ALLOWED_SKIPS) -> list[dict[str, str]]:
    """Entries of the committed list: patterns for ``test`` (node id) and ``reason``, and ``why`` it may be skipped."""
    entries = tomllib.loads(path.read_text())["skip"]
    for entry in entries:
        if set(entry) != {"test", "reason", "why"} or not all(entry.values()):
            raise pytest.UsageError(f"{path.name}: every [[skip]] needs test, reason and why; given {entry}")
    return entries


def is_allowed(node: str, reason: str, allowed: list[dict[str, str]]) -> bool:
    return any(fnmatchcase(node, entry["test"]) and fnmatchcase(reason, entry["reason"]) for entry in allowed)


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected failure: {report.wasxfail}"
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ").strip()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier", choices=(*TIERS, "all"), default="all", help="run the tests of this tier only (default: all)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_COUNTS] = {}
    config.pluginmanager.register(SkipGuard(load_allowed()), "hbanalysis-skips")
    if config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(WorkerCounts(config), "hbanalysis-worker-counts")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("begun_first") is None)
    tier = config.getoption("tier")
    if tier == "all":
        return
    left_out = [item for item in items if tier_of(item) != tier]
    items[:] = [item for item in items if tier_of(item) == tier]
    config.stash[_COUNTS] = dict(Counter(item.nodeid.split("::")[0] for item in left_out))
    config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash[_COUNTS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tier, counts = config.getoption("tier"), config.stash[_COUNTS]
    skipped = [
        (report.nodeid, reason_of(report))
        for kind in ("skipped", "xfailed")
        for report in terminalreporter.stats.get(kind, [])
    ]
    terminalreporter.section(f"not run in this run (tier: {tier})")
    if counts:
        other = TIERS[1 - TIERS.index(tier)]
        terminalreporter.line(f"{sum(counts.values())} tests of the {other} tier, run by `{_COMMAND[other]}`:")
        for file, count in sorted(counts.items()):
            terminalreporter.line(f"  {count:4d}  {file}")
    if skipped:
        terminalreporter.line(f"{len(skipped)} tests skipped:")
        for node, reason in sorted(set(skipped)):
            terminalreporter.line(f"  {node}: {reason}")
    if not counts and not skipped:
        terminalreporter.line("nothing: every collected test ran")


class SkipGuard:
    """Turn skips that the committed list does not allow into failures, where the test runs."""

    def __init__(self, allowed: list[dict[str, str]]) -> None:
        self.allowed = allowed

    def _judge(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.skipped and not is_allowed(report.nodeid, reason := reason_of(report), self.allowed):
            report.outcome = "failed"
            report.longrepr = (
                f"{report.nodeid} did not run: {reason}\n"
                f"No entry of tests/{ALLOWED_SKIPS.name} allows it. Make it run, or add an entry that says why not."
            )
            if hasattr(report, "wasxfail"):
                del report.wasxfail

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        self._judge(report)
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        self._judge(report)
        return report


class WorkerCounts:
    """Bring the workers' counts of left-out tests to the process that prints the summary (every worker has all)."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        self.config.stash[_COUNTS].update(getattr(node, "workeroutput", {}).get("left_out", {}))
