"""The house style: what every figure of the book has in common."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from hbanalysis.errors import InputError
from hbanalysis.tables.frames import Family, distinct_titles

# Wide enough for two panels, with type that is still legible when a phone shows the page 360 px wide.
PANEL_WIDTH = 3.6
PANEL_HEIGHT = 3.5
# Panels below one another: as wide as a phone, so that type keeps its size there.
STACKED_WIDTH = 4.4
STACKED_HEIGHT = 2.9
_LETTERS = 34  # of two labels beside one another
STACKED = "stacked"  # label of a figure drawn so
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
# The light end of viridis is too pale for a line on white, and too dim for one on black when a page is inverted.
_LIGHTEST = 0.65
# Numbers within a decade of a logarithmic axis, by the factor that the axis spans at most.
_TICKS = (
    (4.0, tuple(map(float, range(1, 10)))),
    (50.0, (1.0, 2.0, 5.0)),
    (500.0, (1.0, 3.0)),
    (math.inf, (1.0,)),
)
# Colours that are told apart on white, and on black when a page is inverted.
GREY, BLACK, BLUE, GREEN = "#7f7f7f", "#222222", "#0f62c4", "#1a8a3c"
ORANGE, PINK, PURPLE = "#e07b00", "#d94fa0", "#8347d1"
_stacked: ContextVar[bool] = ContextVar("stacked", default=False)


@dataclass(frozen=True)
class Look:
    """Colour and marker of one series; either is enough to tell it from the others."""

    color: tuple[float, float, float, float]
    marker: str


def house_style() -> None:
    """Set matplotlib and seaborn to the book's style: white ground, large type, light grid.

    Example:
        >>> house_style()
        >>> plt.rcParams["figure.facecolor"]
        'white'
    """
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "font.size": 13,
            "axes.titlesize": 13,
            "axes.labelsize": 13,
            "axes.labelpad": 7,
            "xtick.labelsize": 12,
            "ytick.labelsize": 12,
            "legend.fontsize": 12,
            "legend.title_fontsize": 12,
            "legend.frameon": False,
            "axes.facecolor": "white",
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.dpi": 110,
            "figure.facecolor": "white",
            "grid.color": "0.9",
            "lines.linewidth": 2.0,
            "lines.markersize": 6.5,
            "savefig.facecolor": "white",
        },
    )


def batch_looks(batch_sizes: Iterable[int]) -> dict[int, Look]:
    """A colour from viridis and a marker of its own for each batch size, in order.

    The largest is the darkest, and the brightest where a page is inverted.

    Example:
        >>> looks = batch_looks([256, 16])
        >>> list(looks), looks[16].marker
        ([16, 256], 'o')
    """
    ordered = sorted({int(size) for size in batch_sizes})
    return dict(zip(ordered, _looks(len(ordered)), strict=True))


def level_looks(levels: Iterable[float]) -> dict[float, Look]:
    """As `batch_looks`, for the levels of another ordered quantity such as an attack's strength."""
    ordered = sorted({float(level) for level in levels})
    return dict(zip(ordered, _looks(len(ordered)), strict=True))


def grid(
    families: Sequence[Family], columns: Sequence[str], *, share_y: str | bool = "row"
) -> tuple[Figure, dict[tuple[Family, str], Axes]]:
    """A figure with one line of panels for each family and one column for each name.

    Each line is headed by what was trained and by its scale; each panel by the column's name.

    Raises:
        InputError: there is no family, so nothing to draw.
    """
    if not families:
        raise InputError("There is no measured row to draw. Compute the study first: `hbanalysis run STUDY`.")
    house_style()
    below = is_stacked() and len(columns) > 1
    if below:
        width, height = STACKED_WIDTH, (STACKED_HEIGHT * len(columns) + 0.55) * len(families) + 0.8
    else:
        width, height = PANEL_WIDTH * max(len(columns), 1.55), (PANEL_HEIGHT + 0.55) * len(families)
    figure = plt.figure(figsize=(width, height), layout="constrained", label=STACKED if below else "")
    titles = distinct_titles(families)
    axes: dict[tuple[Family, str], Axes] = {}
    parts = figure.subfigures(len(families), 1, squeeze=False)[:, 0]
    for one, part in zip(families, parts, strict=True):
        part.suptitle(f"{titles[one]}\n{one.scale_label}", fontsize=12 if below else 13, fontweight="bold")
        if below:
            panels = part.subplots(len(columns), 1, squeeze=False, sharey=bool(share_y))[:, 0]
        else:
            panels = part.subplots(1, len(columns), squeeze=False, sharey=share_y)[0]
        for name, panel in zip(columns, panels, strict=True):
            if len(columns) > 1:
                panel.set_title(name)
            axes[one, name] = panel
    return figure, axes


@contextlib.contextmanager
def stacked() -> Iterator[None]:
    """Let figures that are drawn inside have their panels below one another, for a screen a hand wide.

    Example:
        >>> with stacked():
        ...     is_stacked()
        True
        >>> is_stacked()
        False
    """
    token = _stacked.set(True)
    try:
        yield
    finally:
        _stacked.reset(token)


def is_stacked() -> bool:
    """Whether panels go below one another here, see `stacked`."""
    return _stacked.get()


def legend(
    figure: Figure, looks: Mapping[int, Look] | Mapping[float, Look], title: str, extra: Sequence[Line2D] = ()
) -> None:
    """One legend for the whole figure, below the panels: markers first, then what the line styles mean."""
    handles = [
        Line2D([], [], color=look.color, marker=look.marker, label=f"{level:g}") for level, look in looks.items()
    ]
    handles += list(extra)
    figure.legend(
        handles=handles,
        title=title,
        loc="outside lower center",
        ncols=min(len(handles), _legend_columns(figure, [str(handle.get_label()) for handle in handles])),
        columnspacing=1.2,
        handletextpad=0.5,
    )


def batch_axis(axes: Axes, batch_sizes: Iterable[int]) -> None:
    """A logarithmic axis of batch sizes whose ticks are the batch sizes themselves."""
    ticks = sorted(set(batch_sizes))
    # Seven four-digit labels are what a panel can hold side by side.
    shown = ticks[:: math.ceil(len(ticks) / 7)]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(shown))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("batch size")


def plain_numbers(axes: Axes) -> None:
    """Write 0.5, 1, 2 on a logarithmic vertical axis whose data are drawn, in place of powers of ten."""
    low, high = axes.get_ylim()
    subs = next(subs for most, subs in _TICKS if high / low < most)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def remark(axes: Axes, text: str) -> None:
    """A small remark under a line of panels: what could not be drawn, and why; nothing if there is nothing to say."""
    part = axes.get_figure(root=False)
    if text and part is not None:
        part.supxlabel(text, fontsize=10.5, color="0.25")


def line_key(label: str, **style: Any) -> Line2D:
    """A grey legend entry that explains a line style or marker."""
    return Line2D([], [], **{"color": "0.35", "label": label, **style})


def _legend_columns(figure: Figure, labels: Sequence[str]) -> int:
    if figure.get_label() == STACKED:
        return 2 if sum(sorted(map(len, labels))[-2:]) <= _LETTERS else 1
    return 3 if figure.get_figwidth() > 6.5 else 2


def _looks(count: int) -> list[Look]:
    colours = matplotlib.colormaps["viridis"]
    steps = max(count - 1, 1)
    return [Look(colours(_LIGHTEST * (count - 1 - i) / steps), _MARKERS[i % len(_MARKERS)]) for i in range(count)]
