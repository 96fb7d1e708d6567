"""Directive ``findings``: what the published rows say beyond the paper's claims, a small figure each.

Figures, numbers and data are made from the rows while the site is built, so that they cannot fall behind them.
"""

import html
import io
from pathlib import Path

import matplotlib.pyplot as plt
from docutils import nodes
from figure_data import FOLDER as DATA
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store
from hbanalysis.claims.finding import Finding
from hbanalysis.claims.findings import committed, findings
from hbanalysis.plots.findings import finding
from hbanalysis.plots.shown import csv

FOLDER = "findings"
_COLOURS = 32  # enough for lines and text, as in the notebooks' figures
_DPI = 160


class Findings(SphinxDirective):
    """A grid of figures, each with the finding in a sentence, its numbers, its page and its commands."""

    def run(self) -> list[nodes.Node]:
        """Return the grid."""
        self.env.note_reread()
        found = findings(store.published().rows(), committed())
        if not found:
            return self.parse_text_to_nodes("No row that says anything of this kind is published.")
        with plt.rc_context():
            cards = [node for one in found for node in self._card(one)]
        return [_raw('<div class="findings">'), *cards, _raw("</div>")]

    def _card(self, one: Finding) -> list[nodes.Node]:
        root = "../" * self.env.docname.count("/")
        figure, data = finding(one)
        picture, width, height = _png(figure)
        plt.close(figure)
        text = csv(data)
        table = f"{DATA}/{self.env.docname.rpartition('/')[2]}/{one.name}.csv"
        for name, content in ((f"{FOLDER}/{one.name}.png", picture), (table, text.encode())):
            path = Path(self.env.app.outdir) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        image = (
            f'<img src="{root}{FOLDER}/{one.name}.png" alt="{html.escape(one.described)}" '
            f'width="{width}" height="{height}" loading="lazy"><figcaption>'
        )
        title = self.parse_text_to_nodes(f"{one.title}.")
        title[0]["classes"].append("finding-title")
        lines = [one.said, "", f"More: {{doc}}`/notebooks/{one.page}`. The rows again:", "", "```bash"]
        content = self.parse_text_to_nodes("\n".join([*lines, *one.commands, "```"]))
        link = nodes.reference("", f"{one.name}.csv", refuri=root + table, internal=True)
        file = nodes.paragraph("", "", nodes.Text("Data: "), link, classes=["figure-data"])
        opening = _raw(f'<figure class="finding" id="finding-{one.name}">')
        return [opening, *title, _raw(image), *content, file, _raw("</figcaption></figure>")]


def _png(figure: plt.Figure) -> tuple[bytes, int, int]:
    """Return a figure as a PNG of few colours, and the width and height at which it is shown."""
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    flat = (
        Image.open(drawn).convert("RGB").quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    )
    flat.save(small, "PNG", optimize=True)
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return small.getvalue(), width, height


def _raw(text: str) -> nodes.raw:
    return nodes.raw("", text, format="html")


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("findings", Findings)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
