"""The criteria on the course of trainings as computations on rows: K3, K11 along one training, and K12."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hbanalysis import paper
from hbanalysis.claims.planned import Asked
from hbanalysis.claims.verdict_rules import Measured, Part
from hbanalysis.store import Row
from hbanalysis.tables.designs import Design
from hbanalysis.tables.dynamics import at_crossing, fall_and_move, plain, thresholds
from hbanalysis.trends import Interval, t_interval


def not_at_a_saddle(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K3: at equal loss the gradient of the largest batch is not small, nor its negative curvature relatively larger.

    Trainings with the whole set as one batch are left out: they are K12's. "No larger" is met if the whole interval of
    the log ratio lies at or below 0, missed if it lies above, and open otherwise.
    """
    limits = paper.criteria().claims["K3"].thresholds
    chosen = [row for row in plain(rows) if not _whole(row)]
    sizes = sorted({_size(row) for row in chosen})
    if len(sizes) < 2:
        return None
    below = [size for size in asked.batch_sizes if not _is_whole(size, chosen[0])]
    ends = [row for row in chosen if _size(row) in (sizes[0], sizes[-1])]
    design = Design.pair(ends, sizes[0], [*below[:1], *below[-1:]])
    pairs = [(design.cells[sizes[0], seed], design.cells[sizes[-1], seed]) for seed in design.seeds]
    losses = thresholds([row for pair in pairs for row in pair])
    if not losses:
        return None
    least = limits["gradient_ratio_at_least"]
    gradients: list[list[float]] = [[] for _ in pairs]
    saddles: list[list[float]] = [[] for _ in pairs]
    parts = []
    for loss in losses:
        for number, (small, large) in enumerate(pairs):
            low, high = at_crossing(small, loss), at_crossing(large, loss)
            assert low is not None and high is not None
            gradients[number].append(math.log(high["gradient_norm_train"] / low["gradient_norm_train"]))
            saddles[number].append(math.log(_saddle(high) / _saddle(low)))
        gradient, saddle = (_interval([seed[-1] for seed in found]) for found in (gradients, saddles))
        parts += [
            Part(
                f"gradient norm at B = {sizes[-1]} over B = {sizes[0]}, loss {loss:g}",
                f"{math.exp(gradient.mean):.3g}",
                f">= {least:g}",
                math.exp(gradient.mean) >= least,
            ),
            Part(
                f"log ratio of |lambda_min| / lambda_max, loss {loss:g}",
                saddle.text(),
                "interval at or below 0",
                _no_larger(saddle, limits["saddle_log_ratio_no_larger_than"]),
            ),
        ]
    effects = [float(np.mean(seed)) - math.log(least) for seed in gradients]
    return Measured(
        f"log of the gradient norm at B = {sizes[-1]} over {least:g} times that at B = {sizes[0]}, mean of the losses",
        tuple(effects),
        tuple(e > 0 and float(np.mean(s)) <= 0 for e, s in zip(effects, saddles, strict=True)),
        _interval(effects),
        tuple(parts),
        design,
        remark="at loss 0.001 the answer is trivial: a training that arrives there was not stuck",
    )


def follows_along_training(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K11 along one training: refuted if lambda1 falls and accuracy under FGSM stays, in two thirds of the runs.

    This arm of the criterion can refute that lower curvature makes the same model more robust, and says nothing about a
    correlation between models.
    """
    limits = paper.criteria().claims["K11"].thresholds
    found = {}
    for row in plain(rows):
        measured = fall_and_move(row, limits["loss_from"], limits["loss_to"])
        if measured is not None:
            fall, move = measured
            apart = fall >= limits["lambda1_fall_at_least"] and abs(move) < limits["accuracy_move_points_below"]
            found[_size(row), _seed(row)] = (row, math.log(fall), apart)
    if not found:
        return None
    share = sum(apart for _, _, apart in found.values()) / len(found)
    refuted = share >= limits["share_of_runs"] - 1e-9
    seeds = sorted({seed for _, seed in found})
    by_seed = {seed: [entry for (_, s), entry in found.items() if s == seed] for seed in seeds}
    effects = [float(np.mean([log_fall for _, log_fall, _ in by_seed[seed]])) for seed in seeds]
    part = Part(
        f"runs that contradict it: lambda1 falls {limits['lambda1_fall_at_least']:g}-fold, FGSM accuracy moves by less "
        f"than {limits['accuracy_move_points_below']:g} points",
        f"{sum(apart for _, _, apart in found.values())} of {len(found)}",
        "fewer than 2/3",
        False if refuted else None,
    )
    design = Design(tuple(sorted({b for b, _ in found})), tuple(seeds), {k: row for k, (row, _, _) in found.items()})
    return Measured(
        f"log of lambda1 at loss {limits['loss_from']:g} over that at {limits['loss_to']:g}",
        tuple(effects),
        tuple(sum(a for *_, a in by_seed[s]) < limits["share_of_runs"] * len(by_seed[s]) for s in seeds),
        _interval(effects),
        (part,),
        design,
        remark="along one training only: it can refute, not confirm, and says nothing about models side by side",
        refuted=refuted,
    )


def up_to_the_whole_set(asked: Asked, rows: Sequence[Row]) -> Measured | None:
    """K12: lambda1 at the target loss is larger for the whole set as one batch than for the largest batch below it."""
    cells = plain(rows)
    sizes = sorted({_size(row) for row in cells})
    whole = [size for size in sizes if any(_whole(row) for row in cells if _size(row) == size)]
    if not whole or len(sizes) < 2:
        return None
    below = sizes[-2]
    design = Design.pair([row for row in cells if _size(row) in (below, whole[0])], below, asked.batch_sizes[-2:])
    if not design.seeds:
        return None
    effects = [
        math.log(design.measured(whole[0], s)["lambda1_train"] / design.measured(below, s)["lambda1_train"])
        for s in design.seeds
    ]
    interval = _interval(effects)
    part = Part(
        f"log of lambda1 at B = N = {whole[0]} over that at B = {below}",
        interval.text(),
        "interval above 0",
        None if interval.low is None else interval.above(0.0),
    )
    # As large as the growth that K1 demands between its ends.
    size = math.log(paper.criteria().claims["K1"].thresholds["ratio_at_least"])
    return Measured(part.name, tuple(effects), tuple(e > 0 for e in effects), interval, (part,), design, size=size)


def _no_larger(interval: Interval, limit: float) -> bool | None:
    if interval.low is None or interval.high is None:
        return None
    return True if interval.high <= limit else False if interval.low > limit else None


def _interval(values: Sequence[float]) -> Interval:
    return t_interval(values, paper.criteria().rules["confidence"])


def _saddle(point: Mapping[str, Any]) -> float:
    # A smallest eigenvalue of exactly 0, or above, means no negative curvature: the ratio of rounding.
    return max(-point["lambda_min_train"], 1e-12) / point["lambda1_train"]


def _whole(row: Row) -> bool:
    return _is_whole(_size(row), row)


def _is_whole(size: int, row: Row) -> bool:
    return size == row.values["samples"]


def _size(row: Row) -> int:
    return int(row.config["training"]["batch_size"])


def _seed(row: Row) -> int:
    return int(row.config["training"]["seed"])
