"""Where the numbers of a page come from: dates, devices, seconds, versions, commits, scales and seeds of its rows.

The rows are those of the studies that a notebook opens by ``pages.start``; on a page with the table of claims, all of
them. Every published row is copied into the site, so that a page can link to it.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from docutils import nodes
from page_tables import table
from sphinx.application import Sphinx

from hbanalysis import store, studies
from hbanalysis.publishing import notebooks, replay
from hbanalysis.records import spreads
from hbanalysis.running.display import duration
from hbanalysis.store import Row
from hbanalysis.tables import measured
from hbanalysis.tables.frames import scale_order

TITLE = "Where the numbers come from"
FOLDER = "rows"
ANCHOR = "rows-of-this-page"
COLUMNS = ("Study", "Scale", "Row", "Ended", "File")
_OPEN = 3  # with more lines than this the list is folded
_VERSIONS = {"hbanalysis": "hbanalysis", "torch": "torch", "numpy": "NumPy", "python": "Python"}


def origin_lines(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """Return study with scale, and what the provenance of its rows says, a pair for each study and scale."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.study, row.scale), []).append(row)
    ordered = sorted(groups, key=lambda pair: (studies.names().index(pair[0]), scale_order(pair[1])))
    return [(f"{study}, {scale}", _said(groups[study, scale])) for study, scale in ordered]


def _said(rows: Sequence[Row]) -> str:
    origins = [row.provenance for row in rows]
    seeds = sorted({row.config["training"]["seed"] for row in rows})
    dates = sorted({origin["date"][:10] for origin in origins})
    versions = (f"{text} {_joined(origin[name] for origin in origins)}" for name, text in _VERSIONS.items())
    commits = _joined(origin["commit"] or "unknown" for origin in origins)
    return "; ".join(
        [
            f"{len(rows)} row{'s' if len(rows) > 1 else ''}, {'seeds' if len(seeds) > 1 else 'seed'} {_joined(seeds)}",
            _joined(origin["device_name"] or origin["device"] for origin in origins),
            f"{duration(sum(origin['seconds']['total'] for origin in origins))} in all",
            ", ".join(versions),
            f"{'commits' if ',' in commits else 'commit'} {commits}",
            dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}",
        ]
    )


def band_lines(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return what other threads and versions changed, and what `hbanalysis compare` allows, a pair for each study."""
    found, lines = measured.results("portability"), []
    for name in names:
        seen = spreads.moved(found, name)
        parts = [_banded(quantity, band, seen.get(quantity)) for quantity, band in studies.get(name).bands.items()]
        conditions = spreads.conditions(found, name)
        where = f"computed again with {' and '.join(conditions)}" if conditions else "not yet computed again elsewhere"
        lines.append((f"{name}, on other machines", f"{where}; here / published: {', '.join(parts)}"))
    return lines


def _banded(quantity: str, band: tuple[float, float], seen: tuple[float, float] | None) -> str:
    """Return the ratios that were seen and those that count as the same result."""
    allowed = f"{band[0]:g} to {band[1]:g} allowed"
    if seen is None:
        return f"{quantity} {allowed}"
    low, high = (f"{value:.3g}" for value in seen)
    return f"{quantity} {low if low == high else f'{low} to {high}'} seen, {allowed}"


def page_line(notebook: nbformat.NotebookNode, path: Path) -> str:
    """Return when, where, how long and with what a notebook itself ran."""
    block = notebook.metadata[notebooks.BLOCK]
    seed = notebooks.declared(path).get("seed")
    with_seed = f", seed {block['parameters'].get('seed', seed.default)}" if seed else ""
    torch, python, commit = (block.get(name) or "unknown" for name in ("torch", "python", "commit"))
    return (
        f"{duration(block['seconds'])} on {'a CPU' if block['device'] == 'cpu' else block['device']}{with_seed}; "
        f"hbanalysis {block['version']}, torch {torch}, Python {python}; commit {commit}; {block['date']}"
    )


def gpu_line(rows: Sequence[Row]) -> str:
    """Return what a GPU took for the rows that were computed on one."""
    there = [row.provenance for row in rows if row.provenance["device"].startswith("cuda")]
    if not there:
        return "not timed; nothing of this page was computed on one so far"
    names = _joined(origin["device_name"] for origin in there)
    return f"{duration(sum(one['seconds']['total'] for one in there))} in all for {len(there)} of the rows, {names}"


def add_origins(app: Sphinx, doctree: nodes.document) -> None:
    """Append the lines, and the list of rows, to a page that shows rows or was run."""
    docname = app.env.docname
    source = Path(app.env.doc2path(docname))
    section = next(iter(doctree.findall(nodes.section)), None)
    if section is None:
        return
    rows: list[Row] = []
    lines: list[tuple[str, str]] = []
    if source.suffix == ".ipynb":
        notebook = nbformat.read(source, as_version=4)
        shown = replay.studies_shown(notebook)
        by_key = {row.key: row for subject in replay.subjects(notebook).values() for row in subject.published()}
        rows = list(by_key.values())
        for name in shown:
            app.env.note_dependency(str(store.published().root / name))
        ran = page_line(notebook, source)
        lines = [*origin_lines(rows), *band_lines(shown), ("On a GPU", gpu_line(rows)), ("This page ran", ran)]
    elif any("claims" in node["classes"] for node in doctree.findall(nodes.container)):
        rows = store.published().rows()
        lines = origin_lines(rows)
    if lines:
        section += _folded(TITLE, [_list(lines)], opened=len(lines) <= _OPEN)
    if rows and source.suffix == ".ipynb":
        root = "../" * docname.count("/") + FOLDER
        section += _folded(f"The {len(rows)} rows of this page", [_table(rows, root)], anchor=ANCHOR)


def copy_rows(app: Sphinx, error: Exception | None) -> None:
    """Copy every published row into the site."""
    if error is None and app.builder.name == "html":
        for row in store.published().rows():
            target = Path(app.outdir) / FOLDER / row.study / f"{row.key}.json"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(store.published().path(row.study, row.key), target)


def _folded(title: str, content: list[nodes.Node], *, opened: bool = False, anchor: str = "") -> list[nodes.Node]:
    attributes = f' id="{anchor}"' * bool(anchor) + " open" * opened
    start = f'<details class="page-box"{attributes}><summary>{title}</summary>'
    return [nodes.raw("", start, format="html"), *content, nodes.raw("", "</details>", format="html")]


def _list(lines: Sequence[tuple[str, str]]) -> nodes.bullet_list:
    items = (nodes.paragraph("", "", nodes.strong("", head), nodes.Text(f": {text}.")) for head, text in lines)
    return nodes.bullet_list("", *(nodes.list_item("", item) for item in items), classes=["origins"])


def _table(rows: Sequence[Row], root: str) -> nodes.table:
    ordered = sorted(rows, key=lambda row: (row.study, scale_order(row.scale), label_of(row)))
    return table(COLUMNS, (_entries(row, root) for row in ordered), "rows-status", (3, 1, 4, 1, 3))


def label_of(row: Row) -> str:
    """Return the short name that the study gives to a row's cell."""
    study = studies.get(row.study)
    return study.label(study.from_config(row.config))


def _entries(row: Row, root: str) -> list[nodes.Node]:
    link = nodes.reference("", row.key, refuri=f"{root}/{row.study}/{row.key}.json", internal=True)
    return [*map(nodes.Text, (row.study, row.scale, label_of(row), row.values["status"])), link]


def _joined(values: Iterable[object]) -> str:
    return ", ".join(map(str, sorted(set(values), key=str)))


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("doctree-read", add_origins, priority=800)
    app.connect("build-finished", copy_rows)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
