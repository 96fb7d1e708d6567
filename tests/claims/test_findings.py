"""Findings say what the rows say: numbers from the rows by another way, and words that turn when the rows turn."""

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from hbanalysis import store, studies
from hbanalysis.claims import attack_findings, mode_findings, weight_findings
from hbanalysis.claims.findings import BENCHMARKS, committed, findings, krylov_floor
from hbanalysis.lineup import ATTACKS
from hbanalysis.plots.findings import finding
from hbanalysis.publishing import notebooks


def published(study: str):
    return store.published().rows(study)


def of_seed(rows, seed):
    return [row for row in rows if row.config["training"]["seed"] == seed]


def mean_and_half(values):
    half = stats.t.interval(0.95, len(values) - 1, scale=stats.sem(values))[1]
    return np.mean(values), half


def test_the_front_page_has_every_finding_with_a_page_and_commands_that_exist():
    found = findings(store.published().rows(), committed())
    assert len({one.name for one in found}) == len(found) == 12
    for one in found:
        assert one.page in notebooks.names()
        assert len(one.lines) >= 2 and all(math.isfinite(value) for line in one.lines for value in line.values)
        assert one.commands
        for command in one.commands:
            words = command.split()
            if words[0] == "hbanalysis":
                assert words[1] == "run" and studies.get(words[2]).cells(words[4])
            else:
                assert words[:3] == ["python", "-m", "benchmarks.large"]


def test_without_rows_there_is_nothing_to_say():
    assert findings([], []) == []
    assert krylov_floor([]) is None


def test_doubling_the_batch_is_least_squares_within_each_seed():
    rows = published("learning_rate_factorial")
    found = weight_findings.ratio_and_curvature(rows)
    rate, ratio = found.lines
    for number, seed in enumerate((0, 1, 2)):
        cells = [row for row in of_seed(rows, seed) if row.values.get("at_target")]
        trained = [row.config["training"] for row in cells]
        y = [math.log2(row.values["at_target"]["lambda1_train"]) for row in cells]
        X = [[1, math.log2(t["learning_rate"] / t["batch_size"]), math.log2(t["batch_size"])] for t in trained]
        _, of_ratio, alone = np.linalg.lstsq(np.array(X), np.array(y), rcond=None)[0]
        assert ratio.values[number] == pytest.approx(2**alone)
        assert rate.values[number] == pytest.approx(2 ** (alone - of_ratio))
    mean, half = mean_and_half(np.log(ratio.values))
    text = f"{math.exp(mean):.2f} ({math.exp(mean - half):.2f} to {math.exp(mean + half):.2f})"
    assert text in found.said and text in found.described


def test_robust_models_are_compared_with_the_control_of_their_seed_and_the_title_turns():
    rows = [row for row in published("robust_spectrum") if row.scale == "digits"]
    found = weight_findings.robust_curvature(rows)
    assert "higher" in found.title
    some = [row for row in rows if row.config["model"] != "FHSM"]
    assert weight_findings.robust_curvature(some) is None  # the middle is that of all five
    for line, attack in zip(found.lines, ATTACKS, strict=True):
        largest = {
            name: [
                row.values["clean"]["spectrum"][0] for row in sorted(rows, key=seed_of) if row.config["model"] == name
            ]
            for name in (attack, "CLEAN+")
        }
        assert line.values == pytest.approx(np.divide(largest[attack], largest["CLEAN+"]))
    turned = weight_findings.robust_curvature([scaled(row, 1e-3) for row in rows])
    assert "lower" in turned.title
    mixed = weight_findings.robust_curvature(
        [scaled(row, 1e-3 if row.config["model"] == "FGSM" else 1) for row in rows]
    )
    assert "no one direction" in mixed.title


def seed_of(row):
    return row.config["training"]["seed"]


def scaled(row, factor):
    if row.config["model"] in ("ORI", "CLEAN+"):
        return row
    clean = row.values["clean"]
    return replace(row, values={**row.values, "clean": {**clean, "spectrum": [factor * v for v in clean["spectrum"]]}})


def test_one_seed_has_no_interval_and_says_so():
    for study, make in (
        ("learning_rate_factorial", weight_findings.ratio_and_robustness),
        ("training_dynamics", weight_findings.what_is_equal),
        ("training_dynamics", weight_findings.along_training),
        ("absa", weight_findings.growing_batches),
        ("batch_statistics", mode_findings.eval_and_train),
        ("robust_spectrum", weight_findings.robust_curvature),
        ("robustness_vs_batch", attack_findings.strong_attack),
        ("input_curvature", attack_findings.input_predictors),
        ("attack_readings", attack_findings.rounding),
    ):
        found = make([row for row in of_seed(published(study), 0) if row.scale == "digits"])
        assert all(found.text(line).endswith("(one seed)") for line in found.lines)
        _, data = finding(found)
        assert data["low"].isna().all()


def test_the_reading_is_measured_against_the_papers_line():
    found = attack_findings.readings(published("attack_readings"))
    theirs = {"FGSM": 60.37, "FGSM-10": 77.27, "L2GRAD": 14.32, "FHSM": 82.04, "L2HESS": 33.21}
    rows = sorted((row for row in published("attack_readings") if row.scale == "paper"), key=seed_of)
    for line in found.lines:
        gaps = [[100 * row.values["readings"][line.label][a] - v for a, v in theirs.items()] for row in rows]
        assert line.values == pytest.approx([math.sqrt(np.mean(np.square(one))) for one in gaps])
    assert "may leave the range" in found.title


def test_rounding_is_what_the_exact_softmax_takes_away():
    rows = published("attack_readings")
    found = attack_findings.rounding(rows)
    assert found.title.startswith("Part of what looks")
    same = [replace(r, values={**r.values, "readings": r.values["readings_exact_softmax"]}) for r in rows]
    assert attack_findings.rounding(same).title.startswith("Rounding makes no")
    assert {value for line in attack_findings.rounding(same).lines for value in line.values} == {0.0}


def test_a_correlation_has_no_interval_beyond_one():
    found = attack_findings.input_predictors(published("input_curvature"))
    assert found.title.startswith("Where it was measured, and against the paper")
    for line in found.lines:
        interval = found.interval(line)
        assert interval.low is None or -1 <= interval.low <= interval.high <= 1


def test_products_are_counted_over_the_floor():
    found = krylov_floor(committed())
    results = dict(zip(BENCHMARKS, committed(), strict=True))
    first = results["m1_5000"]
    (auto,) = [m["products"] for m in first["methods"] if m["name"] == "hbanalysis auto, check=False"]
    assert found.lines[0].values == pytest.approx((auto / first["krylov_floor"],))
    worse = [{**one, "krylov_floor": 1} for one in results.values()]
    assert "no fewer" in krylov_floor(worse).title


def test_a_figure_holds_every_value_and_its_interval():
    for one in findings(store.published().rows(), committed()):
        figure, data = finding(one)
        assert list(data[data["kind"] == one.unit]["value"]) == [v for line in one.lines for v in line.values]
        means = data[data["kind"] == "mean"]
        assert len(means) == len(one.lines)
        written = [text.get_text() for text in figure.axes[0].texts]
        assert all(one.text(line) in written and line.label in written for line in one.lines)
        low, high = figure.axes[0].get_xlim()
        assert low <= data["value"].min() and data["value"].max() <= high
