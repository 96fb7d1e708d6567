"""Findings on attacks and on curvature in the input: readings of the paper, rounding, strong attacks, predictors."""

from collections.abc import Sequence

from hbanalysis.claims.again import commands
from hbanalysis.claims.finding import Finding, Line, interval_of, side, where, written
from hbanalysis.lineup import ATTACKS
from hbanalysis.store import Row
from hbanalysis.tables import attack_tables, input_tables, robustness
from hbanalysis.tables.designs import Design
from hbanalysis.tables.frames import families, reached

_READING = "H2"  # the one that the paper's numbers support
_NOTICED = 2.0  # points: what the criteria elsewhere let pass as no difference
# What stands under the figure's names; columns of `attack_tables.measured_attacks`.
_UNDER = {"fgsm_test": "FGSM", "fgsm_exact_test": "FGSM, exact softmax", "fgsm10_test": "FGSM-10", "pgd": "PGD"}
_IN_THE_INPUT = {
    "lambda1_test": "largest eigenvalue, mean",
    "gradient_norm_test": "gradient norm, mean",
    "distance_test": "boundary distance, median",
}


def readings(rows: Sequence[Row]) -> Finding | None:
    """How far two readings of the paper's attacks are from its numbers for the original model."""
    groups = {one: group for one, group in families(rows).items() if one.scale == "paper"}
    lines, gaps = [], []
    for one, group in groups.items():
        theirs = robustness.paper_matrix(one)
        if theirs is None:
            continue
        found = [robustness.distances(row, theirs) for row in group]
        lines += [Line(where(one), reading, tuple(each[reading] for each in found)) for reading in found[0]]
        gaps.append(interval_of([each["H1"] - each[_READING] for each in found]))
    if not lines:
        return None
    verdict = robustness.reading_verdict(rows).partition(";")[0]
    title = {
        "H2": "The paper's own numbers speak for one-step attacks that may leave the range of pixels",
        "H1": "The paper's own numbers speak for attacks that are clamped to the range of pixels",
    }.get(verdict, "Which reading of the paper's attacks meets its own numbers is open")
    return Finding(
        "readings",
        title,
        "The appendix that defines the attacks was not available. Of two readings fixed beforehand, H1 clamps every "
        "attack and H2 leaves the one-step attacks free; H1's distance from the paper's five numbers minus H2's is "
        f"{written(gaps[0], '+.1f')} points.",
        "distance from the paper's five numbers, points",
        tuple(lines),
        "05_attacks",
        commands("attack_readings", rows, groups),
        form=".1f",
    )


def rounding(rows: Sequence[Row]) -> Finding | None:
    """How many points of accuracy under attack are made by the softmax of single precision."""
    lines, groups = [], []
    for one, group in list(families(rows).items())[:1]:
        for attack in ATTACKS:
            forms = ("readings", "readings_exact_softmax")
            plain, exact = ([100 * row.values[form][_READING][attack] for row in group] for form in forms)
            made = tuple(a - b for a, b in zip(plain, exact, strict=True))
            lines.append(Line(where(one), attack, made))
        groups.append(one)
    if not lines:
        return None
    largest = max(lines, key=lambda line: interval_of(line.values).mean)
    seen = interval_of(largest.values).above(0.0) and interval_of(largest.values).mean >= _NOTICED
    return Finding(
        "rounding",
        "Part of what looks like robustness is rounding" if seen else "Rounding makes no robustness that can be told",
        "Where a model is sure of a sample, the softmax in single precision loses the direction that an attack would "
        f"follow. Of the accuracy under {largest.label}, {written(interval_of(largest.values), '.1f')} points are gone "
        "once the same loss is computed without that loss of digits.",
        "accuracy that only rounding protects, points",
        tuple(lines),
        "05_attacks",
        commands("attack_readings", rows, groups),
    )


def strong_attack(rows: Sequence[Row]) -> Finding | None:
    """Accuracy at the largest batch minus that at the smallest, under one step, ten steps and a strong attack."""
    lines, groups, said = [], [], []
    restarts: set[int] = set()
    for one, group in families(reached(rows)).items():
        design = Design.of(group, 1)
        if len(design.batch_sizes) < 2 or not design.seeds:
            continue
        table = attack_tables.measured_attacks(group)
        epsilon = table["epsilon"].min()
        cells = table[table["epsilon"] == epsilon].set_index(["batch_size", "seed"])
        small, large = design.batch_sizes[0], design.batch_sizes[-1]
        place = f"{where(one)}, B = {large} minus {small}"
        for column, attack in _UNDER.items():
            fall = (100 * (cells[column][large, seed] - cells[column][small, seed]) for seed in design.seeds)
            lines.append(Line(place, attack, tuple(map(float, fall))))
        said.append(f"{written(interval_of(lines[-1].values), '+.1f')} points for {where(one)}, size {epsilon:g}")
        groups.append(one)
        restarts |= {row.config["measure"]["pgd_restarts"] for row in group}
    if not lines:
        return None
    strong = [line for line in lines if line.label == _UNDER["pgd"]]
    title = {
        -1: "Larger batches are less robust under a strong attack as well",
        1: "Under a strong attack larger batches are more robust",
        0: "Under a strong attack the batch moves robustness in no one direction",
    }[side(strong, 0.0)]
    return Finding(
        "strong-attack",
        title,
        "FGSM can fail for reasons that have nothing to do with robustness. Under projected gradient descent on the "
        f"margin of the logits, with {min(restarts)} restarts at least, accuracy at the largest batch minus that at "
        f"the smallest is {'; '.join(said)}.",
        "accuracy, largest minus smallest batch, points",
        tuple(lines),
        "05_attacks",
        commands("robustness_vs_batch", rows, groups),
    )


def input_predictors(rows: Sequence[Row]) -> Finding | None:
    """Rank correlations over batch sizes between what the input's derivatives say and accuracy under FGSM (K5)."""
    lines, groups, sizes = [], [], 0
    found = input_tables.correlations(rows, {})
    for one, by_name in found.items():
        made = [Line(where(one), label, by_name[name]) for name, label in _IN_THE_INPUT.items() if by_name.get(name)]
        if len(made) == len(_IN_THE_INPUT):
            lines += made
            groups.append(one)
            chosen = families(input_tables.measured_rows(rows))[one]
            sizes = max(sizes, len({row.config["training"]["batch_size"] for row in chosen}))
    if not lines:
        return None
    curvature, distance = (
        [line for line in lines if line.label == _IN_THE_INPUT[name]] for name in ("lambda1_test", "distance_test")
    )
    title = {
        -1: "Where it was measured, and against the paper, curvature in the input goes with lower robustness",
        1: "Where it was measured, and against the paper, curvature in the input goes with higher robustness",
        0: "Curvature in the input goes with robustness in no one direction, as the paper says",
    }[side(curvature, 0.0)]
    exact = side(distance, 1.0 - 1e-9) == 1
    more = "The distance to the boundary, from the same derivatives, orders them the same way as robustness "
    more += "in every seed." if exact else "not in every seed either."
    rho = written(interval_of(curvature[-1].values, ends=(-1.0, 1.0)), "+.2f")
    return Finding(
        "input-predictors",
        title,
        f"Rank correlation over {sizes} batch sizes between the largest eigenvalue in the input, mean over samples, "
        f"and accuracy under FGSM: {rho} for {curvature[-1].where}. {more}",
        "rank correlation with accuracy under FGSM",
        tuple(lines),
        "04_rank_c_input_hessian",
        commands("input_curvature", rows, groups),
        form="+.2f",
        ends=(-1.0, 1.0),
    )
