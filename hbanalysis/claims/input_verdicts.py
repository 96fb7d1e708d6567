"""What rows of `input_curvature` say about the claims K5, K9 and K15, by the criteria that were fixed beforehand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hbanalysis import paper
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families
from hbanalysis.tables.input_tables import Training, correlations, measured_inputs, measured_rows, shown
from hbanalysis.trends import rank_trend, t_interval

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not reproduced"
UNDECIDED, NOT_YET_RUN = "undecided", "not yet run"


@dataclass(frozen=True)
class Found:
    """What the rows of one family say about a claim.

    Attributes:
        said: What was measured, in words.
        direction: ``yes``, ``no`` or ``mixed``: whether it goes as the claim says here, whatever the scale.
        met: Whether every condition of the criterion holds; None where the rows cannot tell.
        seeds: Seeds that entered.
    """

    said: str
    direction: str
    met: bool | None
    seeds: int


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


def theorem_holds(one: Family, rows: Sequence[Row]) -> Found:
    """K9: no negative eigenvalue and rank c - 1 at most, on at least 1,000 samples; one exception refutes."""
    limits = paper.criteria().claims["K9"].thresholds
    checks = [row.values["theorem"] for row in rows if row.values["theorem"]["method"] == "dense"]
    samples, exceptions = sum(c["samples"] for c in checks), sum(c["exceptions"] for c in checks)
    if not checks:
        return Found("no dense Hessian", "cannot tell", None, 0)
    enough = samples >= limits["samples_at_least"]
    said = f"{exceptions} exceptions in {samples} samples of {len(checks)} networks"
    met = False if exceptions else True if enough else None
    return Found(said, "no" if exceptions else "yes", met, len({_seed(row) for row in rows}))


def not_followed(one: Family, rows: Sequence[Row], weights: Mapping[Training, float]) -> Found:
    """K5: robustness follows lambda1 in the weights more closely than lambda1 or the gradient in the input."""
    found = correlations(rows, weights)[one]
    if "lambda1_weights" not in found:
        return Found("fewer than three batch sizes in a seed, or lambda1_theta unknown", "cannot tell", None, 0)
    theta = found["lambda1_weights"]
    said, parts, signs = [], [], []
    for column, name in (("lambda1_test", "lambda1_x"), ("gradient_norm_test", "gradient norm")):
        gaps = [abs(a) - abs(b) for a, b in zip(theta, found[column], strict=True)]
        interval = t_interval(gaps)
        said.append(f"abs rho(lambda1_theta) - abs rho({name}) = {shown(interval)}")
        parts.append(None if interval.low is None else interval.above(0.0))
        signs += [gap > 0 for gap in gaps]
    example = _example(rows)
    said.append({True: "the example holds", False: "the example fails", None: "no B = 32 and 512"}[example])
    met = _all_of([*parts, example])
    return Found("; ".join(said), "yes" if all(signs) else "mixed" if any(signs) else "no", met, len(theta))


def nearer_boundary(one: Family, rows: Sequence[Row]) -> Found:
    """K15: the median of the linearised boundary distance falls with the batch size."""
    limits = paper.criteria().claims["K15"].thresholds
    frame = measured_inputs(rows)
    seeds = [cells for _, cells in frame.groupby("seed") if cells["batch_size"].nunique() >= 3]
    if not seeds:
        return Found("fewer than three batch sizes in a seed", "cannot tell", None, 0)
    groups = [(c["batch_size"].tolist(), c["distance_test"].tolist()) for c in seeds]
    trend = rank_trend(groups, increasing=False)
    changes = [values[-1] - values[0] for _, values in groups]
    interval = t_interval(changes)
    p_limit = paper.criteria().rules["p_below"]
    excluded = None if interval.low is None else interval.below(limits["interval_excludes"])
    met = _all_of([trend.rho <= limits["rho_at_most"], trend.p_value < p_limit, excluded])
    said = (
        f"rho = {trend.rho:.2g}, p = {trend.p_value:.2g}; median distance at the largest minus the smallest batch: "
        + _small(interval.mean)
        + ("" if interval.low is None else f" ({_small(interval.low)} to {_small(interval.high)})")
    )
    signs = [change < 0 for change in changes]
    return Found(said, "yes" if all(signs) else "mixed" if any(signs) else "no", met, len(seeds))


def table(rows: Sequence[Row], weights: Mapping[Training, float]) -> pd.DataFrame:
    """Return verdicts on K9, K5 and K15: one line a claim and family; only rows at the paper's scale decide."""
    criteria = paper.criteria()
    groups = families(measured_rows(rows))
    titles = distinct_titles(groups)
    lines = []
    for claim in ("K9", "K5", "K15"):
        for one, group in groups.items():
            if claim == "K9":
                found = theorem_holds(one, group)
            elif claim == "K5":
                found = not_followed(one, group, weights)
            else:
                found = nearer_boundary(one, group)
            # The theorem asks for samples: a seed more or less is no unit of it.
            needed = 1 if claim == "K9" else criteria.seeds_needed(claim, one.network)
            deciding = one.scale in criteria.rules["deciding_scales"]
            lines.append(
                {
                    "claim": claim,
                    "trained": titles[one],
                    "scale": one.scale,
                    "found": found.said,
                    "seeds": found.seeds,
                    "verdict": _outcome(claim, found, deciding, needed),
                    "same direction here": found.direction,
                }
            )
    columns = ["claim", "trained", "scale", "found", "seeds", "verdict", "same direction here"]
    return pd.DataFrame(lines, columns=columns)


def _outcome(claim: str, found: Found, deciding: bool, needed: int) -> str:
    if claim == "K9" and found.met is False:
        return NOT_REPRODUCED  # one exception refutes, at any scale
    if not deciding:
        return NOT_YET_RUN
    if found.seeds < needed or found.met is None:
        return UNDECIDED
    if found.met:
        return REPRODUCED
    return PARTLY if found.direction == "yes" else NOT_REPRODUCED


def _example(rows: Sequence[Row]) -> bool | None:
    """The paper's own example: from B = 32 to 512 robustness falls although lambda1_x does not grow, in every seed."""
    sizes = paper.criteria().claims["K5"].thresholds["example"]
    frame = measured_inputs(rows).set_index(["seed", "batch_size"])
    small, large = sizes["smaller"], sizes["larger"]
    held = []
    for seed in frame.index.get_level_values("seed").unique():
        if (seed, small) in frame.index and (seed, large) in frame.index:
            a, b = frame.loc[(seed, small)], frame.loc[(seed, large)]
            held.append(bool(b["fgsm_test"] < a["fgsm_test"] and b["lambda1_test"] <= a["lambda1_test"]))
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
