"""Learning rate by batch size: worlds in which the answer is known, and the study's own design."""

import math
from dataclasses import replace

import pytest

from hbanalysis import paper, plots, studies
from hbanalysis.claims import factorial, scoreboard
from hbanalysis.claims.outcomes import NO_VERDICT
from hbanalysis.store import Row
from hbanalysis.studies.learning_rate_factorial import PRESETS
from tests.synthetic_rows import make_row

RATES, SIZES = (0.0025, 0.01, 0.04), (64, 256, 1024)
STUDY = studies.get("learning_rate_factorial")


def _rows(law, seeds=range(5), scale="paper"):
    """Rows whose lambda1 follows a law of rate, batch size and seed, and whose FGSM accuracy falls with its log."""
    found = []
    for rate in RATES:
        for size in SIZES:
            for seed in seeds:
                value = law(rate, size, seed)
                accuracy = 0.5 - 0.05 * math.log(value)
                row = make_row(
                    size,
                    seed,
                    scale=scale,
                    dataset="mnist",
                    lambda1=value,
                    fgsm=((0.1, accuracy),),
                    learning_rate=rate,
                )
                found.append(Row(**{**vars(row), "study": STUDY.name}))
    return found


def _by_ratio(rate, size, seed):
    return size / rate * 1e-4 * (1 + 0.01 * seed)


def _by_batch(rate, size, seed):
    return 0.01 * size * (1 + 0.01 * seed)


@pytest.mark.parametrize(
    ("law", "fixed_rate", "fixed_ratio", "verdict"),
    [(_by_ratio, 1.0, 0.0, "lr / B"), (_by_batch, 1.0, 1.0, "batch size itself")],
)
def test_a_known_cause_is_found(law, fixed_rate, fixed_ratio, verdict):
    table = factorial.table(_rows(law)).set_index("claim")
    found = factorial.effects(_rows(law), factorial.OUTCOMES["K1"][1])
    assert found.fixed_rate == pytest.approx([fixed_rate] * 5) and found.cells == 45
    assert found.fixed_ratio == pytest.approx([fixed_ratio] * 5, abs=1e-12)
    assert table.loc["K1", "seeds"] == 5
    if fixed_ratio:  # where nothing is left, rounding alone decides whether an interval of width 0 holds 0
        assert table.loc["K1", "verdict"] == table.loc["K1", "here"] == verdict


def test_a_seed_that_lacks_a_cell_of_the_design_does_not_decide():
    rows = _rows(_by_batch)
    few = [r for r in rows if _cell(r) in {(0.0025, 64), (0.01, 256), (0.04, 256)} or r.config["training"]["seed"] < 4]
    table = factorial.table(few).set_index("claim")
    assert table.loc["K1", "verdict"] == "undecided" and table.loc["K1", "here"] == "batch size itself"
    diverged = [r for r in rows if _cell(r) != (0.04, 64)]
    diverged += [replace(r, values=r.values | {"status": "diverged"}) for r in rows if _cell(r) == (0.04, 64)]
    assert factorial.table(diverged).set_index("claim").loc["K1", "verdict"] == "batch size itself"


def _cell(row):
    training = row.config["training"]
    return training["learning_rate"], training["batch_size"]


def test_an_effect_that_wavers_around_zero_is_the_ratio_and_a_wide_one_is_undecided():
    def wavering(size):
        return lambda rate, batch, seed: _by_ratio(rate, batch, 0) * batch ** (size * (-1) ** seed * (1 + seed / 10))

    assert factorial.table(_rows(wavering(0.05))).set_index("claim").loc["K1", "verdict"] == "lr / B"
    assert factorial.table(_rows(wavering(0.5))).set_index("claim").loc["K1", "verdict"] == "undecided"


def test_smaller_scales_and_too_few_seeds_decide_nothing():
    small = factorial.table(_rows(_by_batch, scale="digits")).set_index("claim")
    assert small.loc["K1", "verdict"] == NO_VERDICT and small.loc["K1", "here"] == "batch size itself"
    few = factorial.table(_rows(_by_batch, seeds=range(3))).set_index("claim")
    assert few.loc["K1", "verdict"] == "undecided" and few.loc["K4", "here"] == "batch size itself"


def test_a_seed_that_cannot_tell_does_not_enter():
    whole, one_rate = (
        _rows(_by_batch, seeds=[0]),
        [row for row in _rows(_by_batch, seeds=[1]) if row.config["training"]["learning_rate"] == 0.01],
    )
    tied = [
        row
        for row in _rows(_by_batch, seeds=[2])
        if (row.config["training"]["learning_rate"], row.config["training"]["batch_size"])
        in [(0.0025, 64), (0.01, 256)]
    ]
    found = factorial.effects([*whole, *one_rate, *tied], factorial.OUTCOMES["K1"][1])
    assert len(found.fixed_rate) == 1 and found.cells == 9


def test_learning_rates_share_a_design_and_the_table_has_their_ratio():
    rows = _rows(_by_ratio)
    assert len(factorial.designs(rows)) == 1
    table = factorial.measured(rows)
    assert len(table) == 9 and (table["lr_over_batch"] * table["batch_size"] == table["lr"]).all()
    assert table["seeds"].tolist() == [5] * 9
    figure, data = plots.rate_over_batch(rows)
    assert len(figure.subfigs) == 1 and len(data[data["kind"] == "mean"]) == 18


def test_the_claims_carry_the_second_verdict():
    found = {one.claim.id: one for one in scoreboard.standings(_rows(_by_batch))}
    assert found["K1"].outcome == "batch size itself" and "fixed lr / B" in found["K1"].found[0]


def test_the_design_is_the_one_that_was_fixed_beforehand():
    designs = paper.criteria().factorial["designs"]
    assert len(STUDY.cells("paper")) == sum(
        (len(d["learning_rates"]) * len(d["batch_sizes"]) - len(d["without"])) * d["seeds"] for d in designs.values()
    )
    pairs = {(c.training.network, c.training.learning_rate, c.training.batch_size) for c in STUDY.cells("paper")}
    assert ("C1", 0.0025, 2048) not in pairs and ("M1", 0.0025, 1024) in pairs
    assert {STUDY.scale_of(cell) for cell in STUDY.cells("mnist")} == {"paper"}


def test_trainings_are_those_of_the_batch_size_study():
    ours = {cell.training.key for cell in STUDY.cells("digits") if cell.training.learning_rate == 0.01}
    theirs = {cell.training.key for cell in studies.get("spectrum_vs_batch").cells("digits")}
    assert ours == theirs and all(design.measure.eigenvalues == 1 for design in PRESETS["digits"])


def test_rates_and_sizes_can_be_replaced():
    cells = STUDY.cells("digits", learning_rates=[0.02], batch_sizes=[32], seeds=[7])
    assert [STUDY.label(cell) for cell in cells] == ["M1 digits lr 0.02 B=32 seed 7"]
    few = STUDY.cells("digits", batch_sizes=[4], train_samples=10)  # fewer than the batch of the preset
    assert {(cell.training.batch_size, cell.training.samples) for cell in few} == {(4, 10)}
