"""Directives ``single-precision``, ``portability`` and ``versions-tried``: how exact published numbers are.

All are read from committed files while the site is built: the measurements of `benchmarks`, and ``pyproject.toml``.
"""

import tomllib
from collections.abc import Mapping
from typing import Any

from docutils import nodes
from page_tables import markdown, table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import studies
from hbanalysis.folders import PROJECT
from hbanalysis.records import spreads
from hbanalysis.tables import measured

PRECISION, PORTABILITY = "precision", "portability"


class _Measured(SphinxDirective):
    def said(self, text: str) -> nodes.paragraph:
        """Return a sentence."""
        return nodes.paragraph("", text)

    def folded(self, title: str, entry: Mapping[str, Any]) -> list[nodes.Node]:
        """Return the quantities of a study behind a line to unfold."""
        frame = spreads.by_quantity(entry)
        if frame.empty:
            return [self.said(f"{title}: no number differs.")]
        start = f'<details class="page-box"><summary>{title}</summary>'
        lines = frame.itertuples(index=False, name=None)
        content = table(list(frame.columns), lines, "exactness", (5, 6, 1, 1, 1))
        return [nodes.raw("", start, format="html"), content, nodes.raw("", "</details>", format="html")]


class SinglePrecision(_Measured):
    """Float32 beside float64."""

    def run(self) -> list[nodes.Node]:
        """Return where it was measured, a line a study, and the quantities of each."""
        self.env.note_reread()
        found = measured.results(PRECISION)
        content = [
            self.said(f"{measured.where(found)}."),
            *self.parse_text_to_nodes(markdown(spreads.of_precision(found))),
        ]
        for name in spreads.stated(found):
            scale, entry = spreads.shown(found, name)
            content += self.folded(f"{name}, {scale}: {'; '.join(entry['cells'])}", entry)
        return content


class Portability(_Measured):
    """Other threads and versions beside the published rows."""

    def run(self) -> list[nodes.Node]:
        """Return the conditions, ratios beside their bands, and the quantities of each study."""
        self.env.note_reread()
        found = measured.results(PORTABILITY)
        content: list[nodes.Node] = [
            self.said(f"Published rows: {measured.where({'environment': one})}.") for one in found["reference"]
        ]
        for condition in found["conditions"]:
            left = ", ".join(name for name in studies.names() if name not in condition["studies"])
            lacking = f" No cell of these studies was computed again: {left}." if left else ""
            content.append(self.said(f"{condition['name']}: {measured.where(condition)}.{lacking}"))
        content += self.parse_text_to_nodes(markdown(spreads.of_portability(found)))
        for condition in found["conditions"]:
            for name, entry in condition["studies"].items():
                content += self.folded(f"{condition['name']}, {name}: {'; '.join(entry['cells'])}", entry)
        return content


class VersionsTried(_Measured):
    """The versions that the stated ranges rest on."""

    def run(self) -> list[nodes.Node]:
        """Return a table of what was run on which versions."""
        self.env.note_dependency(str(PROJECT / "pyproject.toml"))
        tried = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hbanalysis"]["tried"]
        lines = ((one["python"], one["torch"], one["what"]) for one in tried)
        return [table(("Python", "PyTorch", "What was run"), lines, "versions-tried", (1, 1, 5))]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("single-precision", SinglePrecision)
    app.add_directive("portability", Portability)
    app.add_directive("versions-tried", VersionsTried)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
