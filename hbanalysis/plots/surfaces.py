"""Fig. 3 to be turned: the loss over the plane of two eigenvectors as a surface, for a script of the site to draw."""

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from hbanalysis.errors import InputError
from hbanalysis.plots.style import batch_looks
from hbanalysis.store import Row
from hbanalysis.tables.flatness import with_planes
from hbanalysis.tables.frames import families

_DIGITS = 4
_KEYS = "Drag to turn, scroll to come closer. Keys: arrows turn, + and - come closer and go away, Home starts again."
_ELSEWHERE = (
    "The surface can be turned on the built site, where a script draws it. The contours above show the same numbers."
)


@dataclass(frozen=True)
class Surfaces:
    """Figures for plotly.js as JSON data, shown as HTML that a script of the site brings to life.

    Without the script, or in print, a line says where the same numbers are to be seen.

    Attributes:
        figures: For each family of rows a title, a description in words, ``data`` and ``layout``.
    """

    figures: tuple[dict[str, Any], ...]

    def _repr_html_(self) -> str:
        return "\n".join(_block(figure) for figure in self.figures)

    def __repr__(self) -> str:
        return f"Surfaces({', '.join(figure['title'] for figure in self.figures)})"


def surfaces(rows: Sequence[Row]) -> tuple[Surfaces, pd.DataFrame]:
    """The training loss over the plane of two eigenvectors, a surface for each batch size, first seed (Fig. 3).

    Args:
        rows: Rows of `loss_landscape`.

    Returns:
        The figures, and the plotted data: columns `scale`, `trained`, `batch_size`, `seed`, `a`, `b`, `loss`.

    Raises:
        InputError: No row has planes.
    """
    groups = families(with_planes(rows))
    if not groups:
        raise InputError("There is no plane to draw. Compute the study first: `hbanalysis run loss_landscape`.")
    figures, lines = [], []
    for one, group in groups.items():
        firsts: dict[int, Row] = {}
        for row in group:
            firsts.setdefault(row.config["training"]["batch_size"], row)
        data = []
        for (size, row), look in zip(firsts.items(), batch_looks(firsts).values(), strict=True):
            plane = row.values["planes"]["eigenvectors"]
            t, loss = plane["t"], plane["loss_train"]
            data.append(_surface(size, t, loss, look.color))
            seed = row.config["training"]["seed"]
            lines += [
                {"scale": one.scale, "trained": one.title, "batch_size": size, "seed": seed, "a": a, "b": b}
                | {"loss": loss[i][j]}
                for i, a in enumerate(t)
                for j, b in enumerate(t)
            ]
        figures.append(
            {
                "title": f"{one.title}, {one.scale_label}",
                "description": _described(one.title, firsts),
                "data": data,
                "layout": _layout(),
            }
        )
    return Surfaces(tuple(figures)), pd.DataFrame(lines)


def _surface(size: int, t: Sequence[float], loss: Sequence[Sequence[float]], color: Sequence[float]) -> dict[str, Any]:
    shade = f"rgb({', '.join(str(round(255 * part)) for part in color[:3])})"
    return {
        "type": "surface",
        "name": f"batch size {size}",
        "showlegend": True,
        "showscale": False,
        "opacity": 0.85,
        "x": [_short(v) for v in t],
        "y": [_short(v) for v in t],
        # Lines of z belong to y: the transpose of the row's matrix, whose lines belong to a.
        "z": [[_short(line[j]) for line in loss] for j in range(len(t))],
        "colorscale": [[0, shade], [1, shade]],
        "contours": {"z": {"show": False}, "x": {"show": True, "color": "#888"}, "y": {"show": True, "color": "#888"}},
        "hovertemplate": "a = %{x}<br>b = %{y}<br>loss = %{z:.3g}<extra>B = " + str(size) + "</extra>",
    }


def _layout() -> dict[str, Any]:
    return {
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "height": 460,
        "legend": {"orientation": "h", "x": 0, "y": 1},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "scene": {
            "xaxis": {"title": {"text": "a, along v1"}},
            "yaxis": {"title": {"text": "b, along v2"}},
            "zaxis": {"title": {"text": "training loss"}, "type": "log", "dtick": 1, "exponentformat": "power"},
            "camera": {"eye": {"x": 1.65, "y": 1.55, "z": 0.85}},
            "dragmode": "turntable",
        },
    }


def _described(title: str, firsts: dict[int, Row]) -> str:
    """The surfaces in words, for those who do not see them: at the weights, and highest at each batch size."""
    parts = []
    for size, row in firsts.items():
        plane = row.values["planes"]["eigenvectors"]
        middle = len(plane["t"]) // 2
        low, high = plane["loss_train"][middle][middle], max(max(line) for line in plane["loss_train"])
        parts.append(f"at batch size {size} it rises from {low:.2g} at the trained weights to {high:.2g}")
    reach = max(max(row.values["planes"]["eigenvectors"]["t"]) for row in firsts.values())
    return (
        f"Training loss of {title} over the plane of the first two eigenvectors, up to {reach:g} to each side: "
        + "; ".join(parts)
        + "."
    )


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _block(figure: dict[str, Any]) -> str:
    title, described = html.escape(figure["title"]), html.escape(figure["description"], quote=True)
    content = json.dumps({name: figure[name] for name in ("data", "layout")}, sort_keys=True).replace("<", "\\u003c")
    return (
        f'<figure class="loss-surface"><p><strong>{title}</strong></p>'
        f'<div class="loss-surface-view" role="img" aria-label="{described}"></div>'
        '<button type="button" hidden>Show the surface (a library of 1.8 MB)</button>'
        f'<figcaption data-keys="{_KEYS}">{_ELSEWHERE}</figcaption>'
        f'<script type="application/json">{content}</script></figure>'
    )
