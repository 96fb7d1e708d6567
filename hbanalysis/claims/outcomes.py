"""The words of a verdict, as the criteria have them, and what stands where rows of a smaller scale have none."""

from collections.abc import Sequence

REPRODUCED, PARTLY, NOT_REPRODUCED = "reproduced", "partly", "not reproduced"
UNDECIDED, NOT_YET_RUN = "undecided", "not yet run"
NO_VERDICT = "none: the paper's scale decides"


def direction(signs: Sequence[bool]) -> str:
    """Say whether effects have the claim's sign, from whether each seed's has.

    Example:
        >>> direction([True, True]), direction([True, False]), direction([False])
        ('yes', 'mixed', 'no')
    """
    if all(signs):
        return "yes"
    return "mixed" if any(signs) else "no"
