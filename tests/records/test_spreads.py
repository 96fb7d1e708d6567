"""What other threads and versions change is within the bands, and both measurements become the tables of a page."""

import json

import pytest

from benchmarks import portability
from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.records import spreads
from hbanalysis.tables import measured
from tests.flow_rows import STUDY, made_up_row

PORTABILITY = measured.results("portability")


@pytest.mark.survives("Other machines")
def test_every_ratio_that_was_measured_is_inside_its_band():
    """Cells computed again with other threads and other versions of PyTorch: every quantity that `hbanalysis compare`
    judges was inside its band, and no band is wider than a factor of four."""
    judged = 0
    for condition in PORTABILITY["conditions"]:
        for name, entry in condition["studies"].items():
            for quantity, (low, high) in entry["ratios"].items():
                band = studies.get(name).bands[quantity]
                assert band[0] <= low <= high <= band[1], (condition["name"], name, quantity)
                judged += 1
    assert judged >= 10
    for name in studies.names():
        for low, high in studies.get(name).bands.values():
            assert 1 / 4 <= low < 1 < high <= 4, name


def test_conditions_differ_from_the_published_rows_in_threads_or_versions():
    (reference,) = PORTABILITY["reference"]
    assert reference["threads"] == 1
    for condition in PORTABILITY["conditions"]:
        place = condition["environment"]
        assert (place["threads"], place["torch"]) != (reference["threads"], reference["torch"])


def row_of(cell, factor: float, threads: int):
    row = made_up_row(cell, factor)
    versions = {"torch": "2.15.0", "numpy": "2.4.6", "python": "3.11.7", "platform": "Linux", "date": "2026-11-23"}
    row.provenance.update({"threads": threads, **versions})
    return row


def test_a_condition_is_held_against_the_published_rows():
    cells = studies.get(STUDY).cells("digits")[:2]
    published = [row_of(cell, 1.0, 1) for cell in cells]
    here = [row_of(cells[0], 1.25, 2), row_of(cells[1], 0.8, 2), row_of(studies.get(STUDY).cells("digits")[5], 1.0, 2)]
    found = portability.condition("2 threads", here, published)
    entry = found["studies"][STUDY]
    assert entry["cells"] == [studies.get(STUDY).label(cell) for cell in cells]
    assert entry["ratios"]["at_target.lambda1_train"] == [0.8, 1.25]
    assert entry["quantities"]["at_target.lambda1_train"] == [2, 0.2, 0.2]
    assert entry["quantities"]["at_target.loss_test"] == [2, 0.0, 0.0]
    assert found["environment"]["threads"] == 2
    with pytest.raises(InputError, match="come from 2 environments"):
        portability.condition("mixed", [here[0], row_of(cells[1], 1.0, 1)], published)
    content = {"conditions": [found]}
    table = spreads.of_portability(content).set_index("quantity")
    assert table.loc["`at_target.lambda1_train`", "2 threads"] == "0.8 to 1.25"
    assert table.loc["`at_target.lambda1_train`", "band"] == "0.5 to 2"
    assert spreads.moved(content, STUDY)["at_target.lambda1_train"] == (0.8, 1.25)
    assert spreads.conditions(content, STUDY) == ["2 threads"] and spreads.conditions(content, "absa") == []
    shown = spreads.by_quantity(entry)
    assert "at_target.lambda1_train" in set(shown["quantity"]) and "at_target.loss_test" not in set(shown["quantity"])


def test_drift_is_counted_by_its_size():
    entry = {"cells": ["a cell"], "quantities": {"a": [1, 0.0, 0.0], "b": [2, 1e-7, 1e-6], "c": [1, 1e-3, 2e-2]}}
    found = {"tiny": dict.fromkeys(studies.names(), entry), "digits": {STUDY: {**entry, "cells": ["another"]}}}
    table = spreads.of_precision(found).set_index("study")
    assert table.loc[STUDY, "measured on"] == "another"
    assert table.loc["absa", "measured on"] == "a cell (a small cell of the tests)"
    assert table.loc["absa", ["up to 1e-6", "up to 1e-4", "up to 1e-2", "above"]].tolist() == ["2", "0", "0", "1"]
    assert table.loc["absa", "largest"] == "2.0e-02, `c`"
    assert json.dumps(spreads.shown(found, "absa")[0]) == '"tiny"'
