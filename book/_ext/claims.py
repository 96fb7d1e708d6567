"""Directive ``claims``: where every claim of the paper stands, from the published rows."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import scoreboard, store


class Claims(SphinxDirective):
    """The table of all claims, each linked to its page."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        found = scoreboard.standings(store.published().rows())
        text = scoreboard.markdown(found, lambda claim: f"{{doc}}`/notebooks/{claim.page}`")
        children = self.parse_text_to_nodes(text)
        return [nodes.container("", *children, classes=["claims"])]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("claims", Claims)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
