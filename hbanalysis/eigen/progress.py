"""One line on a terminal for a run of products: how many, how far, how long still. Silent elsewhere."""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REMEMBERED = 12  # steps that the forecast looks back


@contextmanager
def terminal_line(show: Callable[[float, float], None] | None) -> Iterator[Callable[[float, float], None]]:
    """Yield ``show``, or a line on standard error if it is a terminal, or nothing."""
    if show is not None:
        yield show
    elif sys.stderr.isatty():
        line = Line()
        try:
            yield line
        finally:
            line.close()
    else:
        yield lambda done, worst: None


class Line:
    """Writes products done, the worst bound and a forecast over one and the same line."""

    def __init__(self) -> None:
        self._history: deque[tuple[float, float, float]] = deque(maxlen=REMEMBERED)

    def __call__(self, done: float, worst: float) -> None:
        """Show the state after ``done`` products; ``worst`` is relative to the tolerance, nan during the check."""
        self._history.append((time.monotonic(), done, worst))
        text = f"{done:g} products, "
        if math.isnan(worst):
            text += "looking for missing eigenvalues"
        elif math.isinf(worst):
            text += "not all values found yet"
        else:
            text += f"worst bound {worst:.3g} times its tolerance{self._forecast()}"
        sys.stderr.write(f"\r{text:<78}")
        sys.stderr.flush()

    def close(self) -> None:
        """Clear the line."""
        sys.stderr.write("\r" + " " * 78 + "\r")
        sys.stderr.flush()

    def _forecast(self) -> str:
        """Return the time left if the bound goes on to fall as it did over the last steps."""
        (start, _, first), (now, _, last) = self._history[0], self._history[-1]
        if not (math.isfinite(first) and 1.0 < last < first):
            return ""
        seconds = (now - start) * math.log(last) / math.log(first / last)
        return f", about {seconds:.0f} s left" if seconds < 100 else f", about {seconds / 60:.0f} min left"
