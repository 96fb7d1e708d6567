"""The criteria of single claims as computations on a design of batch sizes and seeds."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hbanalysis import paper
from hbanalysis.claims.planned import Asked
from hbanalysis.store import Row
from hbanalysis.tables.designs import Design
from hbanalysis.tables.frames import Family, of_the_paper_for
from hbanalysis.trends import Interval, Trend, log_slope, rank_trend, t_interval


@dataclass(frozen=True)
class Part:
    """One condition of a criterion.

    Attributes:
        name: what is measured.
        value: what was found, formatted.
        demanded: what the criterion demands, in words.
        met: whether it holds; `None` where the rows cannot say.
    """

    name: str
    value: str
    demanded: str
    met: bool | None


@dataclass(frozen=True)
class Measured:
    """A claim measured on a design.

    Attributes:
        measure: what the effect is.
        effects: one effect a seed.
        signs: for each seed whether the effect has the claim's sign.
        interval: mean and interval of the effects.
        parts: the conditions of the criterion.
        design: the batch sizes and seeds that entered.
        size: an effect as large as the claim's, for telling a null from too wide an interval.
        remark: what the test leaves open.
        refuted: whether a condition that decides against the claim by itself is met.
    """

    measure: str
    effects: tuple[float, ...]
    signs: tuple[bool, ...]
    interval: Interval
    parts: tuple[Part, ...]
    design: Design
    size: float | None = None
    remark: str = ""
    refuted: bool = False


def larger_spectrum(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K1: the largest eigenvalue and the whole top of the spectrum grow with the batch size (training loss)."""
    limits = paper.criteria().claims["K1"].thresholds
    design = Design.of(rows, asked.seeds, asked.batch_sizes)
    if len(design.batch_sizes) < 2 or not design.seeds:
        return None
    smallest, largest = design.batch_sizes[0], design.batch_sizes[-1]
    effects = {}
    for split in ("train", "test"):
        values = [[design.measured(b, s)[f"lambda1_{split}"] for b in design.batch_sizes] for s in design.seeds]
        if any(v is None or v <= 0 for seed in values for v in seed):
            return None
        effects[split] = values
    slopes = [log_slope(design.batch_sizes, seed) for seed in effects["train"]]
    slope = _interval(slopes)
    trend = rank_trend([(design.batch_sizes, seed) for seed in effects["train"]])
    ratio = math.exp(sum(math.log(seed[-1] / seed[0]) for seed in effects["train"]) / len(slopes))
    top = [_top_larger(design, smallest, largest, s, limits["top_of_spectrum"]) for s in design.seeds]
    known = [t for t in top if t is not None]
    parts = (
        *_trend_parts(trend, f">= {limits['rho_at_least']:g}", trend.rho >= limits["rho_at_least"]),
        Part(
            "slope of log lambda1 on log B",
            slope.text(),
            "interval above 0",
            None if slope.low is None else slope.above(limits["slope_interval_above"]),
        ),
        Part(
            f"lambda1 at B = {largest} over B = {smallest}",
            f"{ratio:.3g}",
            f">= {limits['ratio_at_least']:g}",
            ratio >= limits["ratio_at_least"],
        ),
        Part(
            f"all of the top {limits['top_of_spectrum']} larger",
            f"{sum(known)} of {len(top)} seeds" + (f", {len(top) - len(known)} unknown" if None in top else ""),
            "every seed",
            False if False in top else None if None in top else True,
        ),
    )
    on_test = _interval([log_slope(design.batch_sizes, seed) for seed in effects["test"]])
    return Measured(
        "slope of log lambda1 (train) on log B",
        tuple(slopes),
        tuple(bool(value > 0) for value in slopes),
        slope,
        parts,
        design,
        size=math.log(limits["ratio_at_least"]) / math.log(largest / smallest),
        remark=f"on the test loss the slope is {on_test.text()}",
    )


def accuracy_contrast(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K2: test accuracy at the largest batch size minus that at a fixed one, in points.

    An effect as large as the claim's is the paper's own for the network or, where it prints none, for C1.
    """
    fixed = paper.criteria().claims["K2"].thresholds["contrast_from"]
    reference = int(fixed.get(asked.family.network, fixed["default"]))
    design = Design.pair(rows, reference, [reference, *asked.batch_sizes[-1:]])
    largest = design.batch_sizes[-1]
    if largest <= reference or not design.seeds:
        return None
    differences = _differences(design, reference, largest, lambda m: 100 * m["accuracy_test"])
    interval = _interval(differences)
    part = Part(
        f"test accuracy at B = {largest} minus B = {reference}, points",
        interval.text(),
        "interval below 0",
        None if interval.low is None else interval.below(0.0),
    )
    return Measured(
        part.name,
        tuple(differences),
        tuple(bool(value < 0) for value in differences),
        interval,
        (part,),
        design,
        size=_paper_contrast(asked.family, reference, largest),
    )


def less_robust(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K4: accuracy under FGSM on the test set falls with the batch size; see `falling_accuracy`."""
    design = Design.of(rows, asked.seeds, asked.batch_sizes)
    if len(design.batch_sizes) < 2 or not design.seeds:
        return None
    return falling_accuracy(design, "FGSM", _under_fgsm, "under PGD-50: see K4 survives, 05_attacks")


def falling_accuracy(
    design: Design, attack: str, accuracies: Callable[[dict], Mapping[float, float]], remark: str = ""
) -> Measured | None:
    """The conditions of K4 under an attack, demanded at every strength at which they can be met.

    A strength at which even the smallest batch size keeps less accuracy than the demanded drop cannot show it. Such
    strengths are named and left out; where all are, the rows cannot tell. The effect shown is that of the first of the
    others.

    Args:
        design: at least two batch sizes and one seed.
        attack: its name.
        accuracies: test accuracy in percent by strength, from what was measured in a cell.
        remark: what the test leaves open.
    """
    limits = paper.criteria().claims["K4"].thresholds
    drop = float(limits["drop_points_at_least"])
    kept = {
        epsilon: sum(accuracies(design.measured(design.batch_sizes[0], s))[epsilon] for s in design.seeds)
        / len(design.seeds)
        for epsilon in accuracies(design.measured(design.batch_sizes[0], design.seeds[0]))
    }
    if not kept:
        return None
    floor = {epsilon: accuracy for epsilon, accuracy in kept.items() if accuracy < drop}
    strengths = [epsilon for epsilon in kept if epsilon not in floor] or list(floor)
    hopeless = strengths == list(floor)
    if floor:
        said = ", ".join(f"{accuracy:.1f} % at {epsilon:g}" for epsilon, accuracy in floor.items())
        least = f"too little left at B = {design.batch_sizes[0]} to fall by {drop:g} points: {said}"
        remark = f"{remark}; {least}" if remark else least
    smallest, largest = design.batch_sizes[0], design.batch_sizes[-1]
    parts: list[Part] = []
    falls: list[list[float]] = []
    for epsilon in strengths:
        groups = [
            (design.batch_sizes, [accuracies(design.measured(b, s))[epsilon] for b in design.batch_sizes])
            for s in design.seeds
        ]
        trend = rank_trend(groups, increasing=False)
        change = [values[-1] - values[0] for _, values in groups]
        interval = _interval(change)
        at = f", {attack} {epsilon:g}"
        parts += _trend_parts(trend, f"<= {limits['rho_at_most']:g}", trend.rho <= limits["rho_at_most"], at)
        met = interval.mean <= -drop and interval.below(0.0)
        parts.append(
            Part(
                f"accuracy at B = {largest} minus B = {smallest}, points{at}",
                interval.text(),
                f"<= -{drop:g}, interval below 0",
                None if interval.low is None else met,
            )
        )
        falls.append(change)
    if hopeless:
        parts = [
            Part(f"accuracy at B = {smallest}, {attack} {epsilon:g}", f"{accuracy:.3g}", f">= {drop:g}", None)
            for epsilon, accuracy in floor.items()
        ]
    return Measured(
        f"test accuracy under {attack} {strengths[0]:g}, B = {largest} minus B = {smallest}, points",
        tuple(falls[0]),
        tuple(bool(all(change[i] < 0 for change in falls)) for i in range(len(design.seeds))),
        _interval(falls[0]),
        tuple(parts),
        design,
        size=-drop,
        remark=remark,
    )


def _interval(values: Sequence[float]) -> Interval:
    return t_interval(values, paper.criteria().rules["confidence"])


def _differences(design: Design, smaller: int, larger: int, value: Callable[[dict], float]) -> list[float]:
    return [value(design.measured(larger, s)) - value(design.measured(smaller, s)) for s in design.seeds]


def _trend_parts(trend: Trend, demanded: str, met: bool, at: str = "") -> list[Part]:
    limit = paper.criteria().rules["p_below"]
    return [
        Part(f"mean rho within a seed{at}", f"{trend.rho:.3g}", demanded, met),
        Part(f"permutation test, one-sided p{at}", f"{trend.p_value:.2g}", f"< {limit:g}", trend.p_value < limit),
    ]


def _top_larger(design: Design, smallest: int, largest: int, seed: int, top: int) -> bool | None:
    low, high = (design.measured(b, seed).get("spectrum_train") or [] for b in (smallest, largest))
    if min(len(low), len(high)) < top:
        return None
    return all(b > a for a, b in zip(low[:top], high[:top], strict=True))


def _under_fgsm(measured: dict) -> dict[float, float]:
    """Test accuracy under FGSM in percent, by strength."""
    return {attack["epsilon"]: 100 * attack["accuracy_test"] for attack in measured.get("fgsm") or []}


def _paper_contrast(one: Family, reference: int, largest: int) -> float:
    """The same contrast in the paper's tables, in points; C1's over its own batch sizes where they do not hold it."""
    table = of_the_paper_for(one)
    if not table.empty:
        accuracy = 100 * table.set_index("batch_size")["accuracy_test"]
        if reference in accuracy.index and largest in accuracy.index:
            return float(accuracy[largest] - accuracy[reference])
    fixed, table = paper.criteria().claims["K2"].thresholds["contrast_from"], paper.table("table1")
    accuracy = table[table["network"] == "C1"].set_index("batch_size")["accuracy_test"]
    return float(accuracy[accuracy.index.max()] - accuracy[fixed["default"]])
