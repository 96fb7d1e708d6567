"""Differences between two rows of a cell: closed forms, and float32 beside float64 on a training made here."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import precision
from hbanalysis import studies
from hbanalysis.records import drift
from hbanalysis.records.drift import Spread
from hbanalysis.store import Store
from hbanalysis.studies.cell_run import CellRun

COMMITTED = json.loads(precision.FILE.read_text())
EXACT = 1e-10  # below this a difference is rounding in float64 itself, or none
FACTOR = 100.0


def test_differences_are_relative_to_the_largest_entry_of_a_quantity():
    found = drift.differences(
        {"lambda1": 4.0, "spectrum": [4.0, 1.0], "slope": -2.0, "zero": 0.0, "course": [{"a": 1.0}, {"a": 3.0}]},
        {"lambda1": 5.0, "spectrum": [4.0, 0.5], "slope": 2.0, "zero": 0.0, "course": [{"a": 1.5}, {"a": 3.0}]},
    )
    assert found == {
        "lambda1": [0.2],
        "spectrum.*": [0.0, 0.125],
        "slope": [2.0],
        "zero": [0.0],
        "course.*.a": [pytest.approx(0.5 / 3), 0.0],
    }


@pytest.mark.parametrize(
    ("here", "reference", "expected"),
    [
        ("cap", "reached", 1.0),
        ("cap", "cap", 0.0),
        (None, None, 0.0),
        (None, 0.0, 1.0),
        (3.0, None, 1.0),
        (True, True, 0.0),
        (False, True, 1.0),
        (True, 1.0, 1.0),
        (2, 2.0, 1.0),
    ],
)
def test_what_is_no_number_is_equal_or_not(here, reference, expected):
    assert drift.differences({"x": here}, {"x": reference}) == {"x": [expected]}


def test_a_number_that_one_side_lacks_counts():
    assert drift.differences({"t": [1.0]}, {"t": [1.0, 2.0], "u": {"v": 1}}) == {"t.*": [0.0, 1.0], "u.v": [1.0]}


def test_spreads_go_over_all_cells():
    found = drift.spreads([{"a": [1e-8, 3e-8]}, {"a": [2.3456e-8], "b": [0.0]}])
    assert found == {"a": Spread(3, 2.35e-8, 3e-8), "b": Spread(1, 0.0, 0.0)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


def held_against_the_committed(name: str, store: Store) -> None:
    study = studies.get(name)
    found = drift.spreads([drift.drift(study, study.cells("tiny")[0], store, "cpu")])
    committed = COMMITTED["tiny"][name]["quantities"]
    assert set(found) == set(committed)
    moved = {q: s.worst for q, s in found.items() if s.worst > FACTOR * max(committed[q][2], EXACT)}
    assert moved == {}
    assert not store.rows()
    assert not list((store.root / "work").iterdir())


@pytest.mark.survives("Single precision")
def test_drift_of_a_spectrum_is_as_stated(store: Store):
    """Every number of a row of `spectrum_vs_batch` once in float32 and once in float64, on one training: the drift has
    the magnitude that this page states, and the eigenvalues agree to 1e-6."""
    held_against_the_committed("spectrum_vs_batch", store)
    stated = COMMITTED["tiny"]["spectrum_vs_batch"]["quantities"]
    assert EXACT < stated["at_target.spectrum_train.*"][2] < 1e-6


@pytest.mark.full
@pytest.mark.survives("Single precision")
@pytest.mark.parametrize("name", [name for name in studies.names() if name != "spectrum_vs_batch"])
def test_drift_of_every_study_is_as_stated(name: str, store: Store):
    """The same for every other study: curvature in the input, attacks, landscapes, courses of trainings."""
    held_against_the_committed(name, store)


def test_every_study_and_quantity_is_stated():
    assert set(COMMITTED["tiny"]) == set(studies.names())
    for scale in ("tiny", "digits"):
        for name, entry in COMMITTED[scale].items():
            known = {studies.get(name).label(cell) for cell in studies.get(name).cells(scale)}
            assert set(entry["cells"]) <= known
            assert all(
                numbers >= 1 and 0 <= median <= worst <= 2 for numbers, median, worst in entry["quantities"].values()
            )


@pytest.mark.survives("Single precision")
def test_attacks_by_the_exact_softmax_do_not_depend_on_the_precision():
    """On trained networks, accuracies under attacks by the exact softmax and under PGD on the margin were the same in
    float32 and float64; those by PyTorch's cross-entropy, whose float32 gradients vanish, were not."""
    readings, attacked = (
        COMMITTED["digits"][name]["quantities"] for name in ("attack_readings", "robustness_vs_batch")
    )
    exact = [line[2] for name, line in readings.items() if name.startswith("readings_exact_softmax.")]
    plain = [line[2] for name, line in readings.items() if name.startswith("readings.")]
    assert len(exact) == len(plain) == 10
    assert max(exact) == 0 and min(plain) > 0.01
    assert attacked["at_target.attacks.*.fgsm_exact_test"][2] == attacked["at_target.masking.*.pgd"][2] == 0
    assert attacked["at_target.attacks.*.fgsm_test"][2] > 0.1


def test_a_run_in_double_precision_differs_in_nothing_else(store: Store):
    cell = studies.get("spectrum_vs_batch").cells("tiny")[0]
    single, double = (kind(cell.training, store, "probe", "cpu") for kind in (CellRun, drift.DoubleRun))
    assert double.samples.images.dtype == double.test(7).images.dtype == torch.float64
    assert torch.equal(double.samples.images, single.samples.images.double())
    assert torch.equal(double.samples.labels, single.samples.labels)
    weights = zip(single.network().parameters(), double.network().parameters(), strict=True)
    assert all(q.dtype == torch.float64 and torch.equal(p.double(), q) for p, q in weights)


def test_the_program_measures_the_ends_of_what_a_study_varies(tmp_path: Path):
    study, single = studies.get("spectrum_vs_batch"), studies.get("attack_readings")
    assert [cell.training.batch_size for cell in precision.cells(study, "digits", 2)] == [16, 256]
    assert {cell.training.seed for cell in precision.cells(study, "digits", 2)} == {0}
    assert len(precision.cells(study, "digits", 1)) == len(precision.cells(single, "digits", 2)) == 1
