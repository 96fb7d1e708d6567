"""The table of all claims says what the verdicts say, and stands in the README as the published rows have it."""

import pytest

from hbanalysis import paper, store
from hbanalysis.claims import outcomes, scoreboard, verdicts
from hbanalysis.errors import StoreError
from tests.input_rows import input_row
from tests.strength_rows import strength_rows
from tests.synthetic_rows import make_rows, rising


def _by_claim(rows):
    return {one.claim.id: one for one in scoreboard.standings(rows)}


def test_without_rows_nothing_is_decided():
    found = scoreboard.standings([])
    assert [one.claim.id for one in found] == [claim.id for claim in paper.claims()]
    assert {one.outcome for one in found} == {outcomes.NOT_YET_RUN} and not any(one.found for one in found)


def test_rows_at_the_scale_of_the_paper_decide_and_smaller_ones_stand_beside_them():
    deciding = make_rows([64, 256, 1024, 2048], range(5), rising, scale="paper", dataset="mnist")
    small = make_rows([16, 64, 256], [0, 1, 2], rising, scale="digits")
    first = _by_claim([*deciding, *small])["K1"]
    assert first.outcome == verdicts.verdict("K1", deciding).outcome == outcomes.REPRODUCED
    assert len(first.found) == 1 and "M1 on MNIST: " in first.found[0] and first.found[0].endswith("5 seeds")
    assert first.elsewhere == ("digits: yes",)
    assert _by_claim(small)["K1"].outcome == outcomes.NOT_YET_RUN


def test_networks_that_disagree_are_named():
    rows = make_rows([64, 256, 1024, 2048], range(5), rising, scale="paper", dataset="mnist")
    rows += make_rows([64, 256, 1024, 2048], [0], rising, scale="paper", dataset="cifar10")
    outcome = _by_claim(rows)["K1"].outcome
    assert "M1 on MNIST: reproduced" in outcome and "M1 on CIFAR-10: undecided" in outcome


def test_parts_of_a_claim_stand_side_by_side():
    rows = make_rows([64, 256, 2048], range(5), rising, scale="paper", dataset="mnist")
    rows += strength_rows((64, 256, 2048), range(5), lambda b, s: {"pgd": [0.5 + b / 1e5, 0.4 + b / 1e5]})
    found = _by_claim(rows)["K4"]
    assert found.outcome == "M1 on MNIST: reproduced; M1 on MNIST, under PGD: not reproduced"
    assert [text.partition(":")[0] for text in found.found] == ["M1 on MNIST", "M1 on MNIST, under PGD"]


def test_an_exception_at_a_small_scale_reaches_the_table():
    rows = [input_row(16, 0, scale="paper", samples=1000), input_row(16, 0, samples=30, exceptions=2)]
    assert _by_claim(rows[:1])["K9"].outcome == outcomes.REPRODUCED
    assert _by_claim(rows)["K9"].outcome == outcomes.NOT_REPRODUCED


def test_a_claim_without_a_page_has_no_study(tmp_path, monkeypatch):
    assert _by_claim([])["K1"].study == "spectrum_vs_batch"
    monkeypatch.setattr(scoreboard, "NOTEBOOKS", tmp_path)
    assert not any(one.study for one in scoreboard.standings([]))


def test_the_readme_holds_the_table_of_the_published_rows(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(scoreboard.README.read_text(encoding="utf-8"), encoding="utf-8")
    found = scoreboard.standings(store.published().rows())
    assert not scoreboard.update_readme(copy, found), "run `hbanalysis publish`: the table in README.md is old"
    assert scoreboard.update_readme(copy, scoreboard.standings([]))
    copy.write_text("# no marks", encoding="utf-8")
    with pytest.raises(StoreError, match="needs the lines"):
        scoreboard.update_readme(copy, found)
