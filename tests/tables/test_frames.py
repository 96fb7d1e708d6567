"""Rows as frames: nothing lost, nothing invented, larger scales first."""

import pytest

from hbanalysis.tables import frames
from tests.synthetic_rows import make_row, make_rows, rising


def test_measured_holds_what_the_rows_hold() -> None:
    rows = [*make_rows([16, 64], [0, 1], rising), make_row(256, 0, status="diverged")]
    frame = frames.measured(rows)
    assert len(frame) == 5
    line = frame[(frame["batch_size"] == 64) & (frame["seed"] == 1)].iloc[0]
    (row,) = [r for r in rows if r.key == line["key"]]
    assert line["lambda1_train"] == row.values["at_target"]["lambda1_train"]
    assert line["fgsm_0.1_test"] == row.values["at_target"]["fgsm"][0]["accuracy_test"]
    lost = frame[frame["status"] == "diverged"].iloc[0]
    assert lost["batch_size"] == 256 and lost[["lambda1_train", "accuracy_test"]].isna().all()


def test_families_come_largest_scale_first_and_ignore_the_cap_on_epochs() -> None:
    rows = [
        make_row(16, 0),
        make_row(64, 0, max_epochs=5000),
        make_row(64, 0, scale="small", dataset="cifar10", network="C1", train_samples=5000),
        make_row(64, 0, scale="paper", dataset="mnist"),
    ]
    found = frames.families(rows)
    assert [one.scale for one in found] == ["paper", "small", "digits"]
    assert [one.title for one in found] == ["M1 on MNIST", "C1 on CIFAR-10 (first 5,000)", "M1 on the digits"]
    assert [len(group) for group in found.values()] == [1, 1, 2]


def test_means_leave_out_what_did_not_reach_the_target_and_count_it() -> None:
    rows = [make_row(16, s, lambda1=float(s + 1)) for s in range(2)] + [make_row(16, 2, status="cap", lambda1=9.0)]
    (line,) = frames.over_seeds(rows, ["lambda1_train"]).to_dict("records")
    assert (line["seeds"], line["not_reached"], line["lambda1_train"]) == (2, 1, 1.5)


def test_the_papers_numbers_are_those_of_the_same_network_and_data() -> None:
    assert frames.of_the_paper(make_rows([16], [0], rising)).empty
    c1 = frames.of_the_paper([make_row(64, 0, network="C1", dataset="cifar10")])
    assert c1["batch_size"].tolist() == [16, 32, 64, 128, 256, 512, 1024, 2048]
    assert c1.set_index("batch_size").loc[2048, "lambda1_train"] == 80.18
    assert c1.set_index("batch_size").loc[16, "fgsm_0.02_test"] == pytest.approx(0.3038)
    smooth = frames.of_the_paper([make_row(64, 0, network="C1", dataset="cifar10", activation="softplus(20)")])
    assert smooth["network"].unique().tolist() == ["C1S"]


def test_a_page_shows_ours_and_the_papers_in_one_table() -> None:
    table = frames.beside_the_paper(make_rows([16, 64], [0, 1], rising))
    assert table["source"].tolist() == ["here"] * 2 + ["paper"] * 8
    assert table[table["source"] == "paper"]["network"].unique().tolist() == ["C1"]
    assert table["accuracy_test (%)"].between(70, 100).all()
    assert table["seeds"].dropna().tolist() == [2, 2]
    text = frames.readable(table)
    assert text["lambda1_train"].iloc[2] == "0.64" and text["seeds"].iloc[2] == ""


def test_a_page_of_diverged_trainings_alone_still_shows_its_table() -> None:
    table = frames.beside_the_paper([make_row(16, 0, status="diverged")])
    assert table["not_reached"].iloc[0] == 1 and table["lambda1_train"].isna().iloc[0]
