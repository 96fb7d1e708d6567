"""Mutants of the rooms that are audited: a copy of the project in which every function can become one of its mutants.

mutmut makes the mutants: it writes all of them into one file, beside the function that they change, and a variable of
the process says which one is called. The copy stands below ``build/``, so that the working tree stays as it is.
"""

import ast
import difflib
import functools
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mutmut.mutation.file_mutation import MutatedFile, mutate_file_contents
from mutmut.utils.format_utils import mangled_name_from_mutant_name, orig_function_and_class_names_from_key

from hbanalysis.folders import PROJECT

ROOMS = ("operators", "eigen", "inputs", "attacks")
COPIED = ("hbanalysis", "tests", "benchmarks", "audit", "conftest.py", "pyproject.toml")


@dataclass(frozen=True)
class Mutant:
    """One change of one function.

    Attributes:
        name: mutmut's name; it stays the same while the function does.
        room: ``eigen`` of ``hbanalysis/eigen``.
        file: Path of the source below the project.
        line: Number of the first line that differs.
        function: Name of the function or method.
        digest: Of the function's syntax tree, without comments and formatting.
        before: The lines that differ, as they are.
        after: The same lines in the mutant.
    """

    name: str
    room: str
    file: str
    line: int
    function: str
    digest: str
    before: str
    after: str


def sources(room: str) -> list[Path]:
    """Return the modules of a room."""
    return sorted(path for path in (PROJECT / "hbanalysis" / room).glob("*.py"))


def mutants(room: str) -> list[Mutant]:
    """Return all mutants of a room, in the order of files and lines."""
    found = []
    for path in sources(room):
        name, code = path.relative_to(PROJECT).as_posix(), path.read_text(encoding="utf-8")
        found += _described(_mutated(name, code), room, name, code)
    return found


def lay_out(folder: Path, room: str, chosen: Iterable[Mutant]) -> None:
    """Copy the project to a folder, with some mutants of a room in it."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *COPIED],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if folder.exists():
        shutil.rmtree(folder)
    for name in filter(None, listed.split("\0")):
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PROJECT / name, folder / name)
    names = {mutant.name.rpartition(".")[2] for mutant in chosen}
    for path in sources(room):
        name = path.relative_to(PROJECT).as_posix()
        mutated = _mutated(name, path.read_text(encoding="utf-8"))
        (folder / name).write_text(_only(mutated, names), encoding="utf-8")


@functools.cache
def _mutated(name: str, code: str) -> MutatedFile:
    return mutate_file_contents(name, code)


def _only(mutated: MutatedFile, names: set[str]) -> str:
    """Return the code with some mutants only: importing all of them takes minutes."""
    lines: list[str | None] = list(mutated.code.splitlines())
    for name in set(mutated.mutant_names) - names:
        span = mutated.line_span_by_function_name[name]
        lines[span.start - 1 : span.end] = [None] * (span.end - span.start + 1)
    dropped = re.compile(r"^mutants_x.*\['(x[^']+__mutmut_\d+)'\] = ")
    kept = [line for line in lines if line is not None]
    entries = {line: match[1] for line in kept if (match := dropped.match(line))}
    return "\n".join(line for line in kept if entries.get(line, "") in {"", *names}) + "\n"


def sample(found: Iterable[Mutant], size: int | None, seed: int = 0) -> list[Mutant]:
    """Return a simple random sample, in the order in which it was drawn; all mutants for None.

    A smaller sample is the beginning of a larger one, so that a run can be continued. The order is that of a hash of
    each mutant's name: it does not move when other functions change.
    """
    return sorted(found, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.name}".encode()).digest())[:size]


def _described(mutated: MutatedFile, room: str, file: str, code: str) -> list[Mutant]:
    lines = mutated.code.splitlines()
    starts = _first_lines(code)
    module = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    def text(generated: str) -> list[str]:
        span = mutated.line_span_by_function_name[generated]
        return lines[span.start - 1 : span.end]

    found = []
    for generated in mutated.mutant_names:
        mangled = mangled_name_from_mutant_name(generated)
        function, owner = orig_function_and_class_names_from_key(f"{module}.{generated}")
        old, new = text(f"{mangled}__mutmut_orig"), text(generated)
        old = [line.replace(f"{mangled}__mutmut_orig", function) for line in old]
        new = [line.replace(generated, function) for line in new]
        compared = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
        changes = [change for change in compared if change[0] != "equal"]
        first, last = changes[0][1], changes[-1][2]
        begin = next(number for number, line in enumerate(old) if line.lstrip().startswith(("def ", "async def ")))
        qualified = f"{owner}.{function}" if owner else function
        found.append(
            Mutant(
                name=f"{module}.{generated}",
                room=room,
                file=file,
                line=starts[qualified] + first - begin,
                function=qualified,
                digest=mutated.hash_by_function_name[mangled],
                before=_joined(old[first:last]),
                after=_joined(new[first : changes[-1][4]]),
            )
        )
    return found


def _first_lines(code: str) -> dict[str, int]:
    """Return the line of the ``def`` of every function and method."""
    found = {}
    for node in ast.parse(code).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found |= {prefix + part.name: part.lineno for part in inner if isinstance(part, ast.FunctionDef)}
    return found


def _joined(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines)
