"""The paper's numbers against arithmetic and against what is known of their slips."""

import hashlib
import json

import pytest

from hbanalysis import paper
from hbanalysis.errors import InputError

ATTACKS = ["d_fgsm", "d_fgsm10", "d_l2grad", "d_fhsm", "d_l2hess"]
# The texts that judge rows. One that changes here judges rows that are older than itself: add a second beside it.
CRITERIA = "7205b936c6ed2f11e2a068439cc9310b026ab24f621f3e2ab898fde174044662"


@pytest.mark.parametrize("name", ["table3", "table4"])
def test_adversarial_means_are_those_of_the_other_columns(name: str) -> None:
    table = paper.table(name)
    # The printed means are truncated to two digits, not rounded.
    difference = table[ATTACKS].mean(axis=1) - table["mean_adversarial"]
    assert difference.between(-0.001, 0.01).all()
    assert table["model"].tolist() == ["M_ORI", "M_FGSM", "M_FGSM-10", "M_L2GRAD", "M_FHSM", "M_L2HESS"]


def test_shapes_and_ranges_of_all_tables() -> None:
    tables = paper.tables()
    assert [len(table) for table in tables.values()] == [12, 4, 6, 6, 4, 10]
    for table in tables.values():
        accuracies = table[[c for c in table if "accuracy" in c or c.startswith("d_")]]
        assert ((accuracies >= 0) & (accuracies <= 100)).all(axis=None)
        assert table.attrs["where"]
        assert table["note"].map(type).eq(str).all()


def test_fractions_of_c2_are_percent_now_and_say_so() -> None:
    table = paper.table("table1")
    assert table["fgsm_normalised"].tolist() == [False] * 8 + [True] * 4
    c2 = table[table["network"] == "C2"]
    assert c2["fgsm_accuracy_eps_0.02_test"].tolist() == [38, 25, 22, 16]
    assert c2["note"].str.contains("fractions").all()


def test_known_slips_are_marked_and_kept_as_printed() -> None:
    c2 = paper.table("table1").query("network == 'C2' and batch_size == 2048").iloc[0]
    assert c2["grad_input_norm_train"] == 0.50
    assert "suspect" in c2["note"]
    copied = paper.table("table2").set_index("batch_size")
    values = [c for c in copied if c != "note"]
    assert (copied.loc[256, values] == copied.loc[512, values]).sum() == 6
    assert copied["note"].astype(bool).tolist() == [False, False, True, True]


def test_facts_that_the_text_of_the_paper_states() -> None:
    c1 = paper.table("table1").query("network == 'C1'").set_index("batch_size")
    assert c1.loc[512, "lambda1_input_test"] < c1.loc[32, "lambda1_input_test"]
    assert c1.loc[512, "grad_input_norm_test"] < c1.loc[32, "grad_input_norm_test"]
    assert c1.loc[2048, "lambda1_weights_train"] / c1.loc[16, "lambda1_weights_train"] == pytest.approx(125, abs=1)
    ratio = paper.table("table1").eval("lambda1_weights_test / lambda1_weights_train")
    assert ratio.between(45, 104).all()


def test_fifteen_claims_each_with_tables_that_exist_and_a_criterion() -> None:
    claims = paper.claims()
    assert [claim.id for claim in claims] == [f"K{i}" for i in range(1, 16)]
    assert {name for claim in claims for name in claim.tables} <= set(paper.tables())
    assert all(claim.statement and claim.where and claim.page for claim in claims)
    assert set(paper.criteria().claims) == {claim.id for claim in claims}


def test_rules_for_all() -> None:
    criteria = paper.criteria()
    assert criteria.rules["p_below"] == 0.01
    assert criteria.rules["deciding_scales"] == ("paper",)
    assert {c: criteria.seeds_needed("K1", c) for c in ("M1", "C1", "CR")} == {"M1": 5, "C1": 3, "CR": 3}
    assert criteria.factorial["designs"]["C1"]["without"] == ((0.0025, 2048),)


def test_criteria_are_the_ones_fixed_beforehand() -> None:
    criteria = paper.criteria()
    texts = {name: one.text for name, one in criteria.claims.items()}
    texts |= {"rules": criteria.rules["text"], "factorial": criteria.factorial["text"]}
    texts |= {"reading": criteria.attack_reading["text"]}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()
    assert digest == CRITERIA


def test_an_answer_cannot_alter_the_next_one() -> None:
    frame = paper.table("table1")
    frame.loc[0, "accuracy_test"] = 0.0
    assert paper.table("table1")["accuracy_test"].iloc[0] == 77.68
    with pytest.raises(TypeError):
        paper.criteria().claims["K1"].thresholds["rho_at_least"] = 0  # type: ignore[index]


@pytest.mark.parametrize("ask", [paper.table, paper.claim, lambda name: paper.criteria().seeds_needed(name, "M1")])
def test_unknown_names_are_refused(ask) -> None:
    with pytest.raises(InputError, match="nosuch"):
        ask("nosuch")
    with pytest.raises(InputError, match="table1"):
        paper.table("tabel1")
