"""Directives made of the paper's claims and tables and of the published rows.

``claims`` says where every claim stands, ``paper-slips`` what looks wrong in the paper's tables, and
``factorial-verdicts`` what is left of the batch size beside the learning rate.
"""

from docutils import nodes
from page_tables import markdown
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import paper, store
from hbanalysis.claims import factorial, scoreboard


class Claims(SphinxDirective):
    """How many claims stand where, and the table of all of them, each linked to its page."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        found = scoreboard.standings(store.published().rows())
        text = scoreboard.markdown(found, lambda claim: f"{{doc}}`/notebooks/{claim.page}`")
        table = nodes.container("", *self.parse_text_to_nodes(text), classes=["claims"])
        for name in list(table.findall(nodes.literal)):
            name.replace_self(_breakable(name.astext()))
        return [*self.parse_text_to_nodes(f"**{scoreboard.summary(found)}**"), table]


def _breakable(command: str) -> nodes.raw:
    """Return a command as code that goes on in the next line at a space or after an underscore, never in an option."""
    words = (f'<span class="option">{word}</span>' if word.startswith("--") else word for word in command.split())
    return nodes.raw("", f"<code>{' '.join(words).replace('_', '_<wbr>')}</code>", format="html")


class PaperSlips(SphinxDirective):
    """The lines of the paper's tables that carry a note."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes(markdown(paper.noted()))


class FactorialVerdicts(SphinxDirective):
    """What the criterion says of the published rows of learning rate by batch size, a line an outcome."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        self.env.note_reread()
        found = factorial.table(store.published().rows("learning_rate_factorial"))
        if found.empty:
            return self.parse_text_to_nodes("No row of this study is published.")
        shown = ["trained", "scale", "effect of log B on", "seeds", "at fixed lr", "at fixed lr / B", "verdict", "here"]
        return self.parse_text_to_nodes(markdown(found[shown].astype(str)))


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("claims", Claims)
    app.add_directive("paper-slips", PaperSlips)
    app.add_directive("factorial-verdicts", FactorialVerdicts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
