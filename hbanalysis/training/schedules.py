"""Learning-rate schedules by name, as functions of the epoch."""

import math
import re
from bisect import bisect_right

from hbanalysis.errors import InputError

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"


def learning_rate(schedule: str, initial: float, epoch: int) -> float:
    """Return the learning rate of an epoch (counted from 0).

    Args:
        schedule: ``constant``; ``step(every, factor)``, the paper's adversarial study uses ``step(5, 0.5)``; or
            ``milestones(factor, epoch, ...)``, the authors' code has ``milestones(0.2, 30, 60)``.
        initial: Rate of epoch 0.
        epoch: The epoch, at least 0.

    Raises:
        InputError: The schedule is of none of these forms, or its factor lies outside (0, 1].

    Example:
        >>> [learning_rate("step(5, 0.5)", 0.01, epoch) for epoch in (0, 4, 5, 10)]
        [0.01, 0.01, 0.005, 0.0025]
    """
    if schedule == "constant":
        return initial
    match = re.fullmatch(rf"(step|milestones)\(\s*((?:{_NUMBER})(?:\s*,\s*(?:{_NUMBER}))+)\s*\)", schedule, re.ASCII)
    if match is None:
        raise InputError(f"Unknown schedule {schedule!r}. Use 'constant', 'step(5, 0.5)' or 'milestones(0.2, 30, 60)'.")
    numbers = [float(number) for number in match[2].split(",")]
    factor = numbers[1 if match[1] == "step" else 0]
    if not 0 < factor <= 1:
        raise InputError(f"The factor of a schedule must lie in (0, 1]; given {factor:g} in {schedule!r}.")
    if match[1] == "step":
        if len(numbers) != 2 or not 1 <= numbers[0] < math.inf:
            raise InputError(
                f"step(every, factor) takes a number of epochs of at least 1 and a factor; given {schedule!r}."
            )
        return initial * numbers[1] ** (epoch // int(numbers[0]))
    return initial * numbers[0] ** bisect_right(sorted(numbers[1:]), epoch)
