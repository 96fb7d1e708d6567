"""The commands that pages name for their rows, against the rows."""

import shlex
from dataclasses import replace

import pytest

from hbanalysis import store, studies
from hbanalysis.claims.again import commands
from hbanalysis.tables.frames import families


def computed(command: str) -> set[str]:
    """Return the keys of the cells that a command computes, by what its words say."""
    program, run, name, *options = shlex.split(command)
    assert (program, run) == ("hbanalysis", "run")
    pairs = list(zip(options[::2], options[1::2], strict=True))
    scale = dict(pairs)["--scale"]
    overrides = {}
    for option, word in pairs:
        if option == "--set":
            key, value = word.split("=")
            overrides[key] = [int(number) for number in value.strip("[]").split(",")]
    study = studies.get(name)
    keys = {study.key(cell) for cell in study.cells(scale, **overrides)}
    picked = tuple(word for option, word in pairs if option == "--key")
    return {key for key in keys if key.startswith(picked)} if picked else keys


@pytest.mark.parametrize("name", studies.names())
def test_the_commands_compute_every_published_row(name):
    rows = store.published().rows(name)
    found = commands(name, rows)
    assert {row.key for row in rows} <= set().union(*map(computed, found))
    assert len(set(found)) == len(found)


def test_single_cells_are_named_by_their_keys():
    rows = store.published().rows("spectrum_vs_batch")
    paper = [row for row in rows if row.scale == "paper"]
    (found,) = commands("spectrum_vs_batch", paper)
    assert computed(found) >= {row.key for row in paper}
    preset = {studies.get("spectrum_vs_batch").key(cell) for cell in studies.get("spectrum_vs_batch").cells("mnist")}
    few = [row for row in paper if row.key not in preset][:1]
    (found,) = commands("spectrum_vs_batch", few)
    assert computed(found) >= {few[0].key}


def test_only_the_families_asked_for_are_named():
    rows = store.published().rows("input_curvature")
    small = [one for one in families(rows) if one.scale == "digits"]
    assert commands("input_curvature", rows, small) == ("hbanalysis run input_curvature --scale digits",)
    assert commands("input_curvature", rows, []) == ()


def test_rows_of_no_preset_have_no_command():
    row = store.published().rows("absa")[0]
    assert commands("absa", [replace(row, scale="custom")]) == ()
