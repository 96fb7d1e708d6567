"""What hand-written pages say in numbers is what the code and the data say."""

import re
from pathlib import Path

from hbanalysis import paper, studies

BOOK = Path(__file__).parents[1] / "book"


def test_the_rules_on_the_page_are_those_of_the_criteria() -> None:
    text = " ".join((BOOK / "criteria.md").read_text("utf-8").split())
    criteria = paper.criteria()
    assert f"{criteria.date:%-d %B %Y}" in text
    assert f"asks for $p < {criteria.rules['p_below']:g}$" in text
    assert f"{100 * criteria.rules['confidence']:g} % {{term}}`t-interval`" in text
    words = {3: "three", 5: "five"}
    assert f"wants {words[criteria.seeds_needed('K1', 'M1')]} seeds of {{term}}`M1` and" in text
    assert f"and {words[criteria.seeds_needed('K1', 'C2')]} of every other network" in text
    assert f"crossing` of the loss {criteria.rules['crossing_of_loss']:g}." in text
    assert [f"*{outcome}*" in text for outcome in criteria.rules["outcomes"]] == [True] * 5


def test_keys_in_commands_are_keys_of_cells() -> None:
    found = re.findall(r"hbanalysis run (\w+) --scale (\w+) --key (\w+)", (BOOK / "cluster.md").read_text("utf-8"))
    assert found
    for name, scale, start in found:
        study = studies.get(name)
        assert sum(study.key(cell).startswith(start) for cell in study.cells(scale)) == 1
