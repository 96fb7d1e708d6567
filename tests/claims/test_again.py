"""The commands that pages name for their rows, against the rows."""

import shlex
from dataclasses import replace

import pytest

from hbanalysis import store, studies
from hbanalysis.claims.again import commands
from hbanalysis.store import Row
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


def rows_of(name: str, scale: str, **overrides: object) -> list[Row]:
    """Return rows of the paper's scale as the cells of a preset would have them, with the values of another."""
    study, (template, *_) = studies.get(name), store.published().rows(name)
    cells = study.cells(scale, **overrides)
    return [replace(template, scale="paper", key=study.key(cell), config=study.config(cell)) for cell in cells]


def test_rows_that_a_preset_has_with_other_seeds_are_named_by_their_seeds():
    assert commands("attack_readings", rows_of("attack_readings", "mnist", seeds=[0])) == (
        "hbanalysis run attack_readings --scale mnist",
    )
    assert commands("attack_readings", rows_of("attack_readings", "mnist", seeds=[1, 4])) == (
        "hbanalysis run attack_readings --scale mnist --set 'seeds=[1,4]'",
    )


def test_rows_outside_the_smaller_preset_are_named_by_their_keys():
    smaller = {row.config["training"]["batch_size"] for row in rows_of("spectrum_vs_batch", "mnist")}
    paper = rows_of("spectrum_vs_batch", "paper", dataset="mnist")
    chosen = [row for row in paper if row.config["training"]["batch_size"] not in smaller][:2]
    (found,) = commands("spectrum_vs_batch", chosen)
    assert found.startswith("hbanalysis run spectrum_vs_batch --scale paper --key ")
    assert len(chosen) == 2 and computed(found) == {row.key for row in chosen}


def test_only_the_families_asked_for_are_named():
    rows = store.published().rows("input_curvature")
    small = [one for one in families(rows) if one.scale == "digits"]
    assert commands("input_curvature", rows, small) == ("hbanalysis run input_curvature --scale digits",)
    assert commands("input_curvature", rows, []) == ()


def test_rows_of_no_preset_have_no_command():
    row = store.published().rows("absa")[0]
    assert commands("absa", [replace(row, scale="custom")]) == ()
