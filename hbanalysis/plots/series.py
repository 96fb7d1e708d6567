"""Series of a figure: every seed's own values, then their mean and interval over seeds."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hbanalysis.plots.style import Look, line_key
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, reached
from hbanalysis.trends import t_interval

# Of two seeds the t-interval is 12.7 standard errors wide to either side: a picture of it, not of the seeds.
_BAND_SEEDS = 3
# What identifies a point beside its coordinates; `seed` is empty on a mean.
PLACE = ["scale", "network", "dataset", "setting"]


def place(one: Family) -> dict[str, str]:
    """The columns that say which family a line of plotted data belongs to."""
    setting = ", ".join(f"{name} {value}" for name, value in one.setting)
    return dict(zip(PLACE, (one.scale, one.network, one.dataset, setting), strict=True))


def cell(row: Row) -> dict[str, Any]:
    """The columns that say which cell of its family a row is."""
    training = row.config["training"]
    return {
        "batch_size": training["batch_size"],
        "seed": training["seed"],
        "status": row.values["status"],
    }


def of_family(data: pd.DataFrame, one: Family) -> pd.DataFrame:
    """The lines of plotted data that belong to a family."""
    return data[(data[PLACE] == pd.Series(place(one))).all(axis=1)]


def over_seeds(points: pd.DataFrame, by: Sequence[str], *, logarithmic: bool) -> pd.DataFrame:
    """Means over seeds with their 95 % t-intervals, one line for each group.

    With `logarithmic` the mean is geometric and the interval that of the logarithms; values that are not
    positive have no place on such an axis and must have been left out before. Points of trainings that did
    not reach their target loss (`status` other than "reached") enter no mean.

    Args:
        points: columns `by`, `seed`, `status`, `value`.
        by: what a group shares.
        logarithmic: take the mean of the logarithms.

    Returns:
        Columns `by`, `value`, `low`, `high`, `n`; `low` and `high` are NaN with fewer than two seeds.
    """
    lines: list[dict[str, Any]] = []
    for names, group in points[points["status"] == "reached"].groupby(list(by), sort=True):
        values = [math.log(v) if logarithmic else float(v) for v in group["value"]]
        interval = t_interval(values)
        ends = [math.nan if end is None else end for end in (interval.mean, interval.low, interval.high)]
        if logarithmic:
            ends = [math.exp(end) for end in ends]
        line = dict(zip(by, names if isinstance(names, tuple) else (names,), strict=True))
        lines.append(line | dict(zip(("value", "low", "high"), ends, strict=True)) | {"n": interval.n})
    return pd.DataFrame(lines, columns=[*by, "value", "low", "high", "n"])


def with_means(points: pd.DataFrame, by: Sequence[str], *, logarithmic: bool) -> pd.DataFrame:
    """Points of single seeds (`kind` "seed") and below them the means over seeds (`kind` "mean")."""
    means = over_seeds(points, by, logarithmic=logarithmic).assign(kind="mean")
    data = pd.concat([points.assign(kind="seed"), means], ignore_index=True)
    return data.astype({"seed": "Int64"})


def draw(axes: Axes, data: pd.DataFrame, x: str, look: Look, *, line: str = "-", marker: bool = True) -> None:
    """Draw one series: a thin line a seed, a thick line for the mean, a band for the interval of three seeds or more.

    Trainings that did not reach their target loss are hollow marks. Limits of the axes follow seeds and means alone.
    """
    for _, seed in data[data["kind"] == "seed"].groupby("seed"):
        ended = seed[seed["status"] == "reached"]
        axes.plot(ended[x], ended["value"], line, color=look.color, linewidth=0.8, alpha=0.6, zorder=2)
        axes.plot(ended[x], ended["value"], ".", color=look.color, markersize=3.5, alpha=0.7, zorder=2)
        capped = seed[seed["status"] != "reached"]
        axes.plot(
            capped[x],
            capped["value"],
            look.marker,
            markerfacecolor="white",
            markeredgecolor=look.color,
            zorder=4,
        )
    mean = data[data["kind"] == "mean"].sort_values(x)
    axes.plot(mean[x], mean["value"], line, color=look.color, marker=look.marker if marker else None, zorder=3)
    limits = axes.dataLim.frozen()
    _intervals(axes, mean, x, look)
    axes.dataLim.set(limits)


def _intervals(axes: Axes, mean: pd.DataFrame, x: str, look: Look) -> None:
    """Draw a band over neighbours with an interval, and a bar where neither neighbour has one."""
    known = mean["low"].notna() & mean["high"].notna() & (mean["n"] >= _BAND_SEEDS)
    for _, run in mean[known].groupby((~known).cumsum()[known]):
        if len(run) > 1:
            axes.fill_between(run[x], run["low"], run["high"], color=look.color, alpha=0.13, linewidth=0, zorder=1)
        else:
            axes.vlines(run[x], run["low"], run["high"], color=look.color, alpha=0.3, linewidth=5, zorder=1)


def not_drawn(rows: Sequence[Row]) -> str:
    """Which trainings of a family have nothing to draw, for a remark in its panel."""
    lost = [row for row in rows if not row.values.get("at_target")]
    cells = [f"B = {row.config['training']['batch_size']}, seed {row.config['training']['seed']}" for row in lost]
    return f"diverged: {'; '.join(cells)}" if cells else ""


def seed_keys(rows: Sequence[Row]) -> list[Line2D]:
    """Legend entries for what a figure of means shows beside them."""
    return [line_key("one seed", linewidth=0.8, marker="."), *stopped_key(rows)]


def stopped_key(rows: Sequence[Row]) -> list[Line2D]:
    """The legend entry of hollow marks, if a training was measured above its target loss."""
    ended = {row.key for row in reached(rows)}
    if any(row.values.get("at_target") and row.key not in ended for row in rows):
        return [line_key("stopped above the target loss", linestyle="", marker="o", markerfacecolor="white")]
    return []
