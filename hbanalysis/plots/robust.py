"""Spectra of the original, the control and the robust models."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.lineup import MODELS
from hbanalysis.plots.style import grid, legend, line_key
from hbanalysis.store import Row
from hbanalysis.tables.frames import families

_PANELS = {"clean": "clean images", "own": "own attacked images"}
_SHOWN = ("ORI", "CLEAN+", "FGSM", "L2GRAD")
_MARKERS = dict(zip(MODELS, ("o", "s", "^", "D", "v", "P", "X"), strict=True))


def model_spectra(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the leading eigenvalues of every model, on clean images and on those of its own attack (Figs. 6, 12).

    Args:
        rows: Rows of `robust_spectrum`.

    Returns:
        The figure, and the plotted data: columns `scale`, `trained`, `loss` (clean or own), `model`, `number`, `value`
        (geometric mean over seeds).

    Raises:
        InputError: There is no row.
    """
    groups = families(rows)
    figure, axes = grid(list(groups), list(_PANELS.values()))
    lines: list[dict[str, Any]] = []
    for one, group in groups.items():
        for part, title in _PANELS.items():
            panel = axes[one, title]
            for name in MODELS:
                spectra = [r.values[part]["spectrum"] for r in group if r.config["model"] == name and r.values[part]]
                if spectra:
                    mean = np.exp(np.mean(np.log(np.maximum(spectra, np.finfo(float).tiny)), axis=0))
                    numbers = range(1, len(mean) + 1)
                    panel.plot(numbers, mean, color=_color(name), marker=_MARKERS[name], markersize=5)
                    place = {"scale": one.scale, "trained": one.title, "loss": part, "model": name}
                    lines += [place | {"number": n, "value": float(v)} for n, v in zip(numbers, mean, strict=True)]
            if not panel.lines:
                panel.text(0.5, 0.5, "not yet run", ha="center", transform=panel.transAxes)
                panel.set_axis_off()
            panel.set_yscale("log")
            panel.set_xlabel("eigenvalue number")
        axes[one, "clean images"].set_ylabel("eigenvalue")
    legend(figure, {}, "", [line_key(name, color=_color(name), marker=_MARKERS[name]) for name in MODELS])
    return figure, pd.DataFrame(lines)


def both_ends(rows: Sequence[Row], models: Sequence[str] = _SHOWN) -> tuple[Figure, pd.DataFrame]:
    """Draw both ends of the spectra of one sample, of a few and of all (Fig. 6), for some of the models.

    Args:
        rows: Rows of `robust_spectrum`.
        models: Which models.

    Returns:
        The figure, and the plotted data: columns `scale`, `trained`, `model`, `seed`, `samples`, `place` (from the
        largest, counted 1, 2, ..., to the smallest, counted ..., -2, -1), `value`.

    Raises:
        InputError: There is no row.
    """
    groups = families(rows)
    figure, axes = grid(list(groups), ["both ends"])
    lines: list[dict[str, Any]] = []
    for one, group in groups.items():
        panel, start, ticks = axes[one, "both ends"], 0, {}
        counts = sorted({entry["samples"] for row in group for entry in row.values["ends"]})
        for count in counts:
            width = 0
            for name in models:
                for row in (r for r in group if r.config["model"] == name):
                    values: list[float] = next((e["spectrum"] for e in row.values["ends"] if e["samples"] == count), [])
                    width = max(width, len(values))
                    places = start + np.arange(len(values))
                    panel.plot(places, values, color=_color(name), marker=_MARKERS[name], markersize=4, linewidth=0.8)
                    half = (len(values) + 1) // 2
                    numbers = [*range(1, half + 1), *range(half - len(values), 0)]
                    place = {"scale": one.scale, "trained": one.title, "model": name, "samples": count}
                    seed = row.config["training"]["seed"]
                    lines += [
                        place | {"seed": seed, "place": n, "value": v} for n, v in zip(numbers, values, strict=True)
                    ]
            ticks[start + (width - 1) / 2] = f"{count:,} sample{'s' if count > 1 else ''}"
            start += width + 3
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_yscale("symlog", linthresh=1e-3)
        panel.margins(y=0.06)
        panel.set_xticks(list(ticks), list(ticks.values()))
        panel.set_ylabel("eigenvalue")
    legend(figure, {}, "", [line_key(name, color=_color(name), marker=_MARKERS[name]) for name in models])
    return figure, pd.DataFrame(lines)


def _color(name: str) -> tuple[float, float, float, float]:
    """Grey for the original, black for the control, viridis for the robust models."""
    if name in MODELS[:2]:
        return ((0.55, 0.55, 0.55, 1.0), (0.0, 0.0, 0.0, 1.0))[MODELS.index(name)]
    return matplotlib.colormaps["viridis"](0.2 * (MODELS.index(name) - 2))
