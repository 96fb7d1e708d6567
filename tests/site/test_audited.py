import pytest

ROOM = {"killed": 8, "crashed": 0, "timeout": 1, "survived": 1, "unreached": 0, "tried": 10, "mutants": 10}
SURVIVOR = {
    "file": "hbanalysis/eigen/power.py",
    "line": 7,
    "function": "power",
    "kind": "equivalent",
    "status": "survived",
    "before": "if a | b:",
    "after": "if b | a:",
    "why": "The order of both does not matter.",
}
STAMP = {"date": "2026-11-23", "commit": "abc1234", "versions": {"mutmut": "3", "python": "3.11", "torch": "2"}}
REPORT = {
    "mutation": {
        **STAMP,
        "seed": 1,
        "slowest_test_seconds": 2.0,
        "tests_seconds": 15.0,
        "rooms": {"eigen": {**ROOM, "interval": [0.55, 0.99], "survivors": [SURVIVOR]}},
    },
    "coverage": {
        **STAMP,
        "tests": "both tiers",
        "lines": [970, 1000],
        "branches": [91, 100],
        "on_cuda_only": [{"file": "hbanalysis/memory.py", "why": "asks the device"}],
    },
    "memory": {**STAMP, "runs": {"weight Hessian": {"unit": "product", "count": 1000, "growth_mb": -0.4}}},
    "weaknesses": {**STAMP, "asked": 3, "answered": 2, "known": ["some 1.0: CVE-1"]},
}


@pytest.fixture(scope="module")
def directive(extension):
    return extension("audited")


def test_the_section_says_what_was_measured(directive):
    text = directive.page(REPORT, [])
    assert "Stale" not in text
    assert "drawn with seed 1 when all tests had been written" in text
    assert "| `eigen` | 10 | 10 | 8 | 1 | 1 | 90.0 (55.0 to 99.0) |" in text
    assert "line 7, `` if a | b: `` became `` if b | a: ``: The order of both does not matter." in text
    assert "The tests (both tiers) run 970 of 1,000 lines" in text
    assert "(97.0 %)" in text
    assert "(91.0 %)" in text
    assert "`hbanalysis/memory.py` (asks the device)" in text
    assert "weight Hessian: -0.4 MB in the last nine tenths of 1,000 products" in text


def test_weaknesses_are_named_and_a_missing_answer_is_no_clean_bill(directive):
    assert "asked about all 3 packages of `constraints.txt` and was answered for 2: `some 1.0: CVE-1`." in (
        directive.page(REPORT, [])
    )
    clean = {**REPORT["weaknesses"], "known": []}
    assert "answered for 2: no weakness of these is known." in directive.page({**REPORT, "weaknesses": clean}, [])
    silent = {**clean, "answered": 0}
    text = directive.page({**REPORT, "weaknesses": silent}, [])
    assert "so nothing is shown here" in text and "no weakness" not in text


def test_a_stale_section_names_the_files_first(directive):
    text = directive.page(REPORT, ["hbanalysis/eigen/power.py", "tests/eigen/test_new.py"])
    assert text.startswith(":::{warning}\n**Stale.**")
    assert "`hbanalysis/eigen/power.py`, `tests/eigen/test_new.py`" in text.partition(":::\n\n")[0]
