import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = {".py", ".md", ".toml", ".yml", ".yaml", ".ipynb", ".css", ".json", ".cff", ".txt", ".bib", ""}
# Written in pieces, so that this file passes its own test.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
# Absolute paths of somebody's own machine: they mean nothing anywhere else.
OWN_PATHS = re.compile(
    r"(?<![\w.:/-])/(?:" + "|".join(("wo" + "rk", "ho" + "me", "ro" + "ot", "Us" + "ers", "tm" + "p")) + r")/\w"
)
LIBRARIES = {"mathjax", "plotly"}  # of others, as they publish them
LONGEST_MODULE = 350
LARGEST_NOTEBOOK = 300_000


def tree() -> list[Path]:
    """Files under version control and those about to be, as git sees them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    own = [path for path in tree() if path.suffix in TEXT and not LIBRARIES & set(path.parts)]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in own}


@pytest.mark.parametrize("pattern", [UNFINISHED, OWN_PATHS], ids=["unfinished", "own paths"])
def test_no_file_holds(texts, pattern):
    found = [f"{name}: {match[0]}" for name, text in texts.items() if (match := pattern.search(text))]
    assert found == []


def test_no_module_is_too_long():
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "hbanalysis").rglob("*.py")}
    assert {path.name: length for path, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_module_has_a_name_that_says_nothing():
    names = {path.stem for path in (ROOT / "hbanalysis").rglob("*.py")}
    assert names.isdisjoint({"utils", "helpers", "common", "misc"})


def test_no_notebook_is_too_large():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert {name: size for name, size in sizes.items() if size > LARGEST_NOTEBOOK} == {}


def test_every_package_is_pinned():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)] == []
