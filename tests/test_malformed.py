"""Thousands of malformed parameter sets, rows and configurations: each an error that names its cause, or no harm."""

import json
from pathlib import Path

import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError, StoreError
from hbanalysis.store import Store
from hbanalysis.studies.cells import as_data
from tests import malformed
from tests.flow_rows import STUDY, made_up_row

OFTEN = pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.full)])


@pytest.mark.survives("Malformed input")
@OFTEN
def test_malformed_parameter_sets(count: int):
    """Thousands of random parameter sets with one to three invalid values or an unknown name: each is an error that
    names one of them."""
    for number, (name, given) in enumerate(malformed.bad_parameters(count, count)):
        with pytest.raises(InputError) as caught:
            studies.get(name).cells("digits", **given)
        assert any(repr(key) in str(caught.value) or key in str(caught.value) for key in given), (number, given)


@pytest.mark.survives("Malformed input")
@OFTEN
def test_malformed_configurations(count: int):
    """Thousands of configurations with a field lost, added, doubled, or of another type or value: each is an error that
    says what it is no configuration of or which value is out of range, or is another cell that reads exactly so."""
    refused = 0
    for number, (name, config) in enumerate(malformed.bad_configurations(count, count)):
        study = studies.get(name)
        try:
            cell = study.from_config(config)
        except InputError as error:
            assert len(str(error)) > 20, (number, config)
            refused += 1
            continue
        # A value is given as it stands, or by its default where the field was lost.
        read = as_data(cell)
        for key, value in malformed.settings_of(config):
            assert malformed.value_at(read, key) == value, (number, key)
        assert len(study.key(cell)) == 20 and study.label(cell) and study.cost(cell) > 0
    assert refused > count / 2


@pytest.mark.survives("Malformed input")
@OFTEN
def test_malformed_rows(count: int, tmp_path: Path):
    """Thousands of damaged files of rows: each is refused with an error that names the file, or reads exactly as
    before."""
    cell = studies.get(STUDY).cells("digits")[0]
    sound, store, refused = made_up_row(cell), Store(tmp_path), 0
    path = store.put(sound)
    assert json.loads(path.read_text()) == json.loads(malformed.good_row())
    for number, content in enumerate(malformed.bad_rows(count, count)):
        path.write_bytes(content)
        try:
            read = store.get(STUDY, sound.key)
        except StoreError as error:
            assert str(path) in str(error), number
            refused += 1
            continue
        assert read == sound, number
    assert refused > 0.9 * count
