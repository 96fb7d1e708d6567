"""The plugin that keeps the tiers, run on small suites of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiers import is_allowed, load_allowed

ROOT = Path(__file__).parents[1]
SUITE = """
import pytest
@pytest.mark.full
def test_slow(): pass
def test_fast(): pass
"""
CONFIGURATION = """[pytest]
addopts = --import-mode=importlib -p tests.tiers -p no:cacheprovider
markers =
  full: full tier
  begun_first: long
"""


@pytest.fixture
def run(tmp_path):
    def runner(suite: str, *options: str) -> subprocess.CompletedProcess:
        (tmp_path / "pytest.ini").write_text(CONFIGURATION)
        (tmp_path / "test_suite.py").write_text(suite)
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest; sys.exit(pytest.main())"
        command = [sys.executable, "-c", code, str(tmp_path / "test_suite.py"), *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    return runner


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_each_tier_runs_its_own_tests_and_names_the_others(run, workers):
    quick = run(SUITE, "--tier", "quick", *workers)
    full = run(SUITE, "--tier", "full", *workers)
    assert (quick.returncode, full.returncode) == (0, 0), quick.stdout + quick.stderr
    assert "1 passed" in quick.stdout and "1 passed" in full.stdout
    assert "1 tests of the full tier, run by `make test-full`:" in quick.stdout
    assert "1 tests of the quick tier, run by `make test`:" in full.stdout


def test_what_takes_long_is_begun_first(run):
    done = run("import pytest\ndef test_short(): pass\n@pytest.mark.begun_first\ndef test_long(): pass", "-v")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("test_long PASSED") < done.stdout.index("test_short PASSED")


@pytest.mark.parametrize(
    "suite",
    [
        "import pytest\ndef test_gone(): pytest.skip('felt like it')",
        "import pytest\npytest.skip('felt like it', allow_module_level=True)",
        "import pytest\n@pytest.mark.xfail(reason='felt like it')\ndef test_broken(): assert False",
    ],
    ids=["test", "module", "expected failure"],
)
def test_a_skip_that_is_not_listed_fails(run, suite):
    done = run(suite + "\n")
    assert done.returncode != 0
    assert "felt like it" in done.stdout
    assert "No entry of tests/allowed_skips.toml allows it" in done.stdout


def test_listed_skips_are_matched_by_test_and_reason():
    allowed = load_allowed()
    assert is_allowed("tests/test_data.py::test_real", "data set mnist is not under HBANALYSIS_DATA", allowed)
    assert not is_allowed("tests/test_data.py::test_real", "chromium is not on PATH", allowed)
    assert not is_allowed("notebooks/a.ipynb::Cell 0", "no CUDA device", allowed)


def test_an_entry_without_a_reason_is_refused(tmp_path):
    path = tmp_path / "allowed.toml"
    path.write_text('[[skip]]\ntest = "*"\nreason = "*"\nwhy = ""\n')
    with pytest.raises(pytest.UsageError, match="needs test, reason and why"):
        load_allowed(path)


def test_random_searches_are_the_same_in_every_run_of_continuous_integration():
    code = "from hypothesis import settings; print(settings.default.derandomize, settings.default.database)"
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CI": "true"}, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["True", "None"]
