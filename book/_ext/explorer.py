"""Directive ``spectrum-explorer``: spectra by batch size, drawn in the page for the data and the set a reader picks."""

import json
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store
from hbanalysis.plots.style import batch_looks
from hbanalysis.tables import spectra

STUDY = "spectrum_vs_batch"
MARK = 'class="spectrum-explorer"'


def data() -> list[dict[str, Any]]:
    """Return the published spectra with a colour for each line."""
    found = spectra.by_family(store.published().rows(STUDY))
    for entry in found:
        sizes = {line["batch_size"] for name in spectra.SETS for line in entry[name]}
        looks = batch_looks(sizes)
        for name in spectra.SETS:
            for line in entry[name]:
                line["colour"] = "#" + "".join(
                    f"{round(255 * part):02x}" for part in looks[line["batch_size"]].color[:3]
                )
    return found


class SpectrumExplorer(SphinxDirective):
    """The figure; its content is the caption."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the data, an empty figure for the script, and the caption."""
        self.env.note_reread()
        text = json.dumps(data()).replace("<", "\\u003c")
        opening = (
            f'<figure {MARK}><script type="application/json">{text}</script><div class="spectrum-explorer-view">'
            "<p>This figure is drawn by a script; without one, the pages below show the same spectra.</p>"
            "</div><figcaption>"
        )
        caption = self.parse_content_to_nodes()
        return [nodes.raw("", opening, format="html"), *caption, nodes.raw("", "</figcaption></figure>", format="html")]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("spectrum-explorer", SpectrumExplorer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
