"""Every page that teaches has the same parts: what, how long, what before, takeaways, an exercise, what next."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

from hbanalysis.publishing import notebooks

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
THEORY = sorted(path.stem for path in BOOK.glob("theory_*.md"))
HEAD = re.compile(r"\A# [^\n]+\n\n```\{admonition\} On this page\n:class: note\n\n(.+?)\n```\n", re.DOTALL)
EXERCISE = re.compile(r"^````\{admonition\} Exercise( \d)?\n:class: tip\n\n(.+?)^````$", re.MULTILINE | re.DOTALL)
SOLUTION = re.compile(r"^```\{admonition\} Solution\n:class: dropdown\n\n.{40,}?^```$", re.MULTILINE | re.DOTALL)
TAKEAWAYS = re.compile(r"^## Takeaways\n\n((?:- .+\n(?:  .+\n)*)+)", re.MULTILINE)
NEXT = re.compile(r"^\*\*Next:\*\* .*\{doc\}`", re.MULTILINE)


def prose_of(name: str) -> str:
    """The prose of a page, with cells apart."""
    if (BOOK / f"{name}.md").exists():
        return (BOOK / f"{name}.md").read_text(encoding="utf-8")
    cells = nbformat.read(notebooks.find(name), as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown") + "\n"


PAGES = [*notebooks.names(), *THEORY]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_begins_by_saying_what_how_long_and_what_before(name):
    head = HEAD.match(prose_of(name))
    assert head, "the first cell is not a title with the box 'On this page'"
    words = [re.search(rf"\*\*{word}\*\* \S", head[1]) for word in ("You will learn", "Time", "Prerequisites")]
    assert all(words)
    assert [word.start() for word in words] == sorted(word.start() for word in words)
    assert "to read" in head[1]
    assert name in THEORY or re.search("[Tt]o run", head[1])


@pytest.mark.parametrize("name", PAGES)
def test_a_page_ends_with_takeaways_an_exercise_and_what_to_read_next(name):
    text = prose_of(name)
    takeaways = TAKEAWAYS.search(text)
    assert takeaways
    assert 2 <= takeaways[1].count("\n- ") + 1 <= 6
    exercises = list(EXERCISE.finditer(text))
    assert len(exercises) >= (2 if name in THEORY else 1)
    assert all(len(SOLUTION.findall(exercise[2])) == 1 for exercise in exercises)
    following = NEXT.search(text)
    assert following
    assert takeaways.start() < exercises[0].start() < following.start()


@pytest.mark.parametrize("name", THEORY)
def test_a_theory_page_numbers_its_equations_and_types_no_result(name):
    text = prose_of(name)
    assert len(re.findall(r"^\$\$ \(eq-[a-z-]+\)$", text, re.MULTILINE)) >= 3
    assert "{cite}`" in text


def test_the_pages_are_all_in_the_contents():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    listed = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert {f"notebooks/{name}" for name in notebooks.names()} <= set(listed)
    assert {f"book/{name}" for name in THEORY} <= set(listed)
