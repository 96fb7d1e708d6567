"""Random parameters: valid ones give cells with keys of their own, invalid ones an error that names the parameter."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbanalysis import studies
from hbanalysis.errors import InputError
from tests import parameter_space as space

SEARCH = settings(max_examples=25, deadline=None)


@st.composite
def chosen(draw: st.DrawFn, study: str) -> dict[str, Any]:
    names = draw(st.sets(st.sampled_from(sorted(studies.get(study).parameters)), max_size=6))
    return {name: draw(space.valid(study, name)) for name in sorted(names)}


@pytest.mark.survives("Malformed input")
@pytest.mark.parametrize("name", studies.names())
@SEARCH
@given(data=st.data())
def test_valid_parameters_give_cells_with_stable_distinct_keys(name: str, data: st.DataObject):
    """Random valid parameters of every study: each cell reads back from its configuration as JSON, in any order of its
    fields, with the same key; different cells have different keys."""
    study = studies.get(name)
    cells = study.cells("digits", **data.draw(chosen(name)))
    assert cells
    keys = {study.key(cell) for cell in cells}
    assert len(keys) == len(cells) == len(set(cells))
    for cell in cells:
        config = json.loads(json.dumps(study.config(cell)), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
        back = study.from_config(config)
        assert back == cell and study.key(back) == study.key(cell)
        assert study.label(cell) and study.cost(cell) > 0 and study.trainings(cell)


@pytest.mark.survives("Malformed input")
@pytest.mark.parametrize(("name", "parameter"), space.parameters())
def test_an_invalid_value_is_an_error_that_names_its_parameter(name: str, parameter: str):
    """Every parameter of every study with values of wrong types, out of range, not finite, or too large for a
    computer's numbers: an error that names the parameter, before anything is computed."""
    for value in space.invalid(name, parameter):
        with pytest.raises(InputError, match=parameter):
            studies.get(name).cells("digits", **{parameter: value})


@pytest.mark.parametrize("name", studies.names())
@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 10**6))
def test_one_invalid_value_among_valid_ones_is_found(name: str, data: st.DataObject, seed: int):
    rng, good = random.Random(seed), data.draw(chosen(name))
    parameter = rng.choice(sorted(studies.get(name).parameters))
    bad = {**good, parameter: rng.choice(space.invalid(name, parameter))}
    with pytest.raises(InputError, match="|".join(bad)):
        studies.get(name).cells("digits", **bad)


def test_values_that_no_cell_has_are_named():
    with pytest.raises(InputError, match="No cell of training_dynamics .* has network='C1'"):
        studies.get("training_dynamics").cells("digits", network="C1")
