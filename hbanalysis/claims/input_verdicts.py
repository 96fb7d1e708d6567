"""What rows of `input_curvature` say about the claims K5, K9 and K15, by the criteria that were fixed beforehand."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hbanalysis import paper
from hbanalysis.claims.outcomes import NO_VERDICT, NOT_REPRODUCED, PARTLY, REPRODUCED, UNDECIDED, direction
from hbanalysis.claims.planned import Asked, asked
from hbanalysis.store import Row
from hbanalysis.tables.designs import FEWEST_SIZES, Design
from hbanalysis.tables.frames import distinct_titles, families
from hbanalysis.tables.input_tables import Training, correlations, measured_inputs, measured_rows
from hbanalysis.trends import rank_trend, t_interval


@dataclass(frozen=True)
class Found:
    """What the rows of one family say about a claim.

    Attributes:
        said: What was measured, in words.
        direction: ``yes``, ``no`` or ``mixed``: whether it goes as the claim says here, whatever the scale.
        met: Whether every condition of the criterion holds; None where the rows cannot tell.
        seeds: Seeds that entered.
        lacking: Batch sizes without which nothing is decided.
    """

    said: str
    direction: str
    met: bool | None
    seeds: int
    lacking: tuple[int, ...] = ()


def theorem_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the check of the theorem, a line a family: samples, worst ratio, ranks, exceptions, training loss.

    Args:
        rows: Rows of `input_curvature` and `saddle_free`.
    """
    lines = []
    groups = families(row for row in rows if row.values.get("theorem"))
    titles = distinct_titles(groups)
    for one, group in groups.items():
        checks = [row.values["theorem"] for row in group]
        losses = [row.values["train"]["loss"]["mean"] for row in group]
        line: dict[str, Any] = {"scale": one.scale, "trained": titles[one], "networks": len(group)}
        line |= {
            "samples": sum(check["samples"] for check in checks),
            "training loss": f"{min(losses):.2g} to {max(losses):.2g}",
            "method": ", ".join(sorted({check["method"] for check in checks})),
        }
        dense = [check for check in checks if check["method"] == "dense"]
        if dense:
            ranks = [i for check in dense for i, count in enumerate(check["ranks"]) if count]
            line |= {
                # A power of ten: what is shown is rounding, whose digits differ from machine to machine.
                "-lambda_min / lambda_max below": _power_above(max(check["negative_ratio"] for check in dense)),
                "ranks": f"{min(ranks)} to {max(ranks)}",
                "allowed": f"{dense[0]['limit']}",
                "exceptions": sum(check["exceptions"] for check in dense),
            }
        others = [check for check in checks if check["method"] == "products"]
        if others:
            line["error of the formula below"] = _power_above(max(check["product_error"] for check in others))
        lines.append(line)
    return pd.DataFrame(lines)


def exceptions(rows: Iterable[Row]) -> int:
    """Return how many dense Hessians of any row contradict the theorem: one refutes it, whatever the scale.

    Args:
        rows: Rows of `input_curvature` and `saddle_free`.
    """
    checks = [row.values["theorem"] for row in rows if row.values.get("theorem")]
    return sum(check["exceptions"] for check in checks if check["method"] == "dense")


def theorem_holds(rows: Sequence[Row]) -> Found:
    """K9: no negative eigenvalue and rank c - 1 at most, on at least 1,000 samples; one exception refutes.

    A sample is an image in a network: networks see the same images, which is said.
    """
    limits = paper.criteria().claims["K9"].thresholds
    checks = [row.values["theorem"] for row in rows if row.values["theorem"]["method"] == "dense"]
    if not checks:
        return Found("no dense Hessian", "cannot tell", None, 0)
    counts, wrong = [check["samples"] for check in checks], exceptions(rows)
    each = f"{counts[0]}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    of = (
        f"the same {each} images in each of {len(checks)} networks"
        if len(checks) > 1
        else f"{each} images in 1 network"
    )
    said = f"{wrong} exceptions in {sum(counts)} Hessians, of {of}"
    met = False if wrong else True if sum(counts) >= limits["samples_at_least"] else None
    return Found(said, "no" if wrong else "yes", met, len({_seed(row) for row in rows}))


def not_followed(wanted: Asked, rows: Sequence[Row], weights: Mapping[Training, float]) -> Found:
    """K5: robustness follows lambda1 in the weights more closely than lambda1 or the gradient in the input."""
    found = correlations(rows, weights)[wanted.family]
    if "lambda1_weights" not in found:
        return Found("fewer than three batch sizes in a seed, or lambda1_theta unknown", "cannot tell", None, 0)
    theta = found["lambda1_weights"]
    said, parts, signs = [], [], []
    for column, name in (("lambda1_test", "lambda1_x"), ("gradient_norm_test", "gradient norm")):
        gaps = [abs(a) - abs(b) for a, b in zip(theta, found[column], strict=True)]
        interval = t_interval(gaps)
        said.append(f"abs rho(lambda1_theta) - abs rho({name}) = {interval.text('.2f')}")
        parts.append(None if interval.low is None else interval.above(0.0))
        signs += [gap > 0 for gap in gaps]
    example, known = paper.criteria().claims["K5"].thresholds["example"], _example(rows)
    if known is not None or {example["smaller"], example["larger"]} <= set(wanted.batch_sizes):
        said.append({True: "the example holds", False: "the example fails", None: "the example is not measured"}[known])
        parts.append(known)
    else:
        said.append("the paper's example is of batch sizes that this network lacks")
    lacking = Design.of(rows, wanted.seeds, wanted.batch_sizes).lacking
    return Found("; ".join(said), direction(signs), _all_of(parts), len(theta), lacking)


def nearer_boundary(wanted: Asked, rows: Sequence[Row]) -> Found:
    """K15: the median of the linearised boundary distance falls with the batch size."""
    limits = paper.criteria().claims["K15"].thresholds
    design = Design.of(rows, wanted.seeds, wanted.batch_sizes)
    if len(design.batch_sizes) < FEWEST_SIZES or not design.seeds:
        return Found("fewer than three batch sizes in a seed", "cannot tell", None, 0)
    seeds = [cells.sort_values("batch_size") for _, cells in measured_inputs(design.rows).groupby("seed")]
    groups = [(c["batch_size"].tolist(), c["distance_test"].tolist()) for c in seeds]
    trend = rank_trend(groups, increasing=False)
    changes = [values[-1] - values[0] for _, values in groups]
    interval = t_interval(changes)
    p_limit = paper.criteria().rules["p_below"]
    excluded = None if interval.low is None else interval.below(limits["interval_excludes"])
    met = _all_of([trend.rho <= limits["rho_at_most"], trend.p_value < p_limit, excluded])
    said = (
        f"rho = {trend.rho:.2g}, p = {trend.p_value:.2g}; median distance at B = {design.batch_sizes[-1]} minus "
        f"B = {design.batch_sizes[0]}: {_small(interval.mean)}"
        + ("" if interval.low is None else f" ({_small(interval.low)} to {_small(interval.high)})")
    )
    signs = [change < 0 for change in changes]
    return Found(said, direction(signs), met, len(seeds), design.lacking)


def table(rows: Sequence[Row], weights: Mapping[Training, float], elsewhere: Sequence[Row] = ()) -> pd.DataFrame:
    """Return verdicts on K9, K5 and K15: one line a claim and family; only rows at the paper's scale decide.

    Args:
        rows: Rows of `input_curvature`.
        weights: See `weight_curvatures`.
        elsewhere: Rows of `saddle_free`, whose exceptions refute the theorem as well.
    """
    criteria = paper.criteria()
    groups = families(measured_rows(rows))
    titles = distinct_titles(groups)
    refuted = exceptions([*rows, *elsewhere]) > 0
    lines = []
    for claim in ("K9", "K5", "K15"):
        for one, group in groups.items():
            wanted = asked(claim, "input_curvature", one)
            if claim == "K9":
                found = theorem_holds(group)
            elif claim == "K5":
                found = not_followed(wanted, group, weights)
            else:
                found = nearer_boundary(wanted, group)
            # The theorem asks for samples: a seed more or less is no unit of it.
            needed = 1 if claim == "K9" else wanted.seeds
            deciding = one.scale in criteria.rules["deciding_scales"]
            lines.append(
                {
                    "claim": claim,
                    "trained": titles[one],
                    "scale": one.scale,
                    "found": found.said,
                    "seeds": found.seeds,
                    "verdict": NOT_REPRODUCED if claim == "K9" and refuted else _outcome(found, deciding, needed),
                    "same direction here": found.direction,
                }
            )
    columns = ["claim", "trained", "scale", "found", "seeds", "verdict", "same direction here"]
    return pd.DataFrame(lines, columns=columns)


def _outcome(found: Found, deciding: bool, needed: int) -> str:
    if not deciding:
        return NO_VERDICT
    if found.seeds < needed or found.lacking or found.met is None:
        return UNDECIDED
    if found.met:
        return REPRODUCED
    return PARTLY if found.direction == "yes" else NOT_REPRODUCED


def _example(rows: Sequence[Row]) -> bool | None:
    """The paper's own example: from B = 32 to 512 robustness falls although neither lambda1_x nor the gradient grows.

    It must hold in every seed that has both; None where none has.
    """
    sizes = paper.criteria().claims["K5"].thresholds["example"]
    frame = measured_inputs(rows).set_index(["seed", "batch_size"])
    small, large = sizes["smaller"], sizes["larger"]
    held = []
    for seed in frame.index.get_level_values("seed").unique():
        if (seed, small) in frame.index and (seed, large) in frame.index:
            a, b = frame.loc[(seed, small)], frame.loc[(seed, large)]
            no_larger = all(b[name] <= a[name] for name in ("lambda1_test", "gradient_norm_test"))
            held.append(bool(b["fgsm_test"] < a["fgsm_test"] and no_larger))
    return all(held) if held else None


def _all_of(parts: Sequence[bool | None]) -> bool | None:
    if any(part is False for part in parts):
        return False
    return None if any(part is None for part in parts) else True


def _seed(row: Row) -> int:
    return int(row.config["training"]["seed"])


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"


def _power_above(value: float) -> str:
    """Return the first power of ten above a value; no ratio is told apart below 1e-16."""
    return f"1e{math.floor(math.log10(max(value, 1e-17))) + 1}"
