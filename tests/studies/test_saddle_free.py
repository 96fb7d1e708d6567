"""The study saddle_free: which networks it takes, and a whole tiny cell against dense Hessians made here."""

import pytest
import torch

from hbanalysis import data, studies
from hbanalysis.claims import input_verdicts
from hbanalysis.errors import InputError
from tests.input_nets import dense_hessians
from tests.tiny_cells import compute

STUDY = studies.get("saddle_free")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


def test_the_papers_networks_beyond_m1_are_checked_at_both_scales():
    for scale in ("small", "paper"):
        assert [c.training.network for c in STUDY.cells(scale)].count("CR") == 1
        assert {c.training.network for c in STUDY.cells(scale)} == {"C1", "C2", "C3", "CR"}


def test_trainings_at_the_papers_scale_are_shared_with_other_studies():
    others = {
        cell.training.key
        for name in ("spectrum_vs_batch", "adversarial_training")
        for cell in studies.get(name).cells("paper")
    }
    assert {cell.training.key for cell in STUDY.cells("paper")} <= others


def test_names_select_among_several_networks_and_replace_a_single_one():
    assert [c.training.network for c in STUDY.cells("small", network="C2")] == ["C2"]
    (one,) = STUDY.cells("digits", network="C1", dataset="cifar10")
    assert (one.training.network, one.training.dataset) == ("C1", "cifar10")
    assert [c.training.seed for c in STUDY.cells("digits", seeds=[3, 5])] == [3, 5]


def test_the_row_holds_what_dense_hessians_of_the_same_network_say(computed):
    row, model = computed.row, computed.model
    test = data.load("digits", "test", samples=5)
    values = torch.linalg.eigvalsh(dense_hessians(model.double(), test.images.double(), test.labels))
    found = row.values["theorem"]
    assert found["samples"] == 5 and found["method"] == "dense"
    assert found["exceptions"] == 0
    assert found["lambda_max_smallest"] == pytest.approx(values[:, -1].min().item(), rel=1e-8)
    assert found["negative_ratio"] == pytest.approx((-values[:, 0] / values[:, -1]).max().item(), abs=1e-12)
    assert sum(found["ranks"]) == 5 and len(found["ranks"]) <= 10


def test_the_table_has_a_line_for_it(computed):
    table = input_verdicts.theorem_table([computed.row])
    assert table["samples"].tolist() == [5]
    assert table["exceptions"].tolist() == [0]
    assert input_verdicts.theorem_table([]).empty


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"network": "M1"}, "has C1 on cifar10"),
        ({"theorem_samples": 0}, "theorem_samples must be at least 1"),
        ({"theorem_vectors": 0}, "theorem_vectors must be at least 1"),
        ({"activation": "elu(1)"}, "Unknown parameter"),
        ({"seeds": [-1]}, "seeds must be at least 0"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells("small", **overrides)
