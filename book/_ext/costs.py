"""Directives ``study-costs``, what rows took where they were computed, and ``large-models``, what they would take."""

import pandas as pd
from docutils import nodes
from page_tables import markdown
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store
from hbanalysis.tables import costs, measured

BENCHMARK = "m1_5000"


class _Table(SphinxDirective):
    def made(self) -> pd.DataFrame:
        """Return the table."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Return the table, numbers with three significant digits."""
        self.env.note_reread()
        found = self.made()
        return self.parse_text_to_nodes(markdown(found.map(_text)))


class StudyCosts(_Table):
    """CPU minutes of the published rows."""

    def made(self) -> pd.DataFrame:
        """Return the table."""
        return costs.of_rows(store.published().rows())


class LargeModels(_Table):
    """The plan for models of ImageNet's size."""

    def made(self) -> pd.DataFrame:
        """Return the table."""
        return costs.of_large_models(measured.results(BENCHMARK))


def _text(entry: object) -> str:
    if not isinstance(entry, float):
        return str(entry)
    return f"{entry:,.0f}" if entry >= 100 else f"{entry:.3g}"


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("study-costs", StudyCosts)
    app.add_directive("large-models", LargeModels)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
