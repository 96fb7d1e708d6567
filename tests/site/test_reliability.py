from pathlib import Path

import pytest
from sphinx.errors import ExtensionError

ROOT = Path(__file__).parents[2]
SUITE = '''
import pytest
OFTEN = pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.full)])

@pytest.mark.survives("Faults")
def test_quick():
    """A `kill -9`
    is survived."""

@pytest.mark.full
@pytest.mark.survives("Faults", "Places")
def test_slow():
    """Anything."""

@OFTEN
@pytest.mark.survives("Places")
def test_both(times):
    """Something."""

def test_without_mark():
    """Not claimed."""
'''


@pytest.fixture(scope="module")
def reliability(extension):
    return extension("reliability")


def claims(reliability, folder: Path, suite: str) -> list:
    (folder / "tests").mkdir(exist_ok=True)
    (folder / "tests" / "test_suite.py").write_text(suite)
    return reliability.claims(folder / "tests")


def test_the_marked_tests_are_the_claims(reliability, tmp_path):
    found = claims(reliability, tmp_path, SUITE)
    assert [(c.headings, c.text, c.tier) for c in found] == [
        (("Faults",), "A `kill -9` is survived.", "quick"),
        (("Faults", "Places"), "Anything.", "full"),
        (("Places",), "Something.", "both"),
    ]
    assert found[0].test == "tests/test_suite.py::test_quick"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"""Anything."""', "pass", "without a docstring"),
        ('survives("Places")', "survives()", "without a heading"),
        ("@OFTEN", "@pytest.mark.skip", "may not run"),
        ("@OFTEN", "@pytest.mark.xfail(reason='x')", "may not run"),
        ("survives", "endures", "No test below"),
    ],
)
def test_a_claim_that_nothing_shows_stops_the_build(reliability, tmp_path, old, new, why):
    assert old in SUITE
    with pytest.raises(ExtensionError, match=why):
        claims(reliability, tmp_path, SUITE.replace(old, new))


def test_every_claim_of_the_page_is_a_test_that_pytest_collects(reliability, site):
    found = reliability.claims(ROOT / "tests")
    page = (site / "book" / "reliability.html").read_text(encoding="utf-8")
    for claim in found:
        path, _, name = claim.test.partition("::")
        source = (ROOT / path).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in source
        assert claim.test in page
    assert page.count("::test_") == sum(len(claim.headings) for claim in found)
