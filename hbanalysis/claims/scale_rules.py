"""The criterion on scale as a computation on rows: K13, K1 again with curvature that has no scale."""

import math
from collections.abc import Sequence

from hbanalysis import paper
from hbanalysis.claims.planned import Asked
from hbanalysis.claims.verdict_rules import Measured, Part
from hbanalysis.store import Row
from hbanalysis.tables.designs import Design
from hbanalysis.trends import log_slope, rank_trend, t_interval

_PLAIN, _SCALED, _FILTERS = "lambda1_train", "scaled_lambda1_train", "filter_curvature_train"
_NAMES = {
    _SCALED: "slope of log lambda1 of D H D on log B",
    _FILTERS: "slope of log curvature along filter-normalised directions on log B",
}


def scale_free(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K13: the slope of the curvature on the batch size keeps its sign when the scale of the weights is taken out.

    The sign to keep is that of the mean slope of lambda1 of H itself, measured on the same networks. Both measures
    without scale must keep it; the effect shown is that of D H D.
    """
    design = Design.of(rows, asked.seeds, asked.batch_sizes)
    if len(design.batch_sizes) < 2 or not design.seeds:
        return None
    slopes, rhos = {}, {}
    for measure in (_PLAIN, _SCALED, _FILTERS):
        values = [[design.measured(b, s).get(measure) or 0.0 for b in design.batch_sizes] for s in design.seeds]
        if any(v <= 0 for seed in values for v in seed):
            return None
        slopes[measure] = [log_slope(design.batch_sizes, seed) for seed in values]
        rhos[measure] = rank_trend([(design.batch_sizes, seed) for seed in values]).rho
    criteria = paper.criteria()
    limit = criteria.claims["K13"].thresholds["slope_interval_excludes"]
    intervals = {name: t_interval(values, criteria.rules["confidence"]) for name, values in slopes.items()}
    sign = math.copysign(1.0, intervals[_PLAIN].mean)
    parts = []
    for measure, name in _NAMES.items():
        found = intervals[measure]
        beyond = found.above(limit) if sign > 0 else found.below(limit)
        demanded = f"interval {'above' if sign > 0 else 'below'} 0, as the slope of lambda1"
        parts.append(Part(name, found.text(), demanded, None if found.low is None else beyond))
    norms = [
        log_slope(design.batch_sizes, [design.measured(b, s)["weight_norm"] for b in design.batch_sizes])
        for s in design.seeds
    ]
    largest, smallest = design.batch_sizes[-1], design.batch_sizes[0]
    return Measured(
        _NAMES[_SCALED],
        tuple(slopes[_SCALED]),
        tuple(sign * a > 0 and sign * b > 0 for a, b in zip(slopes[_SCALED], slopes[_FILTERS], strict=True)),
        intervals[_SCALED],
        tuple(parts),
        design,
        size=sign * math.log(criteria.claims["K1"].thresholds["ratio_at_least"]) / math.log(largest / smallest),
        remark=(
            f"filter-normalised {intervals[_FILTERS].text()}; lambda1 of H {intervals[_PLAIN].text()}; norm of the "
            f"weights {t_interval(norms, criteria.rules['confidence']).text()}; rho "
            + ", ".join(f"{rhos[name]:.2g}" for name in (_SCALED, _FILTERS, _PLAIN))
        ),
    )
