"""A figure drawn by hand in a notebook, shown with the numbers behind it inside its picture.

Figures that are functions of rows need none of this: their data are made again from the rows. What a page computes by
itself exists only while it runs, so that its numbers travel in a text chunk of the PNG, where no reader of the notebook
sees them and the site finds them.
"""

import base64
import io

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image as Picture
from PIL.PngImagePlugin import PngImageFile, PngInfo

from hbanalysis.errors import InputError

CHUNK = "data.csv"
_DIGITS = "%.8g"


def show(figure: Figure, data: pd.DataFrame | None = None) -> None:
    """Show a figure with its data inside the picture, and close it.

    Args:
        figure: The figure.
        data: The frame it was drawn from; None takes the lines as drawn, see `drawn`.

    Raises:
        InputError: No data are given and the figure has no line.
    """
    # It comes with notebooks; the package draws without it.
    from IPython.core.pylabtools import print_figure
    from IPython.display import Image, display

    frame = drawn(figure) if data is None else data
    picture = print_figure(figure, "png", metadata={CHUNK: csv(frame)})
    plt.close(figure)
    display(Image(picture))


def drawn(figure: Figure) -> pd.DataFrame:
    """Return the points of all lines of a figure, in the order of drawing.

    Lines that are placed by the panel and not by its axes, such as those of ``axhline``, hold no data and are left out.

    Returns:
        Columns `x_label` (that of the panel or, where panels share one, of the panel that has it), `y_label`, `series`
        (the label in the legend), `x`, `y`.

    Raises:
        InputError: The figure has no line.

    Example:
        >>> figure, axes = plt.subplots()
        >>> _ = axes.plot([1, 2], [0.5, 0.25], label="error")
        >>> drawn(figure)["y"].tolist(), set(drawn(figure)["series"])
        ([0.5, 0.25], {'error'})
    """
    parts = []
    shared = [panel.get_xlabel() for panel in figure.axes if panel.get_xlabel()]
    for panel in figure.axes:
        for number, line in enumerate(panel.get_lines(), start=1):
            if line.get_transform() is not panel.transData:
                continue
            label = str(line.get_label())
            part = pd.DataFrame({"x": line.get_xdata(orig=False), "y": line.get_ydata(orig=False)})
            part.insert(0, "x_label", panel.get_xlabel() or (shared[0] if shared else ""))
            part.insert(1, "y_label", panel.get_ylabel())
            part.insert(2, "series", f"line {number}" if label.startswith("_") else label)
            parts.append(part)
    if not parts:
        raise InputError("The figure has no line to take data from. Give the frame it shows: show(figure, data).")
    return pd.concat(parts, ignore_index=True)


def csv(frame: pd.DataFrame) -> str:
    r"""Return a frame as CSV text with eight significant digits.

    Example:
        >>> csv(pd.DataFrame({"x": [1, 2], "y": [1 / 3, None]}))
        'x,y\n1,0.33333333\n2,\n'
    """
    return frame.to_csv(index=False, float_format=_DIGITS, lineterminator="\n")


def carried(picture: str | bytes) -> str | None:
    """Return the CSV text inside a PNG, as bytes or as base64 text, or None where it carries none."""
    raw = base64.b64decode(picture) if isinstance(picture, str) else picture
    with Picture.open(io.BytesIO(raw)) as opened:
        return opened.text.get(CHUNK) if isinstance(opened, PngImageFile) else None


def chunk_of(picture: Picture.Image) -> PngInfo | None:
    """Return the data inside a picture as what keeps them, compressed, in another version of it; None without any."""
    text = picture.text.get(CHUNK) if isinstance(picture, PngImageFile) else None
    if text is None:
        return None
    kept = PngInfo()
    kept.add_text(CHUNK, text, zip=True)
    return kept
