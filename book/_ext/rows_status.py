"""Directive ``rows-status``: which rows are published, which are missing, and where each was computed.

The table is read from the published rows while the site is built, so it cannot fall behind them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from docutils import nodes
from page_tables import table
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis import store, studies

COLUMNS = ("Scale", "Data set", "Network", "Batch size", "Seeds", "State", "Device", "Seconds", "torch", "Date")
SCALES = ("paper", "small", "mnist", "digits", "custom")


@dataclass(frozen=True)
class Cell:
    """One cell of a study as the table shows it; ``provenance`` is None where no row is published."""

    scale: str
    training: Mapping
    provenance: Mapping | None = None
    status: str = ""

    @property
    def line(self) -> tuple:
        """What cells on one line of the table share: all but the seed; largest scale first."""
        rank = SCALES.index(self.scale) if self.scale in SCALES else len(SCALES)
        training = self.training
        size = training.get("train_samples")
        dataset = training["dataset"] if size is None else f"{training['dataset']}, first {size:,}"
        missing = self.provenance is None
        return (rank, self.scale, dataset, training["network"], training["batch_size"], missing)


def cells_of(study) -> list[Cell]:
    """Return every published row of a study and every cell of its public presets that has none."""
    published = store.published()
    rows = published.rows(study.name)
    known = {row.key for row in rows}
    cells = [Cell(row.scale, row.config["training"], row.provenance, row.values["status"]) for row in rows]
    for scale in study.scales:
        for cell in study.cells(scale):
            if (key := study.key(cell)) not in known:
                known.add(key)
                cells.append(Cell(study.scale_of(cell), study.config(cell)["training"]))
    return cells


def table_of(cells: Iterable[Cell]) -> list[tuple[str, ...]]:
    """Return the lines of the table, seeds and machines of one batch size on one line."""
    lines: dict[tuple, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(cell.line, []).append(cell)
    return [
        (*map(str, line[1:5]), _join(cell.training["seed"] for cell in group), *_facts(group))
        for line, group in sorted(lines.items())
    ]


def _facts(group: list[Cell]) -> tuple[str, ...]:
    origins = [cell.provenance for cell in group if cell.provenance is not None]
    if not origins:
        return ("missing", "–", "–", "–", "–")
    seconds = [origin["seconds"]["total"] for origin in origins]
    return (
        _join(cell.status for cell in group),
        _join(origin["device_name"] or origin["device"] for origin in origins),
        f"{sum(seconds):,.0f}",
        _join(origin["torch"] for origin in origins),
        _join(origin["date"][:10] for origin in origins),
    )


def _join(values: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(set(values))))


class RowsStatus(SphinxDirective):
    """One section's worth of text and table per study."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of all studies."""
        self.env.note_reread()
        return [node for name in studies.names() for node in self._study(studies.get(name))]

    def _study(self, study) -> list[nodes.Node]:
        cells = cells_of(study)
        have = sum(cell.provenance is not None for cell in cells)
        text = f"{study.title}: {have} rows published, {len(cells) - have} cells of the public presets missing."
        return [nodes.paragraph("", "", nodes.strong("", text)), table(COLUMNS, table_of(cells), "rows-status")]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("rows-status", RowsStatus)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
