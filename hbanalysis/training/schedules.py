"""Learning-rate schedules by name, as functions of the epoch."""

import re
from bisect import bisect_right

from hbanalysis.errors import InputError


def learning_rate(schedule: str, initial: float, epoch: int) -> float:
    """Return the learning rate of an epoch (counted from 0).

    Args:
        schedule: ``constant``; ``step(every, factor)``, the paper's adversarial study uses ``step(5, 0.5)``; or
            ``milestones(factor, epoch, ...)``, the authors' code has ``milestones(0.2, 30, 60)``.
        initial: Rate of epoch 0.
        epoch: The epoch, at least 0.

    Raises:
        InputError: The schedule is of none of these forms.

    Example:
        >>> [learning_rate("step(5, 0.5)", 0.01, epoch) for epoch in (0, 4, 5, 10)]
        [0.01, 0.01, 0.005, 0.0025]
    """
    if schedule == "constant":
        return initial
    match = re.fullmatch(r"(step|milestones)\(\s*([\d.]+(?:\s*,\s*[\d.]+)+)\s*\)", schedule)
    if match is None:
        raise InputError(f"Unknown schedule {schedule!r}. Use 'constant', 'step(5, 0.5)' or 'milestones(0.2, 30, 60)'.")
    numbers = [float(number) for number in match[2].split(",")]
    if match[1] == "step":
        if len(numbers) != 2 or numbers[0] < 1:
            raise InputError(
                f"step(every, factor) takes a number of epochs of at least 1 and a factor; given {schedule!r}."
            )
        return initial * numbers[1] ** (epoch // int(numbers[0]))
    return initial * numbers[0] ** bisect_right(sorted(numbers[1:]), epoch)
