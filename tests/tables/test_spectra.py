import dataclasses
import math

import pytest

from hbanalysis import studies
from hbanalysis.tables.spectra import by_family
from tests.flow_rows import STUDY, made_up_row


def row(cell, train, status="reached"):
    one = made_up_row(cell)
    at_target = {**one.values["at_target"], "spectrum_train": train, "spectrum_test": [5.0]}
    return dataclasses.replace(one, values={**one.values, "status": status, "at_target": at_target})


def test_lines_are_geometric_means_over_seeds_with_their_range():
    small, large = (studies.get(STUDY).cells("digits", batch_sizes=[size], seeds=[0, 1]) for size in (16, 64))
    rows = [row(small[0], [4.0, 1.0]), row(small[1], [9.0, 2.0]), row(large[0], [50.0, 3.0])]
    (entry,) = by_family(rows)
    assert entry["scale"] == "digits" and "digits" in entry["title"]
    first, second = entry["train"]
    assert (first["batch_size"], first["seeds"], second["batch_size"], second["seeds"]) == (16, 2, 64, 1)
    assert first["values"] == pytest.approx([6.0, math.sqrt(2)], rel=1e-4)
    assert (first["least"], first["most"]) == ([4.0, 1.0], [9.0, 2.0])
    assert [line["values"] for line in entry["test"]] == [[5.0], [5.0]]


def test_a_line_ends_where_a_seed_is_not_positive_and_stopped_trainings_are_left_out():
    cells = studies.get(STUDY).cells("digits", batch_sizes=[16], seeds=[0, 1, 2])
    rows = [row(cells[0], [4.0, 1.0, 0.5]), row(cells[1], [4.0, -1.0, 0.5]), row(cells[2], [100.0], "cap")]
    (entry,) = by_family(rows)
    (line,) = entry["train"]
    assert line["values"] == [4.0] and line["seeds"] == 2
    assert by_family([row(cells[2], [100.0], "cap")]) == []
