"""The committed benchmark results can be read, and say what the pages take from them."""

import json

import pytest

from hbanalysis.errors import StoreError
from hbanalysis.tables import measured


def test_every_committed_result_reads():
    several = {"portability"}  # holds measurements of several environments
    names = sorted({path.stem for path in measured.FOLDER.glob("*.json")} - several)
    assert "digits_net" in names
    for name in names:
        found = measured.results(name)
        assert "torch 2" in measured.where(found) and "1 thread" in measured.where(found)


def test_methods_are_shown_with_their_own_report():
    found = measured.results("digits_net")
    table = measured.methods(found)
    ours = table.loc["hbanalysis lanczos"]
    assert ours["right"] == "20 of 20" and ours["missing"] == "0" and "complete" in ours["own report"]
    for method in found["methods"]:
        assert table.loc[method["name"], "own report"] == method["report"]
    gone = {**found, "methods": [{"name": "peer", "status": "not installed"}]}
    assert measured.methods(gone).loc["peer", "own report"] == "not installed"


def test_damaged_and_missing_results_are_named(tmp_path):
    with pytest.raises(StoreError, match=r"other\.json.*README"):
        measured.results("other", tmp_path)
    (tmp_path / "cut.json").write_text('{"methods": [')
    with pytest.raises(StoreError, match=r"cut\.json"):
        measured.results("cut", tmp_path)
    (tmp_path / "whole.json").write_text(json.dumps({"a": 1}))
    assert measured.results("whole", tmp_path) == {"a": 1}


def test_a_large_measurement_says_what_was_counted_and_not_run():
    found = measured.results("m1_5000")
    said = measured.large(found)
    assert "M1, 5,000 images of mnist" in said and f"of ARPACK {found['arpack']['products']}" in said
    assert "PyHessian: " in said
    quiet = found | {"pyhessian": found["pyhessian"] | {"gradients": None}}
    assert "PyHessian" not in measured.large(quiet).replace(measured.where(found), "")
    assert all(row["right"] == 20 for row in found["methods"] if row["status"] == "run")


def test_screening_stands_beside_lanczos():
    law = {"screened": {"products": 20.0, "method": "screened", "notes": {"used": 0.8}}, "lanczos": {"products": 48}}
    row = {"samples": 500, "seed": 3, "loss": 9e-4, "share_of_heaviest": {"0.3": 0.9}, **law}
    line = measured.screening({"rows": [row]}).loc[0]
    assert (line["seed"], line["screened"], line["lanczos"], line["kept_samples"]) == (3, 20.0, 48, 0.8)
    assert line["screened / lanczos"] == 20.0 / 48


def test_screening_never_costs_more_than_lanczos_and_finds_the_same():
    for row in measured.results("screening")["rows"]:
        assert row["screened"]["converged"] and row["lanczos"]["converged"]
        assert row["screened"]["products"] < row["lanczos"]["products"], row["samples"]
        assert row["apart"] < 2e-4


def test_growth_is_told_per_unit():
    found = {
        "samples": [{"samples": 10, "product": 2.0, "gradient": 1.0}, {"samples": 20, "product": 6.0, "gradient": 3.0}],
        "parameters": [{"parameters": 5, "product": 1.0, "gradient": 0.5}],
    }
    table = measured.growth(found)
    assert table["seconds per unit, over the first"].tolist() == pytest.approx([1.0, 1.5, 1.0])
    assert table["gradients"].tolist() == [2.0, 2.0, 2.0] and table["number"].tolist() == [10, 20, 5]


def test_a_product_over_a_whole_set_is_told_apart_from_what_follows_from_it():
    row = {"samples": 50_000, "threads": 2, "first_product": 120.0, "peak_beyond_data": 3 << 30}
    said = measured.whole({"cifar10": row | {"extrapolated": {"products": 50, "seconds": 6000.0}}})
    assert "50,000 images on 2 threads" in said and "120 s, 3.0 GiB" in said and "not run: 50 products in 100" in said


def test_the_first_point_of_a_track_has_nothing_to_start_from():
    table = measured.tracking({"tracking": [{"loss": 1e-2, "random": 50}, {"loss": 1e-3, "random": 48, "tracked": 44}]})
    assert table["random"].tolist() == [50, 48] and table["tracked"].tolist() == [None, 44]
