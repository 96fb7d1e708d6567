"""The data behind every figure of a notebook as a CSV file below it, and its second form for narrow screens.

The files are written while the site is built. On a page of a study they are made again from the published rows; on
any other page they are taken out of the pictures, see `hbanalysis.plots.shown`. A figure without data, and a page that
does not agree with its rows, are warnings, which fail `make site`. Figures of several panels, which would shrink on a
phone, are drawn once more with their panels below one another, and the browser takes the form that fits.
"""

from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging

from hbanalysis import store
from hbanalysis.plots import shown
from hbanalysis.publishing import replay

FOLDER, NARROW = "data", "narrow"
_NARROW_PIXELS = 600
_logger = logging.getLogger(__name__)


def csv_of_figures(path: Path) -> dict[str, str]:
    """Return the CSV text of each figure of a notebook by the figure's name; those without data are left out."""
    return _forms(path, draw=False)[0]


def _forms(path: Path, *, draw: bool) -> tuple[dict[str, str], dict[str, bytes]]:
    """Return data and narrow pictures of the figures of a notebook, by name."""
    notebook = nbformat.read(path, as_version=4)
    if not replay.studies_shown(notebook):
        return _carried(notebook), {}
    again = replay.replay(notebook, draw=draw)
    for line in again.stale:
        _logger.warning(
            "%s shows %r, and its rows give another. Run `hbanalysis publish --notebooks`.", path.name, line
        )
    return {name: shown.csv(frame) for name, frame in again.frames.items()}, again.narrow


def _carried(notebook: nbformat.NotebookNode) -> dict[str, str]:
    found = {}
    for cell in notebook.cells:
        pictures = (output.get("data", {}).get("image/png") for output in cell.get("outputs", []))
        texts = [text for picture in pictures if picture and (text := shown.carried(picture))]
        if texts and (name := replay.figure_name(cell)):
            found[name] = texts[0]
    return found


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    """Write the files of a page and put a link to each below its figure."""
    docname = app.env.docname
    source = Path(app.env.doc2path(docname))
    if app.builder.name != "html" or source.suffix != ".ipynb":
        return
    for name in replay.studies_shown(nbformat.read(source, as_version=4)):
        app.env.note_dependency(str(store.published().root / name))
    figures = [figure for figure in doctree.findall(nodes.figure) if figure["ids"]]
    texts, pictures = _forms(source, draw=True) if figures else ({}, {})
    folder = Path(app.outdir) / FOLDER / source.stem
    root = "../" * docname.count("/")
    for figure in figures:
        text = next((texts[name] for name in figure["names"] if name in texts), None)
        if text is None:
            _logger.warning(
                "The figure %s has no data to download. Leave the frame it was drawn from in a name that begins with "
                "%r, or show it by plots.show.",
                figure["names"],
                replay.PREFIX,
                location=figure,
            )
            continue
        target = folder / f"{figure['ids'][0]}.csv"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        address = root + target.relative_to(app.outdir).as_posix()
        if picture := next((pictures[name] for name in figure["names"] if name in pictures), None):
            narrow = Path(NARROW) / source.stem / f"{figure['ids'][0]}.png"
            (Path(app.outdir) / narrow).parent.mkdir(parents=True, exist_ok=True)
            (Path(app.outdir) / narrow).write_bytes(picture)
            _offer(figure, root + narrow.as_posix())
        figure += nodes.legend("", nodes.paragraph("", "", *_link(address, target.name, text)), classes=["figure-data"])


def _offer(figure: nodes.figure, address: str) -> None:
    """Let browsers on narrow screens take another picture in place of a figure's own."""
    # The picture stands in a bundle of forms until Sphinx has chosen the one for HTML.
    holds = (number for number, child in enumerate(figure.children) if any(child.findall(nodes.image)))
    place = next(holds)
    start = f'<picture><source media="(max-width: {_NARROW_PIXELS}px)" srcset="{address}">'
    figure.insert(place + 1, nodes.raw("", "</picture>", format="html"))
    figure.insert(place, nodes.raw("", start, format="html"))


def _link(address: str, name: str, text: str) -> list[nodes.Node]:
    lines = text.count("\n") - 1
    return [
        nodes.Text("Data: "),
        nodes.reference("", name, refuri=address, internal=True),
        nodes.Text(f" ({lines:,} lines, {max(1, round(len(text) / 1000)):,} kB)"),
    ]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("doctree-read", add_links)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
