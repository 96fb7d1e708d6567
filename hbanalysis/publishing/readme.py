"""What of the README is made from the published rows: the table of claims, and the picture above it."""

import io
import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt

from hbanalysis.claims import scoreboard
from hbanalysis.files import write_atomically
from hbanalysis.folders import PROJECT
from hbanalysis.plots import house_style, spectra
from hbanalysis.plots.shown import CHUNK, carried, csv
from hbanalysis.store import PUBLISHED_VARIABLE, Row, published
from hbanalysis.tables import frames

PICTURE = PROJECT / "book" / "_static" / "spectra.png"
STUDY = "spectrum_vs_batch"


def refresh() -> None:
    """Bring table and picture up to the project's published rows; rows published elsewhere leave them."""
    if os.environ.get(PUBLISHED_VARIABLE) or not PICTURE.parent.is_dir():
        return
    scoreboard.refresh_readme()
    rows = shown(published().rows(STUDY))
    if rows:
        draw(rows, PICTURE)


def shown(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the picture: those of the first family, which is of the largest scale."""
    return next(iter(frames.families(frames.reached(rows)).values()), [])


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the spectra of these rows as a PNG that carries its data; an equal file stays as it is."""
    house_style()
    figure, data = spectra(rows)
    text = csv(data)
    if not path.is_file() or carried(path.read_bytes()) != text:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight", metadata={CHUNK: text, "Software": None})
        write_atomically(path, buffer.getvalue())
    plt.close(figure)
