"""The criteria on robust models as computations on rows: K6 on accuracy, K7 on curvature, K8 on single samples."""

import math
from collections.abc import Sequence

import numpy as np

from hbanalysis import paper
from hbanalysis.claims.planned import Asked
from hbanalysis.claims.verdict_rules import Measured, Part
from hbanalysis.lineup import ATTACKS, CONTROL, ORIGINAL
from hbanalysis.store import Row
from hbanalysis.tables.designs import Design
from hbanalysis.tables.frames import Family
from hbanalysis.tables.robust_spectra import log_ratios, single_samples
from hbanalysis.tables.robustness import attacked_accuracy, clean_accuracy
from hbanalysis.trends import t_interval


def helps_and_costs(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K6: every robust model gains on the static sets, and loses clean accuracy as the paper says.

    The criterion does not name the model against which the gain is counted; it is demanded against the original one and
    against the control. A seed has the claim's sign if every model gains and, where the criterion demands a loss of
    clean accuracy, every model loses some.
    """
    limits = paper.criteria().claims["K6"].thresholds
    if not rows:
        return None
    design = Design.all_of(rows)
    ordered = [design.cells[key] for key in sorted(design.cells, key=lambda key: key[1])]
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
    parts += _clean_parts(asked.family, ordered)
    effects = [min(_gain(row, name, CONTROL) for name in ATTACKS) for row in ordered]
    interval = t_interval(effects, paper.criteria().rules["confidence"])
    return Measured(
        f"smallest gain of the five models over {CONTROL}, points",
        tuple(effects),
        tuple(value > 0 and _costs(asked.family, row) for value, row in zip(effects, ordered, strict=True)),
        interval,
        tuple(parts),
        design,
        remark=f"sets crafted on {ORIGINAL}; under attacks on the models themselves see the page",
    )


def lower_curvature(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K7: robust models have a smaller lambda1 and sum of the top 20 than the control, on the clean loss.

    Seeds that lack one of the models do not enter. A seed has the claim's sign if so many models as the criterion
    demands lie below the control by both measures.
    """
    limits, confidence = paper.criteria().claims["K7"].thresholds, paper.criteria().rules["confidence"]
    tops, count = (1, limits["top_of_spectrum"]), limits["models_at_least"]
    by_top = {top: log_ratios(rows, top) for top in tops}
    seeds = list(by_top[1])
    if not seeds:
        return None
    goal = math.log(limits["ratio_interval_below"])
    low, means = 0, []
    for name in ATTACKS:
        intervals = [t_interval([by_top[top][seed][name] for seed in seeds], confidence) for top in tops]
        low += all(interval.below(goal) for interval in intervals)
        means.append(f"{name} {intervals[0].mean:.2f} and {intervals[1].mean:.2f}")
    # One effect a seed: the model in the middle of the five.
    effects = [float(np.median([by_top[1][seed][name] for name in ATTACKS])) for seed in seeds]
    below = [sum(all(by_top[top][seed][name] < 0 for top in tops) for name in ATTACKS) for seed in seeds]
    interval = t_interval(effects, confidence)
    met = None if interval.low is None else low >= count
    return Measured(
        f"median over the five models of log lambda1 over that of {CONTROL}",
        tuple(effects),
        tuple(number >= count for number in below),
        interval,
        (Part("models with both intervals below", f"{low} of {len(ATTACKS)}", f">= {count}", met),),
        Design.all_of(rows),
        size=goal,
        remark=f"log ratios of lambda1 and of the sum of the top {tops[1]}: " + ", ".join(means),
    )


def negative_single_samples(asked: Asked, rows: Sequence[Row]) -> Measured | None:
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
    return Measured(
        "share of single samples whose Hessian has a negative eigenvalue",
        tuple(shares),
        tuple(share > demanded for share in shares),
        t_interval(list(shares), rules["confidence"]),
        parts,
        Design.all_of(originals),
    )


def _clean_parts(one: Family, rows: Sequence[Row]) -> list[Part]:
    """What the criterion demands of the clean accuracy on this data set, a condition a model."""
    limits = paper.criteria().claims["K6"].thresholds
    above, within = (limits[name].get(one.dataset) for name in ("clean_loss_points_above", "clean_loss_points_within"))
    parts = []
    for name in ATTACKS:
        losses = [_clean_loss(row, name) for row in rows]
        mean = t_interval(losses)
        if above is not None:
            demanded, met = f"> {above:g}", mean.mean > above
        elif within is not None:
            demanded, met = f"within {within:g}", abs(mean.mean) <= within
        else:
            continue
        parts.append(Part(f"clean accuracy of {CONTROL} minus {name}, points", mean.text(".2f"), demanded, met))
    return parts


def _costs(one: Family, row: Row) -> bool:
    """Whether the sign of every model's loss of clean accuracy is the claim's, on data where it demands a loss."""
    limits = paper.criteria().claims["K6"].thresholds["clean_loss_points_above"]
    return one.dataset not in limits or all(_clean_loss(row, name) > 0 for name in ATTACKS)


def _clean_loss(row: Row, model: str) -> float:
    return 100 * (clean_accuracy(row, CONTROL) - clean_accuracy(row, model))


def _gain(row: Row, model: str, reference: str) -> float:
    return 100 * (attacked_accuracy(row, model) - attacked_accuracy(row, reference))
