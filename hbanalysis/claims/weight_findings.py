"""Findings on curvature in the weights: what the batch size changes, when, and at what is held equal."""

import math
from collections.abc import Sequence

import numpy as np

from hbanalysis import paper
from hbanalysis.claims import factorial
from hbanalysis.claims.again import commands
from hbanalysis.claims.finding import Finding, Line, interval_of, side, where, written
from hbanalysis.lineup import ABSA, ARMS, ATTACKS, CONTROL, LARGE, SMALL
from hbanalysis.store import Row
from hbanalysis.tables import adaptive_tables, dynamics, robust_spectra
from hbanalysis.tables.frames import distinct_titles, families

_RATE, _RATIO = "at a fixed learning rate", "at a fixed ratio of both"
_RULE = "A rule fixed beforehand calls what is left *{}*."


def ratio_and_curvature(rows: Sequence[Row]) -> Finding | None:
    """What doubling the batch does to the largest eigenvalue, at a fixed learning rate and at a fixed ratio."""
    lines, verdicts, groups = _doublings(rows, "K1")
    if not lines:
        return None
    title = {
        factorial.RATIO: "It is the ratio: with it held fixed, the batch does not move curvature",
        factorial.BATCH: "The batch size itself moves curvature, at a fixed ratio to the learning rate as well",
    }.get(verdicts[0], "At a fixed ratio to the learning rate, no effect of the batch on curvature is seen so far")
    lines = [Line(line.where, line.label, tuple(2**slope for slope in line.values)) for line in lines]
    rate, ratio = (written(interval_of(line.values, factor=True), ".2f") for line in lines[:2])
    return Finding(
        "ratio-and-curvature",
        title,
        f"When the batch doubles, $\\lambda_1$ on the training loss is multiplied by {rate} at a fixed learning rate, "
        f"as in the paper, and by {ratio} at a fixed ratio. {_RULE.format(verdicts[0])}",
        r"$\lambda_1$, factor when the batch doubles",
        tuple(lines),
        "13_learning_rate_or_batch_size",
        commands("learning_rate_factorial", rows, groups),
        reference=1.0,
        factor=True,
        form=".2f",
    )


def ratio_and_robustness(rows: Sequence[Row]) -> Finding | None:
    """What doubling the batch does to accuracy under FGSM, at a fixed learning rate and at a fixed ratio."""
    slopes, verdicts, groups = _doublings(rows, "K4")
    if not slopes:
        return None
    lines = [Line(line.where, line.label, tuple(math.log(2) * value for value in line.values)) for line in slopes]
    more = "more" if interval_of(lines[1].values).mean > 0 else "less"
    title = {
        factorial.RATIO: "With the ratio held fixed, the batch does not move robustness",
        factorial.BATCH: f"At a fixed ratio to the learning rate, larger batches are {more} robust",
    }.get(verdicts[0], "What the batch does to robustness at a fixed ratio is open")
    rate, ratio = (written(interval_of(line.values), "+.1f") for line in lines[:2])
    return Finding(
        "ratio-and-robustness",
        title,
        f"When the batch doubles, test accuracy under FGSM changes by {rate} points at a fixed learning rate and by "
        f"{ratio} at a fixed ratio. {_RULE.format(verdicts[0])}",
        "accuracy under FGSM, points when the batch doubles",
        tuple(lines),
        "13_learning_rate_or_batch_size",
        commands("learning_rate_factorial", rows, groups),
    )


def what_is_equal(rows: Sequence[Row]) -> Finding | None:
    """The largest eigenvalue of the largest batch over that of the smallest, at equal epochs, loss and steps."""
    lines: list[Line] = []
    found = {}
    for one, group in dynamics.groups(dynamics.plain(rows)).items():
        by_size = dynamics.held_equal(group)
        if by_size:
            size, ratios = next(reversed(by_size.items()))
            losses = [equal for equal in ratios if equal.startswith("loss")]
            shown = [equal for equal in ratios if equal not in losses[:-1]]
            place = f"{where(one)}, B = {size[0]} over {size[1]}"
            lines += [Line(place, f"at {equal}", tuple(ratios[equal])) for equal in sorted(shown)]
            found[one] = size
    if not lines:
        return None
    intervals = [interval_of(line.values, factor=True) for line in lines]
    if any(one.above(1.0) for one in intervals) and any(one.below(1.0) for one in intervals):
        title = "Whether a larger batch is sharper depends on what is held equal"
    else:
        title = {1: "A larger batch is sharper, whatever is held equal", -1: "A larger batch is flatter"}.get(
            side(lines, 1.0), "Whether a larger batch is sharper at equal loss, epochs and steps alike is open"
        )
    said = "; ".join(f"{line.label}: {written(one, '.2g')}" for line, one in zip(lines[:3], intervals, strict=False))
    large, small = next(iter(found.values()))
    return Finding(
        "what-is-equal",
        title,
        f"$\\lambda_1$ of the same trainings, with batches of {large} over that with batches of {small}: {said}.",
        r"$\lambda_1$ of the larger batch over the smaller's",
        tuple(lines),
        "07_training_dynamics",
        commands("training_dynamics", rows, found),
        reference=1.0,
        factor=True,
        form=".2g",
    )


def along_training(rows: Sequence[Row]) -> Finding | None:
    """What the last tenth of the loss does to the largest eigenvalue and to accuracy under FGSM (K11)."""
    limits = paper.criteria().claims["K11"].thresholds
    first, last = limits["loss_from"], limits["loss_to"]
    lines, moves, falls, groups = [], [], [], []
    for one, group in dynamics.groups(dynamics.plain(rows)).items():
        for size in sorted({row.config["training"]["batch_size"] for row in group}):
            ratios = []
            for row in (r for r in group if r.config["training"]["batch_size"] == size):
                measured, before = dynamics.fall_and_move(row, first, last), dynamics.at_crossing(row, first)
                if measured is not None and before is not None and before["fgsm_test"] > 0:
                    ratios.append((1 / measured[0], 1 + measured[1] / (100 * before["fgsm_test"])))
                    falls.append(measured[0])
                    moves.append(abs(measured[1]))
            for number, label in enumerate(("$\\lambda_1$", "accuracy under FGSM")):
                if ratios:
                    lines.append(Line(where(one), f"{label}, B = {size}", tuple(pair[number] for pair in ratios)))
                    groups.append(one)
    if not lines:
        return None
    apart = sum(
        fall >= limits["lambda1_fall_at_least"] and move < limits["accuracy_move_points_below"]
        for fall, move in zip(falls, moves, strict=True)
    )
    falling = sum(fall >= limits["lambda1_fall_at_least"] for fall in falls)
    enough = limits["share_of_runs"] * len(falls) - 1e-9
    if apart >= enough:
        title = "Along one training curvature falls, and robustness stays"
    elif falling < enough:
        title = "Along one training curvature hardly falls"
    else:
        title = "Along one training both move"
    return Finding(
        "along-training",
        title,
        f"Between losses {first:g} and {last:g}, $\\lambda_1$ falls {min(falls):.2g}- to {max(falls):.2g}-fold and "
        f"test accuracy under FGSM moves by at most {max(moves):.1f} points; in {apart} of {len(falls)} trainings "
        f"$\\lambda_1$ falls at least {limits['lambda1_fall_at_least']:g}-fold while accuracy moves by less than "
        f"{limits['accuracy_move_points_below']:g} points. The paper finds both strongly correlated between models.",
        f"value at loss {last:g} over that at {first:g}",
        tuple(lines),
        "07_training_dynamics",
        commands("training_dynamics", rows, groups),
        reference=1.0,
        factor=True,
        form=".2f",
    )


def robust_curvature(rows: Sequence[Row]) -> Finding | None:
    """The largest eigenvalue of robust models over that of the control, on the clean training loss (K7)."""
    lines, groups, losses = [], [], ""
    for one, group in families(rows).items():
        found = robust_spectra.log_ratios(group, 1).values()  # the middle is that of all five
        if not found:
            continue
        made = [Line(where(one), name, tuple(math.exp(seed[name]) for seed in found)) for name in ATTACKS]
        if not losses:
            table = robust_spectra.curvature(group).set_index("model")["loss"]
            robust = table[[line.label for line in made]]
            losses = f"{robust.min():.2g} to {robust.max():.2g}, the control's {table[CONTROL]:.2g}"
        lines += made
        groups.append(one)
    if not lines:
        return None
    title = {
        1: "Against the paper, robust models sit at *higher* curvature in the weights",
        -1: "Robust models sit at lower curvature in the weights, beside a control as well",
        0: "Robust models and their control differ in curvature in no one direction",
    }[side(lines, 1.0)]
    middle = tuple(float(np.median(values)) for values in zip(*(line.values for line in lines[:5]), strict=True))
    return Finding(
        "robust-curvature",
        title,
        f"$\\lambda_1$ on the clean training loss over that of {CONTROL}, which trained on without attacks: in the "
        f"middle of the five models {written(interval_of(middle, factor=True), '.3g')}. Their clean loss is {losses}.",
        f"$\\lambda_1$ over that of {CONTROL}",
        tuple(lines),
        "17_robust_curvature",
        commands("robust_spectrum", rows, groups),
        reference=1.0,
        factor=True,
        form=".3g",
    )


def growing_batches(rows: Sequence[Row]) -> Finding | None:
    """What batches that grow as curvature falls end with, over the small batch from start to end."""
    lines, groups, said = [], [], []
    for one, group in adaptive_tables.groups(rows).items():
        cells = {(r.config["arm"], adaptive_tables.seed(r)): r for r in group if r.values["at_target"]}
        seeds = [seed for arm, seed in cells if arm == SMALL and all((name, seed) in cells for name in ARMS)]
        if not seeds:
            continue
        groups.append(one)
        for arm in ARMS[1:]:
            ratios = tuple(_curvature(cells[arm, s]) / _curvature(cells[SMALL, s]) for s in seeds)
            lines.append(Line(where(one), f"{arm} over {SMALL}", ratios))
        against = interval_of([_curvature(cells[ABSA, s]) / _curvature(cells[LARGE, s]) for s in seeds], factor=True)
        steps, accuracy = (adaptive_tables.QUANTITIES[name][0] for name in ("SGD steps", "test accuracy (%)"))
        share = interval_of([steps(cells[ABSA, s]) / steps(cells[SMALL, s]) for s in seeds], factor=True)
        points = interval_of([accuracy(cells[ABSA, s]) - accuracy(cells[SMALL, s]) for s in seeds])
        losses = [
            interval_of([_loss(cells[arm, s]) / _loss(cells[SMALL, s]) for s in seeds], factor=True)
            for arm in (ABSA, LARGE)
        ]
        said.append((against, share, points, losses))
    if not lines:
        return None
    against, share, points, losses = said[0]
    apart = "lower" if against.below(1.0) else "higher" if against.above(1.0) else ""
    title = (
        f"Batches that grow end at {apart} curvature than large ones from the start"
        if apart
        else "Batches that grow and large ones end at curvatures that cannot be told apart"
    )
    return Finding(
        "growing-batches",
        title,
        f"{ABSA}, batches that grow as curvature falls with attacked images among them, ends at "
        f"{written(against, '.2g')} of the large batch's $\\lambda_1$ with {written(share, '.2g')} of the small one's "
        f"steps; its test accuracy minus the small one's is {written(points, '+.1f')} points. Curvature grows with "
        f"the loss, which ends at {written(losses[0], '.2g')} times the small batch's, with the large batch at "
        f"{written(losses[1], '.2g')} times. No criterion was fixed for this.",
        r"$\lambda_1$ at the end over the small batch's",
        tuple(lines),
        "11_absa",
        commands("absa", rows, groups),
        reference=1.0,
        factor=True,
        form=".3g",
    )


def _doublings(rows: Sequence[Row], claim: str) -> tuple[list[Line], list[str], list]:
    """Slopes on log B of a claim's outcome, one line for either way to hold things fixed, and what the rule says."""
    designs = factorial.designs(rows)
    titles = distinct_titles(designs)
    lines, verdicts, groups = [], [], []
    for one, group in designs.items():
        found = factorial.effects(group, factorial.OUTCOMES[claim][1])
        if found.fixed_rate:
            for label, slopes in ((_RATE, found.fixed_rate), (_RATIO, found.fixed_ratio)):
                lines.append(Line(where(one, titles[one]), label, slopes))
            verdicts.append(factorial.second_verdict(found))
            groups.append(one)
    return lines, verdicts, groups


def _loss(row: Row) -> float:
    return float(row.values["at_target"]["loss_train"])


def _curvature(row: Row) -> float:
    return float(row.values["at_target"]["lambda1_train"])
