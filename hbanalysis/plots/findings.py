"""One small figure for each finding: seeds, mean and interval on one axis, with the number written beside each."""

import math

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hbanalysis.claims.finding import Finding, Line, plain
from hbanalysis.plots.style import house_style

# As wide as a phone, so that type keeps its size there.
_WIDTH = 4.9
_HEAD, _STEP, _FOOT = 0.34, 0.53, 0.75  # inches: a line of where, a value, the axis
_COLORS = ("#440154", "#21788c", "#b35806")
_SIZE = 11.5  # points
_BOLD, _LETTERS = 45, 48  # that fit beside one another at full size
# Numbers within a decade of a logarithmic axis, by the factor that the axis spans at most.
_TICKS = ((5.0, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)), (100.0, (1.0, 2.0, 5.0)), (math.inf, (1.0,)))
_MEAN_AT, _TEXT_AT = 0.12, -0.14  # inches below and above the middle of a value's place
_STRIP = 0.115  # inches: half the height of what a value's marks lie on


def finding(one: Finding) -> tuple[Figure, pd.DataFrame]:
    """Draw a finding.

    Returns:
        The figure, and the plotted data: columns `where`, `what`, `kind` (``seed``, or ``mean`` with the interval over
        seeds), `value`, `low`, `high`, `n`.
    """
    house_style()
    places = list(dict.fromkeys(line.where for line in one.lines))
    height = _HEAD * len(places) + _STEP * len(one.lines)
    figure = plt.figure(figsize=(_WIDTH, height + _FOOT))
    axes = figure.add_axes((0.04, (_FOOT - 0.05) / (height + _FOOT), 0.92, height / (height + _FOOT)))
    _axis(axes, one)
    axes.set_ylim(height, 0)
    down = 0.0
    for number, place in enumerate(places):
        color = _COLORS[number % len(_COLORS)]
        size = _SIZE * min(1.0, _BOLD / len(place))
        axes.text(0, down + 0.2, place, transform=axes.get_yaxis_transform(), fontsize=size, fontweight="bold")
        down += _HEAD
        for line in (line for line in one.lines if line.where == place):
            _draw(axes, one, line, down + _STEP / 2, color)
            down += _STEP
    return figure, _data(one)


def _axis(axes: Axes, one: Finding) -> None:
    if one.factor:
        axes.set_xscale("log")
    values = [value for line in one.lines for value in _drawn(one, line)]
    values += [] if one.reference is None else [one.reference]
    low, high = min(values), max(values)
    if one.factor:
        room = (high / low) ** 0.06 if high > low else 1.5
        axes.set_xlim(low / room, high * room)
        axes.xaxis.set_major_locator(LogLocator(subs=next(subs for most, subs in _TICKS if high / low < most)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        room = 0.06 * (high - low) if high > low else 1.0
        axes.set_xlim(low - room, high + room)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(one.axis, fontsize=12)
    axes.grid(False)


def _draw(axes: Axes, one: Finding, line: Line, middle: float, color: str) -> None:
    """Draw a value: its words, and below them a strip with its marks, so that no line crosses a word."""
    interval, across, said = one.interval(line), axes.get_yaxis_transform(), one.text(line)
    size = _SIZE * min(1.0, _LETTERS / (len(plain(line.label)) + len(said)))
    axes.text(0, middle + _TEXT_AT, line.label, transform=across, fontsize=size, va="center")
    axes.text(1, middle + _TEXT_AT, said, transform=across, fontsize=size, va="center", ha="right")
    height = middle + _MEAN_AT
    axes.axhspan(height - _STRIP, height + _STRIP, color="0.95", linewidth=0, zorder=0)
    if one.reference is not None:
        axes.vlines(one.reference, height - _STRIP, height + _STRIP, color="0.35", linewidth=1.3, zorder=1)
    if len(line.values) > 1:
        axes.plot(
            line.values, [height] * len(line.values), "o", color="white", markeredgecolor=color, markersize=5, zorder=4
        )
    if interval.low is not None and interval.high is not None:
        axes.plot([interval.low, interval.high], [height, height], color=color, linewidth=2.4, solid_capstyle="butt")
    axes.plot([interval.mean], [height], "D", color=color, markersize=7, zorder=3)


def _drawn(one: Finding, line: Line) -> list[float]:
    interval = one.interval(line)
    return [*line.values, *(end for end in (interval.low, interval.high) if end is not None)]


def _data(one: Finding) -> pd.DataFrame:
    lines = []
    for line in one.lines:
        place = {"where": line.where, "what": line.label.replace("$", "")}
        lines += [place | {"kind": one.unit, "value": value} for value in line.values]
        found = one.interval(line)
        lines.append(place | {"kind": "mean", "value": found.mean, "low": found.low, "high": found.high, "n": found.n})
    return pd.DataFrame(lines, columns=["where", "what", "kind", "value", "low", "high", "n"])
