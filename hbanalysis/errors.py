"""What can go wrong, by who can mend it: the caller, the store, the numbers, or the clock."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the caller gave is wrong; the message says what, what is allowed and what to try."""


class MissingDataError(InputError):
    """A data set is not in the folder looked in; the message names the folder and the command that gets it."""


class StoreError(RuntimeError):
    """A row or checkpoint cannot be read or written; the message names the file."""


class NumericalError(ArithmeticError):
    """A loss, gradient or product is not finite; the message names the place."""


class NotebookError(RuntimeError):
    """A cell of a notebook raised an error, or a notebook cannot be published as it ran."""


class ConvergenceWarning(UserWarning):
    """An iterative method stopped before its tolerance was met; the partial result says how far it came."""


class GeneralPathWarning(UserWarning):
    """A network does not have the structure that an exact method needs; an iterative one was used, and it says why."""


class RankWarning(UserWarning):
    """A linear system has no unique solution; the one of least norm was returned."""


class OutOfTimeError(Exception):
    """Raised by a progress callback at a safe point to stop a computation; what was done is kept."""


def unknown_name(kind: str, given: object, allowed: Iterable[str]) -> InputError:
    """Return the error for a name that is not one of ``allowed``, nearest names first.

    Args:
        kind: What the name stands for, such as ``"network"``.
        given: What was given.
        allowed: The names that would have worked.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(given), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
    return InputError(f"Unknown {kind} {given!r}.{hint} Known: {', '.join(names)}.")


def require(condition: bool, message: str) -> None:
    """Raise `InputError` with ``message`` unless ``condition`` holds.

    Raises:
        InputError: ``condition`` is false.
    """
    if not condition:
        raise InputError(message)
