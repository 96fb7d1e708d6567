"""What the terminal shows while cells are computed: one bar with study, cell, phase and time left.

The bar is weighted by the studies' cost estimates. Where standard error is not a terminal there is no bar,
only one line a finished cell.
"""

import sys
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

_FORMAT = "{percentage:3.0f}% |{bar:24}| {elapsed}, {remaining} left: {desc}"


def duration(seconds: float) -> str:
    """Write a time span for people.

    Example:
        >>> duration(4.21), duration(74), duration(4000)
        ('4.2 s', '1 min 14 s', '1 h 06 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Display:
    """A progress bar over several cells on standard error, owned by one process."""

    def __init__(self, costs: Mapping[str, float], show: bool | None = None) -> None:
        """Prepare the display.

        Args:
            costs: Estimated CPU-seconds of every cell to compute, by key.
            show: ``False`` for silence; ``None`` for a bar on a terminal and lines elsewhere.
        """
        self._costs = {key: max(cost, 1e-6) for key, cost in costs.items()}
        self._finished = 0
        self._running: dict[str, tuple[str, float]] = {}
        self._passed = 0.0
        self._silent = show is False
        self._bar: tqdm | None = None
        if not self._silent and sys.stderr.isatty() and costs:
            self._bar = tqdm(
                total=sum(self._costs.values()),
                file=sys.stderr,
                bar_format=_FORMAT,
                leave=False,
                dynamic_ncols=True,
            )

    def progress(self, key: str, label: str, phase: str, fraction: float) -> None:
        """Show how far one cell has come; ``fraction`` is of the whole cell, in [0, 1]."""
        self._running[key] = (f"{label}, {phase}", self._costs[key] * min(max(fraction, 0.0), 1.0))
        self._draw()

    def finished(self, key: str, line: str) -> None:
        """Write one line for a cell that needs no more work, whatever became of it."""
        self._running.pop(key, None)
        self._passed += self._costs[key]
        self._finished += 1
        self.say(f"[{self._finished}/{len(self._costs)}] {line}")
        self._draw()

    def idle(self, key: str) -> None:
        """Take a cell off the bar that has to be tried again."""
        self._running.pop(key, None)
        self._draw()

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def _draw(self) -> None:
        if self._bar is None:
            return
        shown = [text for text, _ in self._running.values()]
        self._bar.set_description_str(" | ".join(shown), refresh=False)
        # Set rather than added up, so that a resumed cell may jump; without `update` tqdm shows the mean
        # rate.
        self._bar.n = self._passed + sum(done for _, done in self._running.values())
        self._bar.refresh()

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
