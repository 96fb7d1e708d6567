"""Directive ``how-to-cite``: BibTeX entries of this project and of the paper, made from CITATION.cff.

The project's entry names the edition of the published rows, so that a citation says which numbers were read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from editions import entries, number
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store
from hbanalysis.folders import PROJECT

FILE = PROJECT / "CITATION.cff"


def bibtex(path: Path, edition: str, address: str) -> str:
    """Return the entries.

    Args:
        path: A file in the citation file format, whose first reference is a paper.
        edition: Of the rows.
        address: Of the repository; empty where it has none.
    """
    said = yaml.safe_load(path.read_text(encoding="utf-8"))
    paper = said["references"][0]
    own = {
        "title": said["title"],
        "author": _authors(said["authors"]),
        "version": said["version"],
        "note": f"Edition {edition} of the results",
        "url": address,
    }
    theirs = {
        "title": paper["title"],
        "author": _authors(paper["authors"]),
        "booktitle": paper["collection-title"],
        "volume": paper["volume"],
        "pages": f"{paper['start']}--{paper['end']}",
        "year": paper["year"],
    }
    return "\n\n".join([_entry("software", "hbanalysis", own), _entry("inproceedings", "yao2018hessian", theirs)])


def _authors(people: Sequence[Mapping[str, str]]) -> str:
    names = (one.get("name") or f"{one['family-names']}, {one['given-names']}" for one in people)
    return " and ".join(f"{{{name}}}" if "," not in name else name for name in names)


def _entry(kind: str, key: str, fields: Mapping[str, Any]) -> str:
    lines = (f"  {name} = {{{value}}}," for name, value in fields.items() if value)
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


class HowToCite(SphinxDirective):
    """The entries, to be copied."""

    def run(self) -> list[nodes.Node]:
        """Return a block of text."""
        self.env.note_reread()
        self.env.note_dependency(str(FILE))
        edition = number(entries(store.published().row_folder))
        address = str(self.config.html_theme_options.get("repository_url") or "")
        return [nodes.literal_block("", bibtex(FILE, edition, address), language="text")]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("how-to-cite", HowToCite)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
