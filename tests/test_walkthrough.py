"""The code of the page for contributors, applied to a copy of the package and run."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "book" / "walkthrough.md"
BLOCK = re.compile(r"^```\{code-block\} (\w+)\n(?::caption: `(\S+)`\n\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)
TOO_MANY = 30
SESSIONS = """
import doctest, sys
test = doctest.DocTestParser().get_doctest(sys.stdin.read(), {}, "walkthrough", "walkthrough.md", 0)
runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
runner.run(test)
print(runner.tries, "examples,", runner.failures, "failed")
"""


@dataclass(frozen=True)
class Block:
    language: str
    file: str
    body: str

    @property
    def added(self) -> int:
        """Lines that a contributor types, without imports and blank lines."""
        lines = re.findall(r"^\+(.*)$" if self.language == "diff" else r"^(.*)$", self.body, re.MULTILINE)
        typed = [line for line in lines if line.strip() and not re.match("from |import ", line)]
        return len(typed) if self.language in ("diff", "python") else 0


def sections() -> dict[str, list[Block]]:
    _, *parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    titles, texts = parts[::2], parts[1::2]
    return {
        title: [Block(*match.groups("")) for match in BLOCK.finditer(text)]
        for title, text in zip(titles, texts, strict=True)
    }


def apply(block: Block, root: Path) -> None:
    """Write a new file, or replace in a file the one place that a hunk shows."""
    path = root / block.file
    if block.language == "python":
        assert not path.exists(), f"{block.file} is there already"
        path.write_text(block.body)
        return
    text = path.read_text()
    for hunk in re.split(r"^@@\n", block.body, flags=re.MULTILINE)[1:]:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] or "\n" for line in lines if line[0] in " -\n")
        after = "".join(line[1:] or "\n" for line in lines if line[0] in " +\n")
        assert text.count(before) == 1, f"{block.file} has {text.count(before)} places like\n{before}"
        text = text.replace(before, after)
    path.write_text(text)


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with everything that the page adds."""
    folder = tmp_path_factory.mktemp("walkthrough")
    shutil.copytree(ROOT / "hbanalysis", folder / "hbanalysis", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    for blocks in sections().values():
        for block in blocks:
            if block.file:
                apply(block, folder)
    return folder


def run(folder: Path, *command: str, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("HBANALYSIS_STORE", None)
    return subprocess.run(
        command, cwd=folder, env=environment, input=given, capture_output=True, text=True, check=False
    )


def test_there_is_a_network_an_attack_and_a_study_each_in_few_lines():
    found = sections()
    assert list(found) == ["A network", "An attack", "A study"]
    for title, blocks in found.items():
        assert 0 < sum(block.added for block in blocks) < TOO_MANY, title
        assert sum(block.language == "pycon" for block in blocks) == 1


def test_every_block_of_the_page_is_one_that_is_tried():
    fences = re.findall(r"^```\{code-block\}", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) == sum(map(len, sections().values()))


def test_the_sessions_show_what_the_page_says(changed: Path):
    session = "\n\n".join(b.body for blocks in sections().values() for b in blocks if b.language == "pycon")
    done = run(changed, sys.executable, "-c", SESSIONS, given=session)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{session.count('>>> ')} examples, 0 failed\n"
    assert list((changed / "a-store" / "rows" / "weight_norm").glob("*.json"))


@pytest.mark.parametrize("command", ["ruff check hbanalysis", "ruff format --check hbanalysis", "lint-imports"])
def test_what_the_page_adds_passes_the_linters(changed: Path, command: str):
    name, *options = command.split()
    done = run(changed, str(Path(sys.executable).with_name(name)), *options)
    assert done.returncode == 0, done.stdout + done.stderr
