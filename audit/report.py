"""Write ``audit/report.json`` from what ``build/audit`` holds: verdicts on mutants, coverage, memory, weaknesses.

``python -m audit.report``. A part that was not measured anew is taken from the report that is there. It is refused
where a mutant survived and ``audit/explanations.toml`` does not say why.
"""

import argparse
import importlib.metadata
import json
import platform
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from scipy.stats import binomtest

from audit.mutants import ROOMS, Mutant, mutants, sample
from audit.mutation import BUILD, OPEN, SEED, entries
from audit.trial import SLOWEST, TOGETHER
from hbanalysis.files import write_atomically
from hbanalysis.folders import PROJECT
from hbanalysis.tables import audited

EXPLANATIONS = Path(__file__).with_name("explanations.toml")
ON_CUDA = Path(__file__).with_name("cuda_lines.toml")
STATUSES = ("killed", "crashed", "timeout", "survived", "unreached")
PACKAGES = ("torch", "numpy", "pytest", "hypothesis", "mutmut", "coverage")


def main() -> None:
    """Write the report, or say which survivors have no explanation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--survivors", action="store_true", help="list those without explanation; write nothing")
    parser.add_argument("--tests", default="both tiers", help="in words, the tests whose coverage was measured")
    chosen = parser.parse_args()
    mutation = of_mutants()
    unexplained = [one for room in mutation["rooms"].values() for one in room["survivors"] if not one["why"]]
    for one in unexplained:
        print(f"{one['file']}:{one['line']} {one['function']} ({one['status']})")
        print(f"  - {one['before']}\n  + {one['after']}")
    for room, counts in mutation["rooms"].items():
        print(f"{room}: {counts['tried']} of {counts['mutants']} tried, {100 * audited.share(counts):.1f} % killed")
    if chosen.survivors:
        return
    if unexplained:
        sys.exit(f"{len(unexplained)} survivors have no explanation in {EXPLANATIONS.name}; nothing is written.")
    before = audited.report() if audited.REPORT.exists() else {}
    found = {
        "schema": audited.SCHEMA,
        "files": {name: audited.digest(PROJECT / name) for name in audited.covered_files()},
        "mutation": stamped(mutation),
        "coverage": of_coverage(chosen.tests) or before.get("coverage"),
        "memory": of_memory() or before.get("memory"),
        "weaknesses": of_weaknesses() or before.get("weaknesses"),
    }
    write_atomically(audited.REPORT, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def of_mutants() -> dict:
    """Return the counts of every room and its survivors, each with its explanation."""
    explanations = tomllib.loads(EXPLANATIONS.read_text(encoding="utf-8"))["survivor"]
    return {
        "seed": SEED,
        "slowest_test_seconds": SLOWEST,
        "tests_seconds": TOGETHER,
        "rooms": {room: _room(mutants(room), explanations) for room in ROOMS},
    }


def of_coverage(tests: str) -> dict | None:
    """Return lines and branches of the package that these tests reach; those that only run on CUDA stand apart."""
    path = BUILD / "coverage.json"
    if not path.exists():
        return None
    files = json.loads(path.read_text(encoding="utf-8"))["files"]
    apart = tomllib.loads(ON_CUDA.read_text(encoding="utf-8"))["lines"]
    lines, branches = [0, 0], [0, 0]
    for name, one in files.items():
        excluded = {line for entry in apart if entry["file"] == name for line in _span(entry)}
        executed, missing = (set(one[key]) - excluded for key in ("executed_lines", "missing_lines"))
        taken, left = (
            [pair for pair in one[key] if not excluded & {abs(line) for line in pair}]
            for key in ("executed_branches", "missing_branches")
        )
        lines = [lines[0] + len(executed), lines[1] + len(executed) + len(missing)]
        branches = [branches[0] + len(taken), branches[1] + len(taken) + len(left)]
    return stamped({"tests": tests, "lines": lines, "branches": branches, "on_cuda_only": apart})


def of_memory() -> dict | None:
    """Return what `audit.memory` has read."""
    path = BUILD / "memory.json"
    return stamped({"runs": json.loads(path.read_text(encoding="utf-8"))}) if path.exists() else None


def of_weaknesses() -> dict | None:
    """Return what pip-audit was told about the pinned packages."""
    path = BUILD / "weaknesses.json"
    return stamped(audited.weaknesses(json.loads(path.read_text(encoding="utf-8")))) if path.exists() else None


def stamped(found: dict) -> dict:
    """Add when, with which versions, and at which commit it was measured."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit.stdout.strip(),
        "versions": {"python": platform.python_version(), **versions},
        **found,
    }


def _room(found: list[Mutant], explanations: list[dict]) -> dict:
    known = entries(found)
    drawn = list(takewhile(lambda mutant: mutant.name in known, sample(found, None, SEED)))
    counts = {status: sum(known[one.name]["status"] == status for one in drawn) for status in STATUSES}
    noticed = len(drawn) - sum(counts[status] for status in OPEN)
    interval = binomtest(noticed, max(len(drawn), 1)).proportion_ci(0.95, method="exact")
    left = [one for one in drawn if known[one.name]["status"] in OPEN]
    return {
        "mutants": len(found),
        "tried": len(drawn),
        **counts,
        "interval": [round(interval.low, 4), round(interval.high, 4)],
        "seconds": round(sum(known[one.name]["seconds"] for one in drawn)),
        "survivors": [
            {
                "file": one.file,
                "line": one.line,
                "function": one.function,
                "status": known[one.name]["status"],
                "before": one.before,
                "after": one.after,
                **_explained(one, explanations),
            }
            for one in sorted(left, key=lambda one: (one.file, one.line, one.name))
        ],
    }


def _explained(mutant: Mutant, explanations: Iterable[dict]) -> dict[str, str]:
    for given in explanations:
        same = (mutant.file, mutant.function, mutant.before) == (given["file"], given["function"], given["before"])
        if same and mutant.after in given["after"]:
            return {"kind": given["kind"], "why": given["why"]}
    return {"kind": "", "why": ""}


def _span(entry: dict) -> range:
    """Return the lines of a function that only runs on CUDA, or those from a text to the end of its block."""
    text = (PROJECT / entry["file"]).read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(text, 1) if entry["from"] in line)
    indent = len(text[first - 1]) - len(text[first - 1].lstrip())
    last = first
    for number in range(first + 1, len(text) + 1):
        line = text[number - 1]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        last = number
    return range(first + (0 if entry.get("whole") else 1), last + 1)


if __name__ == "__main__":
    main()
