"""Directives ``claims``, where every claim of the paper stands, and ``paper-slips``, what looks wrong in its tables."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import paper, store
from hbanalysis.claims import scoreboard


class Claims(SphinxDirective):
    """The table of all claims, each linked to its page."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        found = scoreboard.standings(store.published().rows())
        text = scoreboard.markdown(found, lambda claim: f"{{doc}}`/notebooks/{claim.page}`")
        children = self.parse_text_to_nodes(text)
        return [nodes.container("", *children, classes=["claims"])]


class PaperSlips(SphinxDirective):
    """The lines of the paper's tables that carry a note."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        found = paper.noted()
        lines = [list(found.columns), ["---"] * len(found.columns), *found.to_numpy().tolist()]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return self.parse_text_to_nodes(text)


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("claims", Claims)
    app.add_directive("paper-slips", PaperSlips)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
