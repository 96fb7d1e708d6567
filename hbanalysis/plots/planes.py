"""Fig. 3, flat: the loss over a plane as contours, the quadratic model over it, and where the two part."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hbanalysis.errors import InputError
from hbanalysis.plots.series import PLACE, cell, draw, not_drawn, of_family, place, seed_keys, with_means
from hbanalysis.plots.style import batch_axis, batch_looks, grid, legend, level_looks, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.flatness import LIMIT, MEASURES, along_axes, quadratic, with_planes
from hbanalysis.tables.frames import Family, families

_AXES = {
    "eigenvectors": (r"$a$, along $v_1$", r"$b$, along $v_2$"),
    "filters": (r"$a$, along $d_1$", r"$b$, along $d_2$"),
}
_LOSSES = {"loss_train": "training loss", "loss_test": "test loss"}


def contours(rows: Sequence[Row], plane: str = "eigenvectors") -> tuple[Figure, pd.DataFrame]:
    """Training and test loss over a plane as filled contours, and the quadratic model as lines (Fig. 3, flat).

    Shown is the first seed of each batch size that has planes. The lines belong to the same levels as the edges of the
    colours of the training loss: where they leave them, the second-order picture has ended.

    Args:
        rows: Rows of `loss_landscape`.
        plane: ``"eigenvectors"`` or ``"filters"``.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`, `seed`, `a`,
        `b`, `loss_train`, `loss_test`, `quadratic`.

    Raises:
        InputError: An unknown plane, or no row has planes.
    """
    if plane not in _AXES:
        raise InputError(f"The plane is one of {', '.join(_AXES)}; given {plane!r}.")
    chosen = _first_seeds(rows)
    figure, axes = grid(list(chosen), list(_LOSSES.values()))
    frames = []
    for one, row in chosen.items():
        found = row.values["planes"][plane]
        t, fine = np.asarray(found["t"]), np.linspace(found["t"][0], found["t"][-1], 201)
        losses = {name: _positive(found[name]) for name in _LOSSES}
        # Every batch size of a family has the same colours.
        levels = _levels(
            [
                _positive(r.values["planes"][plane][n])
                for f, r in chosen.items()
                if f.title == one.title
                for n in _LOSSES
            ]
        )
        for name, title in _LOSSES.items():
            panel = axes[one, title]
            # Contours are straight between points, which the logarithm of a loss nearly is and the loss is not.
            filled = panel.contourf(t, t, np.log10(losses[name]).T, levels, cmap="viridis", extend="both")
            panel.plot(0, 0, "+", color="white", markersize=9)
            panel.set_xlabel(_AXES[plane][0])
            panel.grid(visible=False)
        train = axes[one, "training loss"]
        train.set_ylabel(_AXES[plane][1])
        predicted = np.log10(_positive(quadratic(found, fine)))
        train.contour(fine, fine, predicted.T, levels, colors="white", linewidths=1.0, linestyles="dashed")
        bar = figure.colorbar(filled, ax=[axes[one, title] for title in _LOSSES.values()])
        bar.set_ticks([level for level in levels if level == round(level)])
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"$10^{{{value:.0f}}}$"))
        bar.ax.set_title("loss", fontsize=12)
        frames.append(_table(one, row, t, losses, quadratic(found)))
    legend(figure, {}, "", [line_key("quadratic model of the training loss", linestyle="--")])
    return figure, pd.concat(frames, ignore_index=True)


def second_order(rows: Sequence[Row], plane: str = "eigenvectors") -> tuple[Figure, pd.DataFrame]:
    """The relative error of the quadratic model along both axes of a plane.

    One line a seed and side: solid for the positive, dashed for the negative side of an axis.

    Args:
        rows: Rows of `loss_landscape`.
        plane: ``"eigenvectors"`` or ``"filters"``.

    Returns:
        The figure, and the plotted data: those of `flatness.along_axes` for this plane, ``trained`` for the family.

    Raises:
        InputError: No row has planes.
    """
    points = along_axes(rows)
    points = points[points["plane"] == plane]
    groups = families(with_planes(rows))
    titles = (r"along $v_1$", r"along $v_2$") if plane == "eigenvectors" else (r"along $d_1$", r"along $d_2$")
    figure, axes = grid(list(groups), titles)
    looks = batch_looks(points["batch_size"])
    for one in groups:
        mine = points[[family == one for family in points["family"]]]
        for _, line in mine.groupby(["axis", "batch_size", "seed"]):
            head = line.iloc[0]
            panel, look = axes[one, titles[head["axis"] - 1]], looks[head["batch_size"]]
            for side, style in ((1, "-"), (-1, "--")):
                part = line[np.sign(line["t"]) == side]
                t, error = part["t"].abs(), part["error"]
                panel.plot(t, error, style, color=look.color, marker=look.marker, markersize=4, linewidth=1.2)
        for title in titles:
            axes[one, title].set_xscale("log")
            axes[one, title].set_yscale("log")
            axes[one, title].axhline(LIMIT, color="0.4", linestyle=":", linewidth=1.2)
            axes[one, title].set_xlabel("distance from the weights")
        axes[one, titles[0]].set_ylabel("relative error of the model")
    keys = [line_key("positive side"), line_key("negative side", linestyle="--"), line_key("a tenth", linestyle=":")]
    legend(figure, looks, "batch size", keys)
    return figure, points.assign(trained=[one.title for one in points["family"]]).drop(columns="family")


def scale_free_vs_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Curvature with and without the scale of the weights against the batch size, over that at the smallest one.

    Args:
        rows: Rows of `loss_landscape`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `measure`, `batch_size`,
        `seed`, `status`, `value` (over the same seed's at its smallest batch size), `kind`, `low`, `high`, `n`.

    Raises:
        InputError: No row has been measured.
    """
    points = []
    for one, group in families(rows).items():
        starts: dict[int, dict] = {}
        for row in group:
            if not row.values["at_target"]:
                continue
            found = row.values["at_target"]
            start = starts.setdefault(row.config["training"]["seed"], found)
            for name, text in MEASURES.items():
                if found[name] > 0 and start[name] > 0:
                    points.append(place(one) | cell(row) | {"measure": text, "value": found[name] / start[name]})
    by = [*PLACE, "measure", "batch_size"]
    data = with_means(pd.DataFrame(points, columns=[*by, "seed", "status", "value"]), by, logarithmic=True)
    chosen = [one for one in families(rows) if of_family(data, one).size]
    figure, axes = grid(chosen, ["scale"])
    looks = dict(zip(MEASURES.values(), level_looks(range(len(MEASURES))).values(), strict=True))
    for one in chosen:
        panel, part = axes[one, "scale"], of_family(data, one)
        for text, look in looks.items():
            draw(panel, part[part["measure"] == text], "batch_size", look)
        panel.set_yscale("log")
        batch_axis(panel, part["batch_size"])
        panel.set_ylabel("over its value at\nthe smallest batch size")
        remark(panel, not_drawn(families(rows)[one]))
    keys = [line_key(text, color=look.color, marker=look.marker) for text, look in looks.items()]
    legend(figure, {}, "", [*keys, *seed_keys(rows)])
    return figure, data


def _first_seeds(rows: Sequence[Row]) -> dict[Family, Row]:
    """The first seed of each batch size that has planes; the batch size becomes part of the family's setting."""
    found: dict[Family, Row] = {}
    for one, group in families(with_planes(rows)).items():
        for row in group:
            size = row.config["training"]["batch_size"]
            found.setdefault(replace(one, setting=(*one.setting, ("batch_size", size))), row)
    return found


def _positive(values: Any) -> np.ndarray:
    """Values for a logarithmic scale: the quadratic model may fall below 0, and a loss may be 0 in single precision."""
    return np.maximum(np.asarray(values, dtype=float), 1e-12)


def _levels(losses: Sequence[np.ndarray]) -> np.ndarray:
    """Edges of colours, decimal logarithms: half decades from below the smallest loss to above the largest."""
    low, high = min(float(part.min()) for part in losses), max(float(part.max()) for part in losses)
    first, last = np.floor(2 * np.log10(low)), np.ceil(2 * np.log10(high))
    return np.arange(first, max(last, first + 1) + 1) / 2


def _table(one: Family, row: Row, t: np.ndarray, losses: dict[str, np.ndarray], model: np.ndarray) -> pd.DataFrame:
    a, b = np.meshgrid(t, t, indexing="ij")
    values = {"a": a.ravel(), "b": b.ravel(), **{name: part.ravel() for name, part in losses.items()}}
    return pd.DataFrame(place(one) | cell(row) | values | {"quadratic": model.ravel()})
