"""The study robustness_vs_batch: presets, and a whole tiny cell against independent computations."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from hbanalysis import data, studies
from hbanalysis.attacks import pgd, worst_case
from hbanalysis.errors import InputError
from hbanalysis.store import Store
from hbanalysis.studies.robustness_vs_batch import without_attack
from hbanalysis.training.evaluation import accuracy_under_fgsm
from tests.batch_size_cells import shared_cells
from tests.tiny_cells import compute, compute_with_stops

STUDY = studies.get("robustness_vs_batch")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize("scale", ["digits", "mnist", "small", "paper"])
def test_trainings_and_sizes_are_those_of_the_batch_size_study(scale):
    theirs = {c.training.key: c.measure.epsilons for c in shared_cells(scale)}
    assert {c.training.key: c.measure.epsilons for c in STUDY.cells(scale)} == theirs


def test_configuration_and_cell_are_the_same_thing():
    for scale in (*STUDY.scales, "tiny"):
        for cell in STUDY.cells(scale):
            assert STUDY.from_config(STUDY.config(cell)) == cell
    assert {STUDY.scale_of(c) for c in STUDY.cells("mnist")} == {"paper"}
    assert {STUDY.scale_of(c) for c in STUDY.cells("digits", pgd_steps=7)} == {"custom"}


def test_the_strong_attack_of_the_paper_scale_is_the_criterions():
    measures = {c.measure for c in STUDY.cells("paper")}
    assert {(m.pgd_samples, m.pgd_steps, m.pgd_restarts) for m in measures} == {(1000, 50, 5)}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"epsilons": [0.6]}, "half the range of images"),
        ({"epsilons": [0.0]}, "sizes in"),
        ({"pgd_restarts": 0}, "pgd_restarts must be at least 1"),
        ({"batch_sizes": [5000]}, "1..1433"),
        ({"pgd_steps": "many"}, "pgd_steps must be int"),
        ({"iterations": [1]}, "Unknown parameter"),
    ],
)
def test_bad_input_is_named(overrides, message):
    with pytest.raises(InputError, match=message):
        STUDY.cells("digits", **overrides)


def test_a_configuration_of_another_study_is_refused():
    with pytest.raises(InputError, match="no configuration"):
        STUDY.from_config({"training": STUDY.config(STUDY.cells("tiny")[0])["training"]})


def right(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def test_accuracies_are_those_of_steps_written_out(computed):
    _, cell, row, _, model = computed
    (line,) = row.values["at_target"]["attacks"]
    (eps,) = cell.measure.epsilons
    assert line["epsilon"] == eps == 0.1
    for split, count in (("train", 80), ("test", 60)):
        part = data.load("digits", split, samples=count)
        x, y = part.images, part.labels

        def slope(point, y=y):
            leaf = point.clone().requires_grad_()
            return torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]

        free = x + eps * slope(x).sign()
        assert line[f"fgsm_free_{split}"] == pytest.approx(right(model, free, y))
        assert line[f"fgsm_{split}"] == pytest.approx(right(model, free.clamp(0, 1), y))
        assert line[f"fgsm_{split}"] == pytest.approx(accuracy_under_fgsm(model, x, y, eps))
        point = x
        for _ in range(10):
            point = (point + eps / 10 * slope(point).sign()).clamp(0, 1)
        assert line[f"fgsm10_{split}"] == pytest.approx(right(model, point, y), abs=1.5 / count)
        assert row.values["at_target"][f"accuracy_{split}"] == pytest.approx(right(model, x, y))


def test_the_exact_softmax_attacks_in_float64(computed):
    """Where nothing is rounded, the plain form is exact: float64 on the same weights."""
    _, _, row, _, model = computed
    part = data.load("digits", "test", samples=60)
    x, y = part.images.double(), part.labels
    model = model.double()
    try:
        known = accuracy_under_fgsm(model, x, y, 0.1)
    finally:
        model.float()
    assert row.values["at_target"]["attacks"][0]["fgsm_exact_test"] == pytest.approx(known, abs=1.5 / 60)


def test_the_strong_attack_is_the_worst_case_of_its_restarts(computed):
    _, _, row, _, model = computed
    part = data.load("digits", "test", samples=20)
    runs = [partial(pgd, eps=0.1, steps=3, loss="margin", seed=s, random_start=s > 0) for s in (0, 1)]
    known = worst_case(model, runs, part.images, part.labels).double().mean().item()
    (found,) = row.values["at_target"]["masking"]
    assert (found["samples"], found["eps"]) == (20, 0.1)
    assert found["pgd"] == pytest.approx(known)
    assert found["pgd_more_steps"] <= found["pgd"] <= found["clean"]
    assert isinstance(found["flags"], list)


def test_saturated_samples_are_counted(computed):
    """Scaled by 1e4 the last layer leaves no loss in float32 and no gradient: by a closed form, its lead over 104."""
    _, _, row, _, model = computed
    assert row.values["at_target"]["tiny_losses_test"] == row.values["at_target"]["zero_gradients_test"] == 0.0

    part = data.load("digits", "test", samples=60)
    last = model[-1]
    kept = [p.detach().clone() for p in last.parameters()]
    try:
        with torch.no_grad():
            for p in last.parameters():
                p.mul_(1e4)
            z = model(part.images)
            others = z.scatter(1, part.labels[:, None], -torch.inf)
            lead = z.gather(1, part.labels[:, None])[:, 0] - others.logsumexp(1)
        found = without_attack(model, {"test": (part.images, part.labels)})
    finally:
        with torch.no_grad():
            for p, old in zip(last.parameters(), kept, strict=True):
                p.copy_(old)
    assert found["tiny_losses_test"] == pytest.approx((lead > 17).double().mean().item())
    assert found["zero_gradients_test"] == pytest.approx((lead > 104).double().mean().item())
    assert found["zero_gradients_test"] > 0.5


def test_progress_names_the_phases_and_never_goes_back(computed):
    store, cell, row, phases, _ = computed
    assert store.get(STUDY.name, STUDY.key(cell)) == row
    measured = [(phase, fraction) for phase, fraction in phases if phase != "training"]
    assert [phase for phase, _ in measured] == ["clean", "FGSM 0.1 train", "FGSM 0.1 test", "PGD 0.1"]
    fractions = [fraction for _, fraction in measured]
    assert fractions == sorted(fractions) and max(fractions) < 1


def test_an_interrupted_cell_gives_the_same_row(computed, tmp_path):
    row = compute_with_stops(STUDY, computed.cell, Store(tmp_path), ["FGSM 0.1 test", "PGD 0.1"])
    assert row.values == computed.row.values


def test_a_diverged_cell_is_a_row_without_measurements(tmp_path):
    (cell,) = STUDY.cells("tiny", batch_sizes=[50], learning_rate=1e4)
    row = STUDY.compute(cell, Store(tmp_path), "cpu")
    assert row.values["status"] == "diverged" and row.values["at_target"] is None
