"""The criteria on robust models as computations on rows: K6 on accuracy, K7 on curvature, K8 on single samples."""

import math
from collections.abc import Sequence

import numpy as np

from hbanalysis import paper
from hbanalysis.claims.verdict_rules import Design, Measured, Part
from hbanalysis.lineup import ATTACKS, CONTROL, ORIGINAL
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family
from hbanalysis.tables.robust_spectra import log_ratios, single_samples
from hbanalysis.tables.robustness import attacked_accuracy, clean_accuracy, shown
from hbanalysis.trends import t_interval


def helps_and_costs(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K6: every robust model gains on the static sets, and loses clean accuracy as the paper says.

    The criterion does not name the model against which the gain is counted; it is demanded against the original one and
    against the control.
    """
    limits = paper.criteria().claims["K6"].thresholds
    cells = {(row.config["training"]["batch_size"], row.config["training"]["seed"]): row for row in rows}
    if not cells:
        return None
    sizes = tuple(sorted({size for size, _ in cells}))
    design = Design(sizes, tuple(sorted(seed for _, seed in cells)), cells)
    ordered = [cells[key] for key in sorted(cells, key=lambda key: key[1])]
    parts = []
    for reference in (ORIGINAL, CONTROL):
        least = [min(_gain(row, name, reference) for name in ATTACKS) for row in ordered]
        parts.append(
            Part(
                f"smallest gain of the five models over {reference}, mean of the static sets, points",
                ", ".join(f"{value:.3g}" for value in least),
                f"> {limits['gain_above']:g} in every seed",
                all(value > limits["gain_above"] for value in least),
            )
        )
    parts += _clean_parts(one, ordered)
    effects = [min(_gain(row, name, CONTROL) for name in ATTACKS) for row in ordered]
    interval = t_interval(effects, paper.criteria().rules["confidence"])
    return Measured(
        f"smallest gain of the five models over {CONTROL}, points",
        tuple(effects),
        tuple(value > 0 for value in effects),
        interval,
        tuple(parts),
        design,
        remark=f"sets crafted on {ORIGINAL}; under attacks on the models themselves see the page",
    )


def lower_curvature(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K7: robust models have a smaller lambda1 and sum of the top 20 than the control, on the clean loss."""
    limits, confidence = paper.criteria().claims["K7"].thresholds, paper.criteria().rules["confidence"]
    found = {name: {top: log_ratios(rows, name, top) for top in (1, limits["top_of_spectrum"])} for name in ATTACKS}
    if any(not ratios for ratios in (values[1] for values in found.values())):
        return None
    goal = math.log(limits["ratio_interval_below"])
    low, means = 0, []
    for name, by_top in found.items():
        intervals = {top: t_interval(values, confidence) for top, values in by_top.items()}
        low += all(interval.below(goal) for interval in intervals.values())
        means.append(f"{name} {intervals[1].mean:.2f}")
    count = limits["models_at_least"]
    enough = low >= count
    summary = Part("models with both intervals below", f"{low} of {len(ATTACKS)}", f">= {count}", enough)
    # One effect a seed: the model in the middle of the five.
    effects = [float(np.median([found[name][1][i] for name in ATTACKS])) for i in range(len(found["FGSM"][1]))]
    cells = {(row.config["training"]["batch_size"], row.config["training"]["seed"]): row for row in rows}
    design = Design(tuple(sorted({b for b, _ in cells})), tuple(sorted({s for _, s in cells})), cells)
    return Measured(
        f"median over the five models of log lambda1 over that of {CONTROL}",
        tuple(effects),
        tuple(value < 0 for value in effects),
        t_interval(effects, confidence),
        (summary,),
        design,
        size=goal,
        remark="log ratios of lambda1: " + ", ".join(means),
    )


def negative_single_samples(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K8: most Hessians of a single training sample have a negative eigenvalue, beside a gradient that remains."""
    limits, rules = paper.criteria().claims["K8"].thresholds, paper.criteria().rules
    originals = [row for row in rows if row.values["singles"]]
    if not originals:
        return None
    found = single_samples(originals)
    shares, bounds = (found[f"{name} (%)"] / 100 for name in ("negative", "lower bound"))
    demanded = limits["share_lower_bound_above"]
    samples = int(found["samples"].min())
    enough = samples >= limits["samples"]
    parts = (
        Part("samples in each seed", str(samples), f">= {limits['samples']}", True if enough else None),
        Part(
            "lower bound of the share, each seed",
            ", ".join(f"{bound:.2f}" for bound in bounds),
            f"> {demanded:g}",
            bool((bounds > demanded).all()),
        ),
    )
    cells = {(row.config["training"]["batch_size"], row.config["training"]["seed"]): row for row in originals}
    design = Design(tuple(sorted({b for b, _ in cells})), tuple(sorted({s for _, s in cells})), cells)
    return Measured(
        "share of single samples whose Hessian has a negative eigenvalue",
        tuple(shares),
        tuple(share > demanded for share in shares),
        t_interval(list(shares), rules["confidence"]),
        parts,
        design,
    )


def _clean_parts(one: Family, rows: Sequence[Row]) -> list[Part]:
    """What the criterion demands of the clean accuracy on this data set, a condition a model."""
    limits = paper.criteria().claims["K6"].thresholds
    above, within = (limits[name].get(one.dataset) for name in ("clean_loss_points_above", "clean_loss_points_within"))
    parts = []
    for name in ATTACKS:
        losses = [100 * (clean_accuracy(row, CONTROL) - clean_accuracy(row, name)) for row in rows]
        mean = t_interval(losses)
        if above is not None:
            demanded, met = f"> {above:g}", mean.mean > above
        elif within is not None:
            demanded, met = f"within {within:g}", abs(mean.mean) <= within
        else:
            continue
        parts.append(Part(f"clean accuracy of {CONTROL} minus {name}, points", shown(mean), demanded, met))
    return parts


def _gain(row: Row, model: str, reference: str) -> float:
    return 100 * (attacked_accuracy(row, model) - attacked_accuracy(row, reference))
