"""Verdicts on rows whose answer is known, each limit of the criteria crossed once."""

import dataclasses
import math
from typing import Any

import pytest

from hbanalysis import paper, studies
from hbanalysis.claims import verdicts
from hbanalysis.errors import InputError
from tests.synthetic_rows import make_row, make_rows, rising

SIZES = (64, 256, 2048)
FIVE = range(5)
PAPER = {"scale": "paper", "dataset": "mnist"}


def _power_law(exponent: float, spread: float = 0.0):
    def values(batch_size: int, seed: int) -> dict[str, Any]:
        tilt = exponent + spread * (seed - 2)
        return {"lambda1": 0.5 * (batch_size / 64) ** tilt}

    return values


def test_k1_reproduced_on_a_clean_power_law() -> None:
    found = verdicts.verdict("K1", make_rows(SIZES, FIVE, _power_law(1.3, 0.05), **PAPER))
    assert (found.outcome, found.decides, found.n_seeds, found.same_direction) == ("reproduced", True, 5, "yes")
    assert found.effect == pytest.approx(1.3)
    half = 2.7764451 * math.sqrt(0.05**2 * 10 / 4) / math.sqrt(5)
    assert found.interval.low == pytest.approx(1.3 - half, rel=1e-6)
    assert [part.met for part in found.parts] == [True] * 5
    assert found.criterion == paper.criteria().claims["K1"].text


def test_k1_partly_when_the_ratio_is_too_small() -> None:
    # 16 ** .3 = 2.3 < 3, though every seed rises.
    found = verdicts.verdict("K1", make_rows(SIZES, FIVE, _power_law(0.3), **PAPER))
    assert found.outcome == "partly"
    assert [part.met for part in found.parts] == [True, True, True, False, True]


def test_k1_partly_when_one_of_the_twenty_does_not_grow() -> None:
    def values(batch_size: int, seed: int) -> dict[str, Any]:
        top = [batch_size * 0.8**i for i in range(19)] + [1e-3]
        return {"lambda1": float(batch_size), "spectrum": top}

    found = verdicts.verdict("K1", make_rows(SIZES, FIVE, values, **PAPER))
    assert found.outcome == "partly"
    assert found.parts[-1].met is False


def test_k1_undecided_when_a_spectrum_is_missing() -> None:
    rows = make_rows(SIZES, FIVE, _power_law(1.3), **PAPER)
    rows[-1].values["at_target"]["spectrum_train"] = []
    found = verdicts.verdict("K1", rows)
    assert found.outcome == "undecided"
    assert found.parts[-1].met is None


def test_k1_not_reproduced_when_curvature_falls() -> None:
    found = verdicts.verdict("K1", make_rows(SIZES, FIVE, _power_law(-0.5, 0.01), **PAPER))
    assert (found.outcome, found.same_direction) == ("not reproduced", "no")


def test_k1_undecided_when_the_seeds_disagree_widely() -> None:
    found = verdicts.verdict("K1", make_rows(SIZES, FIVE, _power_law(0.3, 0.9), **PAPER))
    assert found.interval.contains(0.0)
    assert (found.outcome, found.same_direction) == ("undecided", "mixed")


def test_k1_not_reproduced_when_the_null_is_sharp() -> None:
    found = verdicts.verdict("K1", make_rows(SIZES, FIVE, _power_law(0.0, 0.01), **PAPER))
    assert found.interval.contains(0.0)
    assert found.outcome == "not reproduced"


def test_fewer_seeds_than_demanded_do_not_decide() -> None:
    found = verdicts.verdict("K1", make_rows(SIZES, range(3), _power_law(1.3), **PAPER))
    assert (found.outcome, found.decides, found.same_direction) == ("undecided", False, "yes")
    assert "3 of the 5 seeds" in found.remark
    assert found.parts[1].value == "0.0046"  # 1 / 6 ** 3, exact
    one = verdicts.verdict("K1", make_rows(SIZES, range(1), _power_law(1.3), **PAPER))
    assert one.interval is None and one.outcome == "undecided"


@pytest.mark.parametrize("scale", ["digits", "small", "custom"])
def test_smaller_scales_only_tell_the_direction(scale: str) -> None:
    found = verdicts.verdict("K1", make_rows((16, 64, 256), FIVE, rising, scale=scale))
    assert (found.outcome, found.decides, found.same_direction) == ("not yet run", False, "yes")


def _accuracy(drop: float, spread: float, network: str = "C1"):
    def values(batch_size: int, seed: int) -> dict[str, Any]:
        lost = drop * (batch_size == 2048) + spread * (seed - 2) * (batch_size == 2048)
        return {"accuracy_test": (78.0 - lost) / 100, "network": network}

    return values


C1 = {"scale": "paper", "dataset": "cifar10"}


@pytest.mark.parametrize(
    ("drop", "spread", "outcome"),
    [
        (1.2, 0.2, "reproduced"),
        (-1.0, 0.1, "not reproduced"),
        (0.0, 0.1, "not reproduced"),  # the paper's own -1.23 lies outside so narrow an interval
        (0.3, 1.0, "undecided"),
    ],
)
def test_k2_is_the_fixed_contrast(drop: float, spread: float, outcome: str) -> None:
    found = verdicts.verdict("K2", make_rows((256, 512, 2048), FIVE, _accuracy(drop, spread), **C1))
    assert found.outcome == outcome
    assert found.effect == pytest.approx(-drop)
    assert found.measure == "test accuracy at B = 2048 minus B = 256, points"


def test_k2_needs_five_seeds_of_two_cells_only() -> None:
    rows = make_rows((256, 2048), FIVE, _accuracy(1.2, 0.2), **C1)
    rows += make_rows((512,), range(3), _accuracy(1.2, 0.2), **C1)
    assert verdicts.verdict("K2", rows).outcome == "reproduced"
    three = [row for row in rows if row.config["training"]["seed"] < 3]
    assert verdicts.verdict("K2", three).outcome == "undecided"


def test_k2_of_cr_starts_at_128_and_without_a_larger_batch_there_is_no_contrast() -> None:
    rows = make_rows((128, 2048), range(3), _accuracy(2.0, 0.1, "CR"), scale="paper", dataset="cifar100")
    assert "minus B = 128" in verdicts.verdict("K2", rows).measure
    none = verdicts.verdict("K2", make_rows((16, 64, 256), range(3), rising))
    assert (none.same_direction, none.outcome) == ("cannot tell", "not yet run")


def _robust(step: float):
    return lambda size, seed: {"fgsm": [(e, 0.6 - step * math.log2(size / 64) / 2.5 - e) for e in (0.1, 0.2)]}


@pytest.mark.parametrize(
    ("step", "outcome", "direction"),
    [(0.1, "reproduced", "yes"), (0.01, "partly", "yes"), (-0.05, "not reproduced", "no")],
)
def test_k4(step: float, outcome: str, direction: str) -> None:
    found = verdicts.verdict("K4", make_rows(SIZES, FIVE, _robust(step), **PAPER))
    assert (found.outcome, found.same_direction) == (outcome, direction)
    assert found.effect == pytest.approx(-200 * step)
    assert "PGD-50: see K4 survives" in found.remark


def test_k4_must_hold_for_every_strength() -> None:
    def values(size: int, seed: int) -> dict[str, Any]:
        return {"fgsm": [(0.1, 0.6 - 0.1 * math.log2(size / 64)), (0.2, 0.1 + 0.01 * math.log2(size / 64))]}

    found = verdicts.verdict("K4", make_rows(SIZES, FIVE, values, **PAPER))
    assert found.outcome != "reproduced" and found.same_direction == "no"


def test_trainings_above_the_target_enter_no_verdict() -> None:
    rows = make_rows(SIZES, FIVE, _power_law(1.3), **PAPER)
    rows += [make_row(4096, s, status="cap", lambda1=1e-6, **PAPER) for s in FIVE]
    rows += [make_row(8192, 0, status="diverged", **PAPER)]
    found = verdicts.verdict("K1", rows)
    assert found.outcome == "reproduced" and "6 trainings did not reach" in found.remark


def test_incomplete_seeds_are_left_out_and_said() -> None:
    rows = make_rows(SIZES, range(6), _power_law(1.3), **PAPER)[:-1]
    found = verdicts.verdict("K1", rows)
    assert (found.n_seeds, found.outcome) == (5, "reproduced")
    assert "2 rows of incomplete seeds" in found.remark


def test_a_batch_size_with_more_seeds_does_not_push_the_others_out() -> None:
    rows = make_rows((64,), range(3), _power_law(1.3), **PAPER) + make_rows(
        (256, 1024), range(1), _power_law(1.3), **PAPER
    )
    assert verdicts.verdict("K1", rows).n_seeds == 1


def test_nothing_is_decided_before_both_ends_of_the_preset_are_there() -> None:
    rows = make_rows((64, 128, 256), FIVE, _power_law(1.3), **PAPER) + make_rows((1024,), (0,), rising, **PAPER)
    found = verdicts.verdict("K1", rows)
    assert (found.outcome, found.decides, found.same_direction) == ("undecided", False, "yes")
    assert "B = 2048 must be in it, with 5 seeds" in found.remark and "B = 1024 left out" in found.remark
    capped = [make_row(2048, s, status="cap", **PAPER) for s in range(1, 5)]
    rows += [make_row(2048, 0, lambda1=9.0, **PAPER), *capped]
    assert verdicts.verdict("K1", rows).outcome == "undecided"
    contrast = verdicts.verdict("K2", make_rows((256, 1024), FIVE, _accuracy(9.0, 0.1), **C1))
    assert contrast.outcome == "undecided" and "B = 2048 must be in it" in contrast.remark


def test_a_condition_that_is_clearly_missed_is_not_hidden_by_one_that_is_open() -> None:
    law = _power_law(-1.0, 0.01)
    few = make_rows(SIZES, FIVE, lambda b, s: law(b, s) | {"spectrum": [law(b, s)["lambda1"]]}, **PAPER)
    found = verdicts.verdict("K1", few)
    assert any(part.met is None for part in found.parts) and found.outcome == "not reproduced"


def test_a_contrast_of_nothing_is_told_from_one_that_is_too_wide_without_a_number_of_the_paper() -> None:
    def law(spread: float):
        return lambda b, s: {"accuracy_test": 0.99 + spread * (s - 2) * (b == 2048)}

    assert verdicts.verdict("K2", make_rows((256, 2048), FIVE, law(1e-6), **PAPER)).outcome == "not reproduced"
    assert verdicts.verdict("K2", make_rows((256, 2048), FIVE, law(0.01), **PAPER)).outcome == "undecided"


def test_claims_without_a_test_or_rows_are_not_yet_run() -> None:
    for claim in paper.claims():
        assert verdicts.verdict(claim.id, []).outcome == "not yet run"


def test_families_are_judged_apart_and_the_table_names_them() -> None:
    rows = make_rows(SIZES, FIVE, _power_law(1.3), **PAPER) + make_rows((16, 64, 256), range(3), rising)
    with pytest.raises(InputError, match="2: M1 on MNIST"):
        verdicts.verdict("K1", rows)
    table = verdicts.table(rows)
    assert table["claim"].tolist() == ["K1", "K1", "K2", "K2", "K4", "K4"]
    assert table["scale"].tolist() == ["paper", "digits"] * 3
    parts = verdicts.parts_table(verdicts.verdicts("K1", rows))
    assert len(parts) == 10 and set(parts["met"]) <= {"yes", "no", "cannot tell"}


def test_unknown_claim_is_refused() -> None:
    with pytest.raises(InputError, match="K99"):
        verdicts.verdict("K99", [])


@pytest.mark.parametrize(
    ("changes", "part"),
    [({"dataset": "svhn_extra", "network": "C1"}, "SVHN"), ({"activation": "softplus(20)"}, "smooth")],
)
def test_k10_is_k1_and_k4_on_its_own_families_alone(changes, part) -> None:
    sizes = {"SVHN": (256, 1024, 16384), "smooth": (128, 512, 2048)}[part]
    theirs = make_rows(sizes, range(3), _power_law(1.3, 0.05), **{**PAPER, "network": "C1", **changes})
    others = make_rows(SIZES, FIVE, _power_law(-1.0), **PAPER)
    if part == "smooth":
        theirs = [dataclasses.replace(row, study="smooth_activations") for row in theirs]
    (found,) = verdicts.verdicts(f"K10 {part}, K1", [*theirs, *others])
    assert (found.outcome, found.decides, found.n_seeds) == ("reproduced", True, 3)
    assert found.criterion == paper.criteria().claims["K10"].text
    (robust,) = verdicts.verdicts(f"K10 {part}, K4", [*theirs, *others])
    assert robust.family == found.family
    (first,) = verdicts.verdicts("K1", [*theirs, *others])
    assert first.family.network == "M1" and first.outcome == "not reproduced"
    other = {"SVHN": "smooth", "smooth": "SVHN"}[part]
    assert verdicts.verdict(f"K10 {other}, K1", theirs).outcome == "not yet run"


@pytest.mark.parametrize("network", ["C1", "C2", "M1", "CR"])
def test_the_preset_holds_as_many_seeds_as_the_criteria_ask_for(network: str) -> None:
    criteria, study = paper.criteria(), studies.get("spectrum_vs_batch")
    seeds: dict[int, set[int]] = {}
    dataset = {"M1": "mnist", "CR": "cifar100"}.get(network, "cifar10")
    for cell in study.cells("paper", network=network, dataset=dataset):
        seeds.setdefault(cell.training.batch_size, set()).add(cell.training.seed)
    fixed = criteria.claims["K2"].thresholds["contrast_from"]
    asked = {"K1": (min(seeds), max(seeds)), "K2": (fixed.get(network, fixed["default"]), max(seeds))}
    for claim, sizes in asked.items():
        assert all(len(seeds[size]) >= criteria.seeds_needed(claim, network) for size in sizes), claim
