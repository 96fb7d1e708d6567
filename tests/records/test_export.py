import csv
from pathlib import Path

import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.records import export
from hbanalysis.store import published
from tests.flow_rows import STUDY, made_up_row, tiny_store


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_column_and_quantity_of_real_rows_is_in_the_dictionary(tmp_path: Path):
    table, dictionary = export.write(tiny_store().rows() + published().rows(), tmp_path / "rows.csv")
    described = {line["name"]: line["meaning"] for line in read(dictionary)}
    assert [name for name, meaning in described.items() if not meaning] == []
    lines = read(table)
    assert set(lines[0]) <= set(described)
    assert {export.pattern(line["quantity"]) for line in lines} <= set(described)


def test_a_line_holds_one_value_and_its_configuration(tmp_path: Path):
    row = made_up_row(studies.get(STUDY).cells("digits")[1])
    table, _ = export.write([row], tmp_path / "new" / "rows.csv")
    lines = {line["quantity"]: line for line in read(table)}
    first = lines["at_target.spectrum_train.0"]
    assert float(first["value"]) == row.values["at_target"]["spectrum_train"][0]
    assert (first["training.batch_size"], first["training.seed"]) == ("16", "1")
    assert (first["key"], first["scale"], first["origin"]) == (row.key, "digits", "here")
    assert "epoch_end" not in lines


@pytest.mark.parametrize("target", ["rows.txt", "/dev/null/rows.csv"])
def test_a_wrong_target_is_refused(target: str):
    with pytest.raises(InputError):
        export.write([], target)
