"""Spectra of the original, the control and the robust models."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.lineup import MODELS
from hbanalysis.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, PURPLE, grid, legend, line_key
from hbanalysis.store import Row
from hbanalysis.tables.frames import families

_PANELS = {"clean": "clean images", "own": "own attacked images"}
_SHOWN = ("ORI", "CLEAN+", "FGSM", "L2GRAD")
_MARKERS = dict(zip(MODELS, ("o", "s", "^", "D", "v", "P", "X"), strict=True))
_COLORS = dict(zip(MODELS, (GREY, BLACK, PINK, PURPLE, GREEN, BLUE, ORANGE), strict=True))
_COLUMN = 0.8  # width of the dots of a model, where its neighbours are 1 away


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
                    panel.plot(numbers, mean, color=_COLORS[name], marker=_MARKERS[name], markersize=5)
                    place = {"scale": one.scale, "trained": one.title, "loss": part, "model": name}
                    lines += [place | {"number": n, "value": float(v)} for n, v in zip(numbers, mean, strict=True)]
            if not panel.lines:
                panel.text(0.5, 0.5, "not yet run", ha="center", transform=panel.transAxes)
                panel.set_axis_off()
            panel.set_yscale("log")
            panel.set_xlabel("eigenvalue number")
        axes[one, "clean images"].set_ylabel("eigenvalue")
    legend(figure, {}, "", [line_key(name, color=_COLORS[name], marker=_MARKERS[name]) for name in MODELS])
    return figure, pd.DataFrame(lines)


def both_ends(rows: Sequence[Row], models: Sequence[str] = _SHOWN) -> tuple[Figure, pd.DataFrame]:
    """Draw both ends of the spectra of one sample, of a few and of all (Fig. 6), a column of dots a model.

    Seeds stand beside one another in the column of their model.

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
        panel = axes[one, "both ends"]
        counts = sorted({entry["samples"] for row in group for entry in row.values["ends"]})
        starts = [number * (len(models) + 1.5) for number in range(len(counts))]
        for start, count in zip(starts, counts, strict=True):
            for column, name in enumerate(models):
                for values, seed, place in _ends(group, name, count):
                    panel.plot([start + column + place] * len(values), values, **_dots(name))
                    known = {"scale": one.scale, "trained": one.title, "model": name, "seed": seed, "samples": count}
                    half = (len(values) + 1) // 2
                    numbers = [*range(1, half + 1), *range(half - len(values), 0)]
                    lines += [known | {"place": n, "value": v} for n, v in zip(numbers, values, strict=True)]
        panel.axhline(0, color="0.4", linewidth=1)
        panel.set_yscale("symlog", linthresh=1e-3)
        panel.margins(y=0.06)
        panel.grid(False, axis="x")
        titles = [f"{count:,} sample{'s' if count > 1 else ''}" for count in counts]
        panel.set_xticks([start + (len(models) - 1) / 2 for start in starts], titles)
        panel.tick_params(axis="x", length=0)
        panel.set_ylabel("eigenvalue")
    legend(figure, {}, "", [line_key(name, **_dots(name)) for name in models])
    return figure, pd.DataFrame(lines)


def _ends(rows: Sequence[Row], model: str, samples: int) -> Iterator[tuple[list[float], int, float]]:
    """Yield both ends of a model's spectra, each with its seed and its place in a column that the seeds share."""
    chosen = [row for row in rows if row.config["model"] == model]
    for number, row in enumerate(chosen, start=1):
        spectra: dict[int, list[float]] = {entry["samples"]: entry["spectrum"] for entry in row.values["ends"]}
        seed, place = row.config["training"]["seed"], _COLUMN * (number / (len(chosen) + 1) - 0.5)
        yield spectra.get(samples, []), seed, place


def _dots(model: str) -> dict[str, Any]:
    return {"color": _COLORS[model], "marker": _MARKERS[model], "linestyle": "", "markersize": 5, "alpha": 0.85}
