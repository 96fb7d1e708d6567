"""The second form of a figure, for screens a hand wide: its panels below one another.

A figure is drawn inside `hbanalysis.plots.style.stacked` by the same function as its first form, so that both show the
same data.
"""

import io
import textwrap

from matplotlib.figure import Figure
from PIL import Image

from hbanalysis.plots.style import STACKED

_DPI = 144  # phones have two or three points a pixel
_LETTERS = 22  # along the side of a panel
_COLOURS = 128  # fewer lose a pale second map of colours beside a rich one


def picture(figure: Figure) -> bytes | None:
    """Return a figure whose panels are stacked as a PNG, or None for one that has a single form.

    Panels that share an axis beside one another have its name once; below one another each has it.
    """
    if figure.get_label() != STACKED:
        return None
    for part in figure.subfigs:
        panels = [panel for panel in part.axes if panel.get_visible()]
        named = [panel for panel in panels if panel.get_ylabel()]
        for panel in panels:
            shares = [other for other in named if panel.get_shared_y_axes().joined(panel, other)]
            if shares and not panel.get_ylabel():
                panel.set_ylabel(shares[0].get_ylabel())
        for panel in panels:
            panel.set_ylabel(textwrap.fill(panel.get_ylabel(), _LETTERS, break_long_words=False))
    return _png(figure)


def _png(figure: Figure) -> bytes:
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    flat = (
        Image.open(drawn).convert("RGB").quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    )
    flat.save(small, "PNG", optimize=True)
    return small.getvalue()
