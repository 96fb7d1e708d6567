"""Directive ``edition``: which state of the published rows a site shows.

The number is a checksum over the rows, read while the site is built, so it cannot fall behind them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from page_tables import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store
from hbanalysis.files import digest

COLUMNS = ("Study", "Scale", "Rows", "Seeds", "Newest", "Revision", "Schema")


@dataclass(frozen=True)
class Entry:
    """What the page says of one row: its file's schema and checksum stand beside what a row itself knows."""

    study: str
    scale: str
    key: str
    revision: int
    seed: int
    date: str
    schema: int
    checksum: str


def entries(folder: Path) -> list[Entry]:
    """Return every row below a folder, by study and key."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        found.append(
            Entry(
                body["study"],
                body["scale"],
                body["key"],
                body["revision"],
                body["config"]["training"]["seed"],
                body["provenance"]["date"][:10],
                body["schema"],
                body.get("sha256") or digest(body),
            )
        )
    return found


def number(rows: Iterable[Entry]) -> str:
    """Return the number of an edition: it changes with every row that is added, removed or changed."""
    return digest(sorted([row.study, row.key, row.checksum] for row in rows))[:10]


def table_of(rows: Iterable[Entry]) -> list[tuple[str, ...]]:
    """Return the lines of the table, one a study and scale."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for row in rows:
        groups.setdefault((row.study, row.scale), []).append(row)
    return [
        (
            *place,
            str(len(group)),
            _join(row.seed for row in group),
            max(row.date for row in group),
            _join(row.revision for row in group),
            _join(row.schema for row in group),
        )
        for place, group in sorted(groups.items())
    ]


def sentence(rows: list[Entry]) -> str:
    """Return the edition in a line."""
    if not rows:
        return "No row is published."
    studies, newest = len({row.study for row in rows}), max(row.date for row in rows)
    return f"Edition {number(rows)}: {len(rows)} rows of {studies} studies, the newest of {newest}."


def _join(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


class Edition(SphinxDirective):
    """The edition in a line, and the table of its rows."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes."""
        self.env.note_reread()
        rows = entries(store.published().row_folder)
        return [
            nodes.paragraph("", "", nodes.strong("", sentence(rows))),
            table(COLUMNS, table_of(rows), "rows-status"),
        ]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("edition", Edition)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
