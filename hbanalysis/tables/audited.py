"""The committed report of `make audit`: mutants, coverage and memory, as tables; and whether it still holds."""

import ast
import hashlib
import io
import json
import tokenize
from doctest import DocTestParser
from pathlib import Path
from typing import Any

import pandas as pd

from hbanalysis.errors import StoreError
from hbanalysis.folders import PROJECT

REPORT = PROJECT / "audit" / "report.json"
SCHEMA = 1
GOAL = 0.85  # share of mutants that the tests of a room shall notice
ROOMS = ("operators", "eigen", "inputs", "attacks")
KINDS = {
    "equivalent": "no input tells the two apart",
    "cost": "time or memory differs, no value does",
    "message": "the words of an error or warning differ",
    "device": "only a CUDA device tells them apart, where the tests of each room's `test_cuda.py` look",
    "tolerated": "another choice that is as good",
    "elsewhere": "tests outside of the room's notice it, which the audit does not run",
    "open": "no test looks there yet",
}


def report(path: Path = REPORT) -> dict[str, Any]:
    """Return the committed report.

    Raises:
        StoreError: It is not there, not readable, or of another schema; says what to do.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StoreError(f"Cannot read {path}: {error}. `make audit` writes it.") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        given = found.get("schema") if isinstance(found, dict) else type(found).__name__
        raise StoreError(f"{path} has schema {given}, and {SCHEMA} is known. `make audit` writes the report anew.")
    return found


def digest(path: Path) -> str:
    r"""Return the SHA-256 of what a Python file does: its text without comments, prose of docstrings and empty lines.

    Examples in docstrings count, since they run as tests. Syntax trees would do as well, but each version of Python
    writes them in its own way, and a report would be stale on every other one.

    Example:
        >>> import tempfile
        >>> def of(text):
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         path = Path(folder, "code.py")
        ...         _ = path.write_text(text)
        ...         return digest(path)
        >>> of('def f(x):\n    "Twice."\n    return 2 * x\n') == of('def f(x):\n\n    return 2 * x  # quick\n')
        True
        >>> of("def f(x):\n    return 2 * x\n") == of("def f(x):\n    return 3 * x\n")
        False
    """
    text = path.read_text(encoding="utf-8")
    lines: list[str] = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        said = ast.get_docstring(node)
        if said is not None:
            first = node.body[0]
            examples = "".join(one.source + one.want for one in DocTestParser().get_examples(said))
            lines[first.lineno - 1 : first.end_lineno] = [*[""] * (_length(first) - 1), examples]
    kept = (line.rstrip() for line in lines)
    return hashlib.sha256("\n".join(line for line in kept if line).encode()).hexdigest()


def covered_files(project: Path = PROJECT) -> list[str]:
    """Return the files that a report speaks of: the modules of the rooms and their tests."""
    folders = [project / top / room for room in ROOMS for top in ("hbanalysis", "tests")]
    return sorted(path.relative_to(project).as_posix() for folder in folders for path in folder.glob("*.py"))


def stale_files(found: dict[str, Any], project: Path = PROJECT) -> list[str]:
    """Return the covered files that have changed since the report, are gone, or have come since."""
    known: dict[str, str] = found["files"]
    now = covered_files(project)
    changed = {name for name in known if name not in now or digest(project / name) != known[name]}
    return sorted(changed | (set(now) - set(known)))


def rooms(found: dict[str, Any]) -> pd.DataFrame:
    """Return one line a room: mutants that were tried, killed and left, and the share killed with its 95 % interval."""
    lines = []
    for room, counts in found["mutation"]["rooms"].items():
        low, high = (f"{100 * bound:.1f}" for bound in counts["interval"])
        lines.append(
            {
                "room": f"`{room}`",
                "mutants": f"{counts['mutants']:,}",
                "tried": f"{counts['tried']:,}",
                "killed by a test": f"{counts['killed'] + counts['crashed']:,}",
                "never came to an end": f"{counts['timeout']:,}",
                "survived": f"{counts['survived'] + counts['unreached']:,}",
                "killed, %": f"{100 * share(counts):.1f} ({low} to {high})",
            }
        )
    return pd.DataFrame(lines)


def share(counts: dict[str, Any]) -> float:
    """Return the share of tried mutants that were noticed, in [0, 1]."""
    return (counts["killed"] + counts["crashed"] + counts["timeout"]) / counts["tried"]


def survivors(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return all survivors of all rooms, by file and line, with the reason that is given for each."""
    return [one for counts in found["mutation"]["rooms"].values() for one in counts["survivors"]]


def kinds(found: dict[str, Any]) -> pd.DataFrame:
    """Return how many survivors have which kind of reason."""
    given = [one["kind"] for one in survivors(found)]
    lines = [{"reason": words, "survivors": str(given.count(kind))} for kind, words in KINDS.items() if kind in given]
    return pd.DataFrame(lines)


def weaknesses(answer: dict[str, Any]) -> dict[str, Any]:
    """Return what ``pip-audit --format json`` found: how many packages it asked about, was answered, and is warned of.

    Example:
        >>> known = {"name": "a", "version": "1.0", "vulns": [{"id": "CVE-1"}]}
        >>> weaknesses({"dependencies": [known, {"name": "b", "skip_reason": "not found"}]})
        {'asked': 2, 'answered': 1, 'known': ['a 1.0: CVE-1']}
    """
    packages = answer["dependencies"]
    answered = [one for one in packages if "skip_reason" not in one]
    known = [f"{one['name']} {one['version']}: {found['id']}" for one in answered for found in one["vulns"]]
    return {"asked": len(packages), "answered": len(answered), "known": known}


def _length(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
