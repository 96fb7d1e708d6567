from dataclasses import replace
from pathlib import Path

import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.records import verify
from tests.flow_rows import STUDY, made_up_row, publish_into, tiny_store


@pytest.mark.survives("Determinism")
def test_a_published_row_is_recomputed_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A row computed again from nothing by another process, with the same seed and one thread, training, spectra and
    FGSM included, has the same values, digit for digit."""
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path))
    row = tiny_store().rows()[0]
    publish_into(tmp_path, [row])
    result = verify.verify(row.key[:8], device="cpu", show=False)
    assert result.here is not None
    assert result.here.values == row.values
    assert (result.compared["ratio"] == 1).all()
    assert result.exit_code == 0
    wrong = {**row.values, "at_target": {**row.values["at_target"], "lambda1_train": 1e6}}
    publish_into(tmp_path, [replace(row, values=wrong)])
    compared = verify.comparison.compare([result.here], verify.published().rows())
    assert replace(result, compared=compared).exit_code == 1


def test_a_row_is_found_by_key_path_and_unique_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path))
    with pytest.raises(InputError, match="No row is published yet"):
        verify.find("00")
    rows = [made_up_row(cell) for cell in studies.get(STUDY).cells("digits")]
    publish_into(tmp_path, rows)
    key = rows[0].key
    for name in (key, key[:12], f"{STUDY}/{key}", f"book/results/{STUDY}/{key}.json"):
        assert verify.find(name).key == key
    with pytest.raises(InputError, match="Unknown published row"):
        verify.find("zz")
    with pytest.raises(InputError):
        verify.find("")
