"""A folded box below every notebook: the commands that run the page again, and its parameters.

Everything in it is read from the notebook: the parameters cell, and the studies it opens by ``pages.start``.
"""

import shlex
from collections.abc import Iterable
from pathlib import Path

import nbformat
from docutils import nodes
from sphinx.application import Sphinx

from hbanalysis import studies
from hbanalysis.publishing import notebooks, replay
from hbanalysis.publishing.subjects import Subject

TITLE = "Rerun this page"
COLUMNS = ("Parameter", "Default", "Meaning")


def commands(path: Path) -> list[str]:
    """Return the command lines that run a notebook again, and those that compute its rows alone."""
    opened = replay.subjects(nbformat.read(path, as_version=4)).values()
    shown = list({subject.study: subject for subject in opened}.values())
    words = ["papermill", f"notebooks/{path.name}", "out.ipynb"]
    parameters = notebooks.declared(path)
    if shown:
        words += ["-p", "scale", _scale(shown[0])[0]]
    elif "seed" in parameters:
        words += ["-p", "seed", str(int(parameters["seed"].default) + 1)]
    return [shlex.join(words), *map(_run, shown)]


def parameters(path: Path) -> list[tuple[str, str, str]]:
    """Return name and type, default and meaning of each parameter of a notebook."""
    found = notebooks.declared(path)
    return [(f"`{name}`: {one.kind}", f"`{one.default!r}`", one.help) for name, one in found.items()]


def box(path: Path, download: str) -> list[nodes.Node]:
    """Return the box of a notebook; ``download`` is the address of the notebook's file."""
    shown = replay.studies_shown(nbformat.read(path, as_version=4))
    scales = "; ".join(f"of {name}: {', '.join(studies.get(name).scales)}" for name in shown)
    how = nodes.paragraph("", "From a clone of the repository, after ")
    how += [nodes.literal("", "make .venv"), nodes.Text(" and "), nodes.literal("", "source .venv/bin/activate")]
    how += nodes.Text("; lists are given as in ")
    how += [nodes.literal("", '-y "seeds: [7]"'), nodes.Text(". ")]
    if shown:
        how += nodes.Text(
            "The first line computes what the local store and the published rows lack and writes the page as it then "
            f"is; the others compute rows alone. Scales {scales}. "
        )
    how += [nodes.reference("", "Download this notebook", refuri=download, internal=True), nodes.Text(".")]
    code = nodes.literal_block("", "\n".join(commands(path)), language="bash")
    table = _table(parameters(path))
    return [
        nodes.raw("", f'<details class="page-box rerun"><summary>{TITLE}</summary>', format="html"),
        code,
        how,
        *([table] if table else []),
        nodes.raw("", "</details>", format="html"),
    ]


def add_box(app: Sphinx, doctree: nodes.document) -> None:
    """Append the box to a notebook's page."""
    docname = app.env.docname
    source = Path(app.env.doc2path(docname))
    if source.suffix == ".ipynb" and (section := next(iter(doctree.findall(nodes.section)), None)) is not None:
        section += box(source, f"{'../' * docname.count('/')}_sources/{docname}.ipynb")


def _scale(subject: Subject) -> tuple[str, set[str]]:
    """Return the first of the study's scales that has cells of a subject, the smallest first, and their data sets."""
    study = studies.get(subject.study)
    for scale in study.scales:
        there = {name for cell in study.cells(scale) if subject.takes(name := cell.training.dataset)}
        if there:
            return scale, there
    return study.scales[0], set()


def _run(subject: Subject) -> str:
    scale, there = _scale(subject)
    narrowed = [word for name in sorted(there) if subject.only for word in ("--set", f"dataset={name}")]
    return shlex.join(["hbanalysis", "run", subject.study, "--scale", scale, *narrowed])


def _table(lines: list[tuple[str, str, str]]) -> nodes.table | None:
    if not lines:
        return None
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in (3, 2, 6)), cols=len(COLUMNS))
    group += nodes.thead("", _line(COLUMNS))
    group += nodes.tbody("", *map(_line, lines))
    return nodes.table("", group, classes=["parameters"])


def _line(entries: Iterable[str]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *_inline(entry))) for entry in entries))


def _inline(text: str) -> list[nodes.Node]:
    """Return text with what stands between backticks as code."""
    pieces = enumerate(text.split("`"))
    return [nodes.literal("", piece) if odd % 2 else nodes.Text(piece) for odd, piece in pieces if piece]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("doctree-read", add_box, priority=700)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
