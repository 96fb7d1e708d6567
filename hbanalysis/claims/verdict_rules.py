"""The criteria of single claims as computations on a design of batch sizes and seeds."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hbanalysis import paper
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, of_the_paper_for
from hbanalysis.trends import Interval, Trend, log_slope, rank_trend, t_interval

# A rank trend needs three batch sizes to say more than a sign.
_FEWEST_SIZES = 3


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
class Design:
    """Rows as batch sizes crossed with seeds, complete.

    Attributes:
        batch_sizes: in order.
        seeds: those that hold every one of the batch sizes.
        cells: rows by batch size and seed, incomplete ones too.
    """

    batch_sizes: tuple[int, ...]
    seeds: tuple[int, ...]
    cells: Mapping[tuple[int, int], Row]

    @classmethod
    def of(cls, rows: Sequence[Row], seeds_needed: int) -> "Design":
        """The design that rows of one family fill.

        Batch sizes are those measured with as many seeds as a criterion demands, if these are at least three;
        else the number of seeds is lowered until they are, or until no batch size is left out.
        """
        cells = _by_batch_and_seed(rows)
        counts = Counter(size for size, _ in cells)
        sizes: list[int] = []
        for enough in range(seeds_needed, 0, -1):
            found = sorted(size for size, count in counts.items() if count >= enough)
            if len(found) > len(sizes):
                sizes = found
            if len(sizes) >= _FEWEST_SIZES:
                break
        return cls._complete(sizes, cells)

    @classmethod
    def pair(cls, rows: Sequence[Row], smaller: int) -> "Design":
        """The design of one batch size and the largest one above it."""
        cells = _by_batch_and_seed(rows)
        largest = max((size for size, _ in cells), default=smaller)
        return cls._complete(sorted({smaller, largest}), cells)

    @classmethod
    def _complete(cls, sizes: Sequence[int], cells: Mapping[tuple[int, int], Row]) -> "Design":
        seeds = sorted({seed for _, seed in cells})
        full = tuple(seed for seed in seeds if all((size, seed) in cells for size in sizes))
        return cls(tuple(sizes), full, cells)

    def measured(self, size: int, seed: int) -> dict:
        """What was measured in a cell at its target loss."""
        return self.cells[size, seed].values["at_target"]

    def left_out(self) -> str:
        """How many rows of these batch sizes are of incomplete seeds and so do not enter, in words."""
        here = sum(size in self.batch_sizes for size, _ in self.cells)
        incomplete = here - len(self.batch_sizes) * len(self.seeds)
        return f"{incomplete} rows of incomplete seeds left out" if incomplete > 0 else ""


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


def larger_spectrum(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K1: the largest eigenvalue and the whole top of the spectrum grow with the batch size (training loss)."""
    limits = paper.criteria().claims["K1"].thresholds
    design = Design.of(rows, seeds_needed)
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
            _shown(slope),
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
        remark=f"on the test loss the slope is {_shown(on_test)}",
    )


def accuracy_contrast(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K2: test accuracy at the largest batch size minus that at a fixed one, in points."""
    fixed = paper.criteria().claims["K2"].thresholds["contrast_from"]
    reference = int(fixed.get(one.network, fixed["default"]))
    design = Design.pair(rows, reference)
    largest = design.batch_sizes[-1]
    if largest <= reference or not design.seeds:
        return None
    differences = _differences(design, reference, largest, lambda m: 100 * m["accuracy_test"])
    interval = _interval(differences)
    part = Part(
        f"test accuracy at B = {largest} minus B = {reference}, points",
        _shown(interval),
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
        size=_paper_contrast(one, reference, largest),
    )


def less_robust(one: Family, rows: Sequence[Row], seeds_needed: int) -> Measured | None:
    """K4: accuracy under FGSM on the test set falls with the batch size, for every strength measured.

    The effect shown is that of the first strength; the conditions must hold for each.
    """
    design = Design.of(rows, seeds_needed)
    if len(design.batch_sizes) < 2 or not design.seeds:
        return None
    strengths = list(_under_fgsm(design.measured(design.batch_sizes[0], design.seeds[0])))
    if not strengths:
        return None
    return falling_accuracy(design, "FGSM", strengths, _under_fgsm, "under PGD-50: see K4 survives, 05_attacks")


def falling_accuracy(
    design: Design,
    attack: str,
    strengths: Sequence[float],
    accuracies: Callable[[dict], Mapping[float, float]],
    remark: str = "",
) -> Measured:
    """The conditions of K4 under an attack of one or several strengths.

    Args:
        design: at least two batch sizes and one seed.
        attack: its name.
        strengths: those for which the conditions must hold; the effect is that of the first.
        accuracies: test accuracy in percent by strength, from what was measured in a cell.
        remark: what the test leaves open.
    """
    limits = paper.criteria().claims["K4"].thresholds
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
        met = interval.mean <= -limits["drop_points_at_least"] and interval.below(0.0)
        parts.append(
            Part(
                f"accuracy at B = {largest} minus B = {smallest}, points{at}",
                _shown(interval),
                f"<= -{limits['drop_points_at_least']:g}, interval below 0",
                None if interval.low is None else met,
            )
        )
        falls.append(change)
    return Measured(
        f"test accuracy under {attack} {strengths[0]:g}, B = {largest} minus B = {smallest}, points",
        tuple(falls[0]),
        tuple(bool(all(change[i] < 0 for change in falls)) for i in range(len(design.seeds))),
        _interval(falls[0]),
        tuple(parts),
        design,
        size=-float(limits["drop_points_at_least"]),
        remark=remark,
    )


def _by_batch_and_seed(rows: Sequence[Row]) -> dict[tuple[int, int], Row]:
    # Where a training was measured twice, the row with more eigenvalues counts.
    ordered = sorted(rows, key=lambda row: len(row.values["at_target"].get("spectrum_train") or []))
    return {(row.config["training"]["batch_size"], row.config["training"]["seed"]): row for row in ordered}


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


def _paper_contrast(one: Family, reference: int, largest: int) -> float | None:
    """The same contrast in the paper's tables, in points; `None` where they do not hold it."""
    table = of_the_paper_for(one)
    if table.empty:
        return None
    accuracy = table.set_index("batch_size")["accuracy_test"]
    if reference not in accuracy.index or largest not in accuracy.index:
        return None
    return float(100 * (accuracy[largest] - accuracy[reference]))


def _shown(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return f"{interval.mean:.3g} (one seed)"
    return f"{interval.mean:.3g} ({interval.low:.3g} to {interval.high:.3g})"
