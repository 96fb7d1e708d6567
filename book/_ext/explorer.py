"""Directive ``spectrum-explorer``: spectra by batch size, drawn in the page for the data and the set a reader picks."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from figure_data import FOLDER
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store
from hbanalysis.claims.again import commands
from hbanalysis.plots import shown
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


def table() -> pd.DataFrame:
    """Return the same numbers as a table, one line an eigenvalue: mean over seeds and their range."""
    lines = [
        {
            "scale": entry["scale"],
            "trained": entry["title"],
            "set": name,
            "batch_size": line["batch_size"],
            "rank": rank,
        }
        | {"seeds": line["seeds"], "mean": mean, "least": least, "most": most}
        for entry in spectra.by_family(store.published().rows(STUDY))
        for name in spectra.SETS
        for line in entry[name]
        for rank, (mean, least, most) in enumerate(
            zip(line["values"], line["least"], line["most"], strict=True), start=1
        )
    ]
    return pd.DataFrame(lines)


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
        closing = nodes.raw("", "</figcaption></figure>", format="html")
        return [nodes.raw("", opening, format="html"), *caption, self._sources(), closing]

    def _sources(self) -> nodes.paragraph:
        """Write the numbers as CSV and return the line that says where they are and what computes them again."""
        page = self.env.docname
        path = Path(self.env.app.outdir) / FOLDER / page.rpartition("/")[2] / f"{STUDY}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shown.csv(table()), encoding="utf-8")
        address = "../" * page.count("/") + path.relative_to(self.env.app.outdir).as_posix()
        line = nodes.paragraph("", "Data: ", classes=["figure-data"])
        line += [nodes.reference("", path.name, refuri=address, internal=True), nodes.Text(". Again: ")]
        for number, command in enumerate(commands(STUDY, store.published().rows(STUDY))):
            line += [nodes.Text(", " * bool(number)), nodes.literal("", command)]
        return line


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("spectrum-explorer", SpectrumExplorer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
