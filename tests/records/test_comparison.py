import math

from hbanalysis import studies
from hbanalysis.records import comparison
from tests.flow_rows import STUDY, made_up_row


def test_every_band_of_a_row_is_judged():
    study = studies.get(STUDY)
    cell = study.cells("digits")[0]
    compared = comparison.compare([made_up_row(cell, 3.0)], [made_up_row(cell)])
    assert list(compared.columns) == comparison.COLUMNS
    assert set(compared["quantity"]) <= set(study.bands)
    by_quantity = compared.set_index("quantity")
    assert math.isclose(by_quantity.loc["at_target.lambda1_train", "ratio"], 3.0)
    assert not by_quantity.loc["at_target.lambda1_train", "inside"]
    assert by_quantity.loc["at_target.accuracy_test", "inside"]


def test_a_value_on_one_side_only_is_not_inside():
    cell = studies.get(STUDY).cells("digits")[0]
    half = made_up_row(cell)
    half.values["at_target"] = {**half.values["at_target"], "lambda1_test": None}
    compared = comparison.compare([half], [made_up_row(cell)]).set_index("quantity")
    assert not compared.loc["at_target.lambda1_test", "inside"]
    assert math.isnan(compared.loc["at_target.lambda1_test", "here"])


def test_a_row_without_a_partner_is_named_and_has_no_line():
    first, second = (made_up_row(cell) for cell in studies.get(STUDY).cells("digits")[:2])
    assert comparison.compare([second], [first]).empty
    assert comparison.without_partner([first, second], [first]) == [second]
    assert "No row here" in comparison.table(comparison.compare([second], [first]))


def test_the_table_counts_what_is_inside():
    cell = studies.get(STUDY).cells("digits")[0]
    text = comparison.table(comparison.compare([made_up_row(cell, 3.0)], [made_up_row(cell)]))
    assert "NO" in text
    assert text.endswith("values inside their band.")
    assert studies.get(STUDY).label(cell) in text


def test_a_ratio_to_zero_is_not_a_number_unless_both_are_zero():
    assert math.isnan(comparison.ratio(1.0, 0.0))
    assert comparison.ratio(0, 0.0) == 1.0
