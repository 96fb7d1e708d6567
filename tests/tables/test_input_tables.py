"""Tables and verdicts on rows of input curvature whose answers are known."""

import pytest

from hbanalysis import paper
from hbanalysis.claims import input_verdicts
from hbanalysis.claims.outcomes import NO_VERDICT
from hbanalysis.claims.planned import Asked
from hbanalysis.tables import input_tables
from hbanalysis.tables.frames import families
from tests.input_rows import input_row, input_rows, near_boundary
from tests.synthetic_rows import make_rows

SIZES, SEEDS = [16, 64, 256], [0, 1, 2]


@pytest.fixture(scope="module")
def rows():
    return [*input_rows(SIZES, SEEDS, near_boundary), input_row(1024, 0, status="diverged")]


@pytest.fixture(scope="module")
def weights():
    """Curvature in the weights that rises with the batch size in every seed."""
    return input_tables.weight_curvatures(make_rows(SIZES, SEEDS, lambda b, s: {"lambda1": b + 0.1 * s}))


def test_a_line_a_measured_row(rows, weights):
    frame = input_tables.measured_inputs(rows, weights)
    assert len(frame) == 9  # the diverged training has nothing to show
    line = frame[(frame["batch_size"] == 64) & (frame["seed"] == 1)].iloc[0]
    assert line["lambda1_test"] == 2.01 and line["lambda1_median_test"] == pytest.approx(0.201)
    assert line["lambda1_train"] == pytest.approx(2.01 / 4)
    assert line["lambda1_weights"] == pytest.approx(64.1)
    assert (line["epsilon"], line["share_above_test"]) == (0.1, 0.5)


def test_means_over_seeds_stand_above_the_papers_columns(rows):
    table = input_tables.beside_the_paper(rows)
    ours = table[table["source"] == "here"]
    assert ours["seeds"].tolist() == [3, 3, 3]
    assert ours["lambda1_test"].tolist() == pytest.approx([0.51, 2.01, 1.01])
    theirs = table[(table["source"] == "paper") & (table["batch_size"] == 512)].iloc[0]
    assert (theirs["lambda1_train"], theirs["lambda1_test"]) == (1.97, 100.0)
    assert (theirs["gradient_norm_test"], theirs["FGSM (%)"]) == (10.42, 12.94)
    assert set(table[table["source"] == "paper"]["network"]) == {"C1"}


def test_the_papers_lines_are_of_the_networks_shown():
    found = input_tables.beside_the_paper([input_row(256, 0, network="C2", dataset="cifar10", scale="paper")])
    assert set(found[found["source"] == "paper"]["network"]) == {"C2"}


def test_no_rows_leave_the_papers_lines():
    assert set(input_tables.beside_the_paper([])["source"]) == {"paper"}
    assert input_verdicts.table([], {}).empty


def test_kinds_of_samples_are_medians_and_missing_ones_left_out():
    table = input_tables.by_kind([input_row(16, 0), input_row(1024, 0)])
    wrong = table[table["samples"] == "test, wrong"]
    assert wrong["batch_size"].tolist() == [16] and wrong["n at least"].tolist() == [3]
    assert wrong["lambda1_x"].tolist() == [1.0] and wrong["boundary distance"].tolist() == [-0.1]
    assert len(table) == 7


def test_rank_correlations_within_seeds(rows, weights):
    (found,) = input_tables.correlations(rows, weights).values()
    assert found["distance_test"] == (1.0, 1.0, 1.0)
    assert found["lambda1_weights"] == (-1.0, -1.0, -1.0)
    assert found["lambda1_test"] == pytest.approx((-0.5, -0.5, -0.5))
    table = input_tables.correlation_table(rows, weights).set_index("what")
    assert table.loc["boundary distance, median", "rho with PGD"] == "1.00 (1.00 to 1.00)"


def test_intervals_of_correlations_end_at_one(weights):
    def law(batch_size, seed):
        return near_boundary(batch_size, seed) | {"lambda1": batch_size if seed else -batch_size}

    table = input_tables.correlation_table(input_rows(SIZES, SEEDS, law), weights).set_index("what")
    assert table.loc["lambda1_x, mean", "rho with FGSM"] == "-0.33 (-1.00 to 1.00)"


def test_the_papers_own_correlations(weights):
    table = input_tables.correlation_table([], weights)
    table = table[table["trained"].str.startswith("C1")].set_index("what")
    # Ranks of the FGSM accuracies: 6 7 8 5 4 3 2 1; of lambda1 in the weights: 1 3 2 4 5 6 7 8. 1 - 6 * 162 / (8 * 63).
    assert float(table.loc["lambda1_theta, training loss", "rho with FGSM"]) == pytest.approx(-0.929, abs=0.005)


def test_two_batch_sizes_have_no_correlation(weights):
    (found,) = input_tables.correlations(input_rows([16, 64], SEEDS, near_boundary), weights).values()
    assert found == {}


def test_distances_by_batch_size(rows):
    table = input_tables.distances(rows)
    assert table["samples"].tolist() == [300, 300, 300]
    assert table["linearised, median"].tolist() == pytest.approx([0.1946, 0.1754, 0.0986])
    assert table["rho over samples"].tolist() == pytest.approx([0.9] * 3)


def _verdicts(rows, weights=None):
    table = input_verdicts.table(rows, weights or {})
    return {claim: tuple(group.iloc[0][["verdict", "same direction here"]]) for claim, group in table.groupby("claim")}


def test_small_scales_decide_nothing(rows, weights):
    found = _verdicts(rows, weights)
    assert found["K9"] == (NO_VERDICT, "yes")
    assert found["K5"] == (NO_VERDICT, "yes")
    assert found["K15"] == (NO_VERDICT, "yes")


def test_the_theorem_needs_a_thousand_samples_at_the_papers_scale():
    def theorem(samples, exceptions=0, scale="paper"):
        return _verdicts([input_row(16, 0, scale=scale, samples=samples, exceptions=exceptions)])["K9"]

    assert theorem(999) == ("undecided", "yes")
    assert theorem(1000) == ("reproduced", "yes")
    assert theorem(1000, exceptions=1) == ("not reproduced", "no")
    assert theorem(20, exceptions=1, scale="digits") == ("not reproduced", "no")


def test_the_theorem_as_a_table():
    table = input_verdicts.theorem_table([input_row(16, 0), input_row(16, 1)]).iloc[0]
    assert (table["networks"], table["samples"], table["exceptions"]) == (2, 600, 0)
    assert (table["ranks"], table["allowed"]) == ("2 to 3", "3")
    assert table["-lambda_min / lambda_max below"] == "1e-14"


def test_products_are_shown_and_decide_no_rank():
    row = input_row(128, 0, network="C1", dataset="cifar10", scale="paper")
    row.values["theorem"] = {"method": "products", "samples": 200, "inputs": 3072, "vectors": 3, "product_error": 2e-12}
    assert input_verdicts.theorem_table([row]).iloc[0]["error of the formula below"] == "1e-11"
    assert _verdicts([row])["K9"] == ("undecided", "cannot tell")


def _at_papers_scale(law, sizes=(16, 32, 512, 2048), seeds=range(5)):
    where = {"scale": "paper", "dataset": "cifar10", "network": "C1"}
    rows = input_rows(list(sizes), list(seeds), law, **where)
    theta = make_rows(list(sizes), list(seeds), lambda b, s: {"lambda1": float(b)}, **where)
    return rows, input_tables.weight_curvatures(theta)


def _law(batch_size, seed):
    # Accuracy falls with B; lambda1_x does not rise from 32 to 512 and follows no order.
    return {
        "lambda1": {16: 1.0, 32: 3.0, 512: 2.0, 2048: 0.5}[batch_size] + 0.01 * seed,
        "fgsm": 0.9 - 0.0003 * batch_size + 0.001 * seed,
        "distance": 0.3 - 0.0001 * batch_size + 0.01 * (seed % 2),
    }


def test_both_claims_are_reproduced_where_the_criteria_hold():
    found = _verdicts(*_at_papers_scale(_law))
    assert found["K5"] == ("reproduced", "yes")
    assert found["K15"] == ("reproduced", "yes")


def test_a_curvature_that_robustness_follows_refutes_k5():
    rows, weights = _at_papers_scale(lambda b, s: _law(b, s) | {"lambda1": b + 0.1 * s})
    assert _verdicts(rows, weights)["K5"] == ("not reproduced", "no")


def test_a_boundary_that_moves_away_refutes_k15():
    rows, weights = _at_papers_scale(lambda b, s: _law(b, s) | {"distance": 0.1 + 3e-5 * b})
    assert _verdicts(rows, weights)["K15"] == ("not reproduced", "no")


def test_batch_sizes_that_stop_short_of_the_preset_decide_nothing():
    found = _verdicts(*_at_papers_scale(_law, sizes=(16, 32, 512)))
    assert found["K5"] == found["K15"] == ("undecided", "yes")


def test_too_few_seeds_decide_nothing():
    rows, weights = _at_papers_scale(_law, seeds=[0, 1])
    found = _verdicts(rows, weights)
    assert found["K5"][0] == found["K15"][0] == "undecided"
    assert paper.criteria().seeds_needed("K5", "M1") == 5


def test_unknown_weights_leave_k5_open(rows):
    wanted = Asked(next(iter(families(rows))), 5)
    found = input_verdicts.not_followed(wanted, input_tables.measured_rows(rows), {})
    assert (found.met, found.direction) == (None, "cannot tell")


def test_one_exception_in_any_study_refutes_the_theorem():
    rows = [input_row(16, 0, scale="paper", samples=1000)]
    clean = input_verdicts.table(rows, {}).set_index("claim").loc["K9"]
    assert (
        clean["verdict"] == "reproduced"
        and clean["found"] == "0 exceptions in 1000 Hessians, of 1000 images in 1 network"
    )
    single = input_row(64, 0, scale="digits", samples=30, exceptions=1)
    for table in (input_verdicts.table(rows, {}, [single]), input_verdicts.table([*rows, single], {})):
        assert set(table[table["claim"] == "K9"]["verdict"]) == {"not reproduced"}
    two = input_verdicts.table([*rows, input_row(64, 0, scale="paper", samples=1000)], {}).set_index("claim")
    assert two.loc["K9", "found"].endswith("of the same 1000 images in each of 2 networks")


def test_seeds_of_other_batch_sizes_are_not_averaged():
    rows = [*input_rows([16, 64, 256], [0, 1, 2], near_boundary), input_row(2048, 0, distance=9.0)]
    (found,) = input_tables.correlations(rows, {}).values()
    assert found == next(iter(input_tables.correlations(rows[:-1], {}).values()))
    one = input_verdicts.nearer_boundary(Asked(next(iter(families(rows))), 3), input_tables.measured_rows(rows))
    assert "B = 256 minus B = 16" in one.said and one.seeds == 3
