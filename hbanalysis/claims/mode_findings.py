"""Findings on batch normalisation: whether the effect of the batch size depends on whose statistics normalise."""

from collections.abc import Sequence

from hbanalysis.claims.again import commands
from hbanalysis.claims.finding import Finding, Line, interval_of, side, where, written
from hbanalysis.lineup import COMMON, EVAL, MODES, OWN
from hbanalysis.store import Row
from hbanalysis.tables import modes

_NAMES = {EVAL: "eval mode", OWN: "train mode, its own batch"}
_TITLES = {
    (1, 1): "In train mode, too, larger batches end at larger curvature",
    (-1, -1): "Larger batches end at smaller curvature, in eval and in train mode",
    (1, 0): "Larger batches are sharper in eval mode, and in train mode not in every case",
    (1, -1): "Larger batches are sharper in eval mode and flatter in train mode",
    (-1, 1): "Larger batches are flatter in eval mode and sharper in train mode",
}
_OPEN = "Whether larger batches end sharper in eval and in train mode alike is open"
_LARGE = 2.0  # a factor of curvature between modes from which on they are called far apart


def eval_and_train(rows: Sequence[Row]) -> Finding | None:
    """The largest eigenvalue of the largest batch over that of the smallest, in three modes of batch normalisation."""
    lines, found, said = [], [], ""
    for one, group in modes.groups(rows).items():
        ratios = {mode: modes.of_largest_batch(group, mode) for mode in MODES}
        if not ratios[EVAL]:
            continue
        _, large, small = next(iter(ratios[EVAL].values()))
        place = f"{where(one)}, B = {large} over {small}"
        shared = group[0].config["measure"]["common_batch"]
        for mode in MODES:
            label = f"train mode, {shared} for both" if mode == COMMON else _NAMES[mode]
            lines.append(Line(place, label, tuple(ratio for ratio, _, _ in ratios[mode].values())))
        said = said or _per_loss(group)
        found.append(one)
    if not lines:
        return None
    by_mode = {mode: side([line for line in lines if line.label == _NAMES[mode]], 1.0) for mode in (EVAL, OWN)}
    title = _TITLES.get((by_mode[EVAL], by_mode[OWN]), _OPEN)
    if all(len(line.values) == 1 for line in lines):
        title += " (one seed)"
    factors = [f"{_plainly(line.values, '.3g')} ({line.label})" for line in lines[:3]]
    return Finding(
        "eval-and-train",
        title,
        "Training normalises each batch by its own statistics; the paper's Hessians, and those of this book, use "
        "running ones, and are those of another function. $\\lambda_1$ at the largest batch over that at the smallest, "
        f"{lines[0].where.partition(', B')[0]}: {', '.join(factors)}. {said}",
        r"$\lambda_1$ of the largest batch over the smallest's",
        tuple(lines),
        "16_batch_normalisation",
        commands("batch_statistics", rows, found),
        reference=1.0,
        factor=True,
        form=".3g",
    )


def sentences(rows: Sequence[Row]) -> dict[str, list[str]]:
    """Return what the rows say of each family: direction, size, loss and gradient, signs, and scale; by its title."""
    found = {}
    for one, group in modes.groups(rows).items():
        parts = (_direction(group), _beside(group, ""), _losses(group), _signs(group), _filters(group))
        found[where(one)] = [part for part in parts if part]
    return found


def _direction(rows: Sequence[Row]) -> str:
    """Say by what lambda1, and lambda1 over the loss, is multiplied from the smallest batch to the largest."""
    parts = []
    for over_loss, text in ((False, "lambda1"), (True, "lambda1 over the loss of the same mode")):
        words = []
        for mode, name in {**_NAMES, COMMON: f"train mode with {_common(rows)} for all"}.items():
            ratios = [ratio for ratio, _, _ in modes.of_largest_batch(rows, mode, over_loss=over_loss).values()]
            if ratios:
                words.append(f"{written(interval_of(ratios, factor=True), '.2g')} in {name}")
        if words:
            parts.append(f"{text} is multiplied by {', '.join(words)}")
    return f"From the smallest batch to the largest {'; '.join(parts)}." if parts else ""


def _per_loss(rows: Sequence[Row]) -> str:
    """Say the same of lambda1 over the loss, on which curvature depends, in the order of the modes."""
    words = []
    for mode in MODES:
        ratios = modes.of_largest_batch(rows, mode, over_loss=True).values()
        words.append(_plainly([ratio for ratio, _, _ in ratios], ".2g"))
    return f"Over the loss of the same mode these factors are {', '.join(words)}."


def _plainly(values: Sequence[float], form: str) -> str:
    """A factor with its interval, without a note where it is of one seed: the title says so then."""
    return written(interval_of(values, factor=True), form).removesuffix(" (one seed)")


def _beside(rows: Sequence[Row], title: str) -> str:
    """Say how lambda1 in train mode stands to lambda1 in eval mode, batch size by batch size."""
    ratios = modes.over_eval(rows, "lambda1")
    if not ratios:
        return ""
    shown = ", ".join(
        f"{written(interval_of(values, factor=True), '.2g')} at B = {size}" for size, values in ratios.items()
    )
    place = f" of {title}" if title else ""
    every = [value for values in ratios.values() for value in values]
    far = max(max(every), 1 / min(every)) >= _LARGE
    end = "The two can be far apart." if far else f"The two differ by less than a factor of {_LARGE:g}."
    return f"With its own batch lambda1{place} in train mode is, as a multiple of that in eval mode, {shown}. {end}"


def _losses(rows: Sequence[Row]) -> str:
    """Say how train-mode loss and gradient stand to those in eval mode."""
    words = []
    for name, text in (("loss", "the loss"), ("gradient_norm", "the norm of the gradient")):
        every = [value for values in modes.over_eval(rows, name).values() for value in values]
        if every:
            words.append(f"{text} is {min(every):.2g} to {max(every):.2g} times")
    return f"In train mode {' and '.join(words)} what it is in eval mode." if words else ""


def _signs(rows: Sequence[Row]) -> str:
    """Say how far the spectra reach below zero."""
    words = []
    for mode, name in _NAMES.items():
        shares = [-row.values[mode]["smallest"] / row.values[mode]["spectrum"][0] for row in modes.measured(rows)]
        words.append(f"{max(shares):.2g} in {name}")
    return f"The most negative eigenvalue is at most so many times lambda1 in size: {', '.join(words)}."


def _filters(rows: Sequence[Row]) -> str:
    """Say what a change of scale of the first filters meets."""
    words = []
    for mode, name in _NAMES.items():
        shares = [
            abs(row.values[mode]["curvature_along_filters"]) / row.values[mode]["spectrum"][0]
            for row in modes.measured(rows)
        ]
        words.append(f"at most {max(shares):.1g} of lambda1 in {name}")
    return f"Along the scale of the first filters the curvature is {', '.join(words)}."


def _common(rows: Sequence[Row]) -> int:
    return int(rows[0].config["measure"]["common_batch"])
