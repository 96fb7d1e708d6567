"""Directive ``survives``: what the tests show the project to survive.

The list is read from the tests while the site is built: the docstring of every test that has the mark ``survives``.
The page can therefore claim nothing that no test shows.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from page_tables import table
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from hbanalysis.folders import PROJECT

MARK = "survives"
TIERS = {"quick": "`make test`", "full": "`make test-full`", "both": "`make test`; more often in `make test-full`"}
COLUMNS = ("What is survived", "Shown by", "Runs in")


@dataclass(frozen=True)
class Claim:
    """What one test shows: its headings, the sentence, the test and the tier that runs it."""

    headings: tuple[str, ...]
    text: str
    test: str
    tier: str


def claims(folder: Path) -> list[Claim]:
    """Return what the marked tests of a folder show, in the order of files and lines.

    Raises:
        ExtensionError: There is no such test, or one has no docstring or no heading.
    """
    found = [claim for path in sorted(folder.rglob("test_*.py")) for claim in _claims_of(path, folder)]
    if not found:
        raise ExtensionError(f"No test below {folder} has the mark {MARK!r}.")
    return found


def _claims_of(path: Path, folder: Path) -> Iterator[Claim]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    named = {
        target.id: one.value
        for one in body
        if isinstance(one, ast.Assign)
        for target in one.targets
        if isinstance(target, ast.Name)
    }
    for test in body:
        if not isinstance(test, ast.FunctionDef) or not test.name.startswith("test_"):
            continue
        marks = [named.get(mark.id, mark) if isinstance(mark, ast.Name) else mark for mark in test.decorator_list]
        headings = [
            str(ast.literal_eval(word))
            for mark in marks
            if _name(mark) == MARK and isinstance(mark, ast.Call)
            for word in mark.args
        ]
        if not any(_name(mark) == MARK for mark in marks):
            continue
        node = f"{path.relative_to(folder.parent).as_posix()}::{test.name}"
        text = " ".join((ast.get_docstring(test) or "").split())
        if not text or not headings:
            raise ExtensionError(f"{node} has the mark {MARK!r} without a docstring or without a heading.")
        if any(_name(mark) in ("skip", "skipif", "xfail") for mark in marks):
            raise ExtensionError(f"{node} may not run, and cannot show what it survives.")
        yield Claim(tuple(headings), text, node, _tier(marks))


def _name(mark: ast.expr) -> str:
    """Return ``full`` of ``pytest.mark.full``, called or not."""
    function = mark.func if isinstance(mark, ast.Call) else mark
    return function.attr if isinstance(function, ast.Attribute) else ""


def _tier(marks: list[ast.expr]) -> str:
    if any(_name(mark) == "full" for mark in marks):
        return "full"
    # A case of the test that has the mark: pytest.param(50, marks=pytest.mark.full).
    inner = any(_name(part) == "full" for mark in marks for part in ast.walk(mark) if isinstance(part, ast.Attribute))
    return "both" if inner else "quick"


class Survives(SphinxDirective):
    """One section a heading, one line a test."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of all headings."""
        self.env.note_reread()
        found = claims(PROJECT / "tests")
        headings = dict.fromkeys(heading for claim in found for heading in claim.headings)
        return [self._section(heading, [c for c in found if heading in c.headings]) for heading in headings]

    def _section(self, heading: str, found: list[Claim]) -> nodes.section:
        section = nodes.section("", nodes.title("", heading), ids=[nodes.make_id(heading)], names=[heading.lower()])
        lines = ((claim.text, f"`{claim.test}`", TIERS[claim.tier]) for claim in found)
        section += table(COLUMNS, (map(_inline, line) for line in lines), "survives", (6, 3, 2))
        return section


def _inline(text: str) -> list[nodes.Node]:
    """Return text with what stands between backticks as code."""
    pieces = enumerate(text.split("`"))
    return [nodes.literal("", piece) if odd % 2 else nodes.Text(piece) for odd, piece in pieces if piece]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive(MARK, Survives)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
