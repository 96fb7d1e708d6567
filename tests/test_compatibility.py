"""Imports without the book's packages, deprecations, and the versions that were tried."""

import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TRIED = PROJECT["tool"]["hbanalysis"]["tried"]
# What pyproject.toml asks for beyond the package's own dependencies, by the names that are imported.
BOOK = (
    "jupyter_book",
    "sphinx",
    "sphinx_book_theme",
    "ipykernel",
    "IPython",
    "papermill",
    "nbval",
    "nbformat",
    "nbclient",
)
OTHERS = ("plotly", "pytest", "hypothesis", "beartype", "filelock", "bs4", "playwright", "snakemake", "curvlinops")
# Pages and notebooks are what these modules are for.
NEED_BOOK = "hbanalysis.publishing"
SCRIPT = """
import importlib, importlib.machinery, pkgutil, sys

class Without(importlib.machinery.PathFinder):
    # Finds what is installed but for some packages, as if these were not.
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] not in {absent!r}:
            return importlib.machinery.PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Without if one is importlib.machinery.PathFinder else one for one in sys.meta_path]
import hbanalysis

names = [m.name for m in pkgutil.walk_packages(hbanalysis.__path__, "hbanalysis.", onerror=lambda name: None)]
for name in names:
    if not name.startswith({need!r}):
        importlib.import_module(name)
from hbanalysis import cli
print(len(names))
cli.main(["cells", "absa", "--scale", "tiny"])
"""


@pytest.mark.survives("Versions and dependencies")
def test_the_package_without_the_book():
    """Every module but those that publish pages is imported, and the command lists cells, where none of the packages of
    the book, of tests and of benchmarks can be imported."""
    script = SCRIPT.format(absent={*BOOK, *OTHERS}, need=NEED_BOOK)
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    count, *cells = run.stdout.splitlines()
    assert int(count) > 100
    assert len(cells) == 4 and all(line.startswith("absa ") for line in cells)


@pytest.mark.survives("Versions and dependencies")
@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning])
def test_a_deprecation_is_a_failure(kind: type[Warning]):
    """A deprecation, or any other warning of a dependency, fails the test in which it is given; those that PyTorch
    gives of itself are let through by their text."""
    with pytest.raises(kind, match="old"):
        warnings.warn("old", kind, stacklevel=1)
    first, *others = PROJECT["tool"]["pytest"]["ini_options"]["filterwarnings"]
    assert first == "error"
    assert all(re.fullmatch(r"ignore:[^:]{20,}:(Future|User|Deprecation)Warning", other) for other in others)


@pytest.mark.survives("Versions and dependencies")
def test_the_stated_ranges_begin_with_what_was_tried():
    """The lowest Python and the lowest torch that `pyproject.toml` allows are the lowest that were tried, and no Python
    is named that was not."""
    pythons = sorted({version(one["python"])[:2] for one in TRIED})
    torches = sorted({version(one["torch"])[:2] for one in TRIED})
    stated = PROJECT["project"]
    assert stated["requires-python"] == ">=" + ".".join(map(str, pythons[0]))
    (torch,) = [text for text in stated["dependencies"] if text.startswith("torch>")]
    assert torch == "torch>=" + ".".join(map(str, torches[0]))
    named = {text.rsplit(" ", 1)[1] for text in stated["classifiers"] if "Python :: 3." in text}
    assert named == {".".join(map(str, python)) for python in pythons}
    assert all(set(one) == {"python", "torch", "what"} and one["what"] for one in TRIED)


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split("."))
