"""Links from the tables and figures of a study's page to the rows that their values were read from.

A line of a table names its rows by what stands in it: ``key``, or ``scale``, ``batch_size``, ``seed`` and the like. The
lines that name some rows of the page get one more cell, with a link to each; the paper's lines get none. A figure is
drawn by one call of `hbanalysis.plots`, whose argument says from which rows; one that a page computes by itself names
the command that runs the page.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import nbformat
from bs4 import BeautifulSoup, Tag
from docutils import nodes
from origins import ANCHOR, FOLDER, label_of
from sphinx.application import Sphinx

from hbanalysis.claims.again import commands
from hbanalysis.publishing import replay
from hbanalysis.store import Row
from hbanalysis.tables import frames

HEAD = "rows"
_MANY = 6  # more rows than this are not linked one by one
# What tables call the settings that tell rows apart.
_TRAINING = {
    "batch_size": "batch_size",
    "B": "batch_size",
    "seed": "seed",
    "network": "network",
    "dataset": "dataset",
    "activation": "activation",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
}
_NAMED = (*_TRAINING, "trained", "key")
# These tell rows of one training apart, and say nothing by themselves.
_FURTHER = ("scale", "model", "arm")
_PACED = ("batch_size", "B", "learning_rate", "lr")  # change along a training whose batch grows
# Tables with these columns tell of cells that have no row, or of tables of the paper.
_ROWLESS = {"cell", "cells not yet run", "in"}


def linked(html: str, rows: Sequence[Row], root: str) -> str:
    """Return a table of a notebook with a cell more in each line: links to the line's rows.

    Args:
        html: What pandas made of a frame; anything but one table with one line of heads is returned as it is.
        rows: The rows that the table was made of.
        root: Address of the folder of rows.
    """
    soup = BeautifulSoup(html, "html.parser")
    heads = soup.select("table.dataframe thead tr")
    if len(heads) != 1 or len(soup.find_all("table")) != 1:
        return html
    names = [cell.get_text() for cell in heads[0].find_all("th")]
    if not set(names) & set(_NAMED) or set(names) & _ROWLESS:
        return html
    facts = [(row, facts_of(row, rows)) for row in rows]
    found = []
    for line in soup.select("table.dataframe tbody tr"):
        said = dict(zip(names, (cell.get_text() for cell in line.find_all(["th", "td"])), strict=False))
        found.append((line, rows_of(said, facts)))
    if not any(chosen for _, chosen in found):
        return html
    heads[0].append(_cell(soup, "th", HEAD))
    for line, chosen in found:
        line.append(_links(soup, chosen, root))
    return str(soup)


def rows_of(said: Mapping[str, str], facts: Sequence[tuple[Row, Mapping[str, set[str]]]]) -> list[Row]:
    """Return the rows that agree with everything a line says of them; none where it says nothing, or is the paper's."""
    if said.get("source") == "paper" or "the paper's table" in said.values():
        return []
    named = {name: text for name, text in said.items() if name in (*_NAMED, *_FURTHER) and text}
    if not set(named) & set(_NAMED):
        return []
    return [row for row, known in facts if all(text in known.get(name, {text}) for name, text in named.items())]


def facts_of(row: Row, among: Sequence[Row]) -> dict[str, set[str]]:
    """Return what a table may say of a row, as tables write it."""
    training = row.config["training"]
    own = frames.family(row)
    families = frames.families(other for other in among if other.study == row.study)
    facts = {name: {_written(training[setting])} for name, setting in _TRAINING.items()}
    titles = {own.title, frames.distinct_titles(families)[own], f"{own.network}, {own.dataset}"}
    facts |= {"scale": {row.scale}, "key": {row.key}, "trained": titles}
    facts |= {name: {row.config[name]} for name in ("model", "arm") if name in row.config}
    return {name: texts for name, texts in facts.items() if "arm" not in facts or name not in _PACED}


def rows_of_figure(source: str, pages: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Return the rows that a cell draws: those of ``plots.f(page.rows)``, or the one of ``plots.f(page.rows[0])``.

    The argument may also be a name that the cell sets, such as ``first = next(row for row in page.rows if ...)``.

    Args:
        source: The cell's code.
        pages: The rows of each page by the name of its variable, in the page's order.
    """
    tree = ast.parse(source)
    settings = [node for node in tree.body if isinstance(node, ast.Assign)]
    named = {ast.unparse(node.targets[0]): ast.unparse(node.value) for node in settings}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).startswith("plots.") or not node.args:
            continue
        given = ast.unparse(node.args[0])
        pattern = r"next\(.*?\b(\w+)\.rows\b.*" if given in named else r"(\w+)\.rows(?:\[\d+\])?"
        expression = named.get(given, given)
        said = re.fullmatch(pattern, expression)
        if said and said[1] in pages:
            drawn = replay.value(expression, {said[1]: SimpleNamespace(rows=list(pages[said[1]]))})
            return [drawn] if isinstance(drawn, Row) else list(drawn or [])
    return []


def figure_line(rows: Sequence[Row], root: str) -> nodes.paragraph:
    """Return a line with a link to each row, family by family, and the commands that compute them again.

    Of many rows in a family the link leads to the list of the page.
    """
    line = nodes.paragraph("", "Rows: ", classes=["row-links"])
    by_family = frames.families(rows)
    titles = frames.distinct_titles(by_family)
    for number, (one, group) in enumerate(by_family.items()):
        line += nodes.Text(f"{'; ' * bool(number)}{titles[one]}, {one.scale}: ")
        if len(group) > _MANY:
            line += nodes.reference("", f"{len(group)} rows", refuri=f"#{ANCHOR}", internal=True)
        for place, row in enumerate(group if len(group) <= _MANY else ()):
            line += nodes.Text(" " * bool(place))
            link = nodes.reference("", row.key[:4], refuri=f"{root}/{row.study}/{row.key}.json", internal=True)
            link["reftitle"] = f"{label_of(row)}, {row.scale}"
            line += link
    for number, command in enumerate(commands(rows[0].study, rows)):
        line += [nodes.Text(", " if number else ". Again: "), nodes.literal("", command)]
    return line


def again_line(source: Path) -> nodes.paragraph:
    """Return the line of a figure that its page computes by itself: the command that runs the page."""
    command = f"papermill notebooks/{source.name} out.ipynb"
    return nodes.paragraph("", "Again: ", nodes.literal("", command), classes=["row-links"])


def add_links(app: Sphinx, doctree: nodes.document) -> None:
    """Add the links to all tables and figures of a notebook's page."""
    docname = app.env.docname
    source = Path(app.env.doc2path(docname))
    if source.suffix != ".ipynb":
        return
    notebook = nbformat.read(source, as_version=4)
    root = "../" * docname.count("/") + FOLDER
    rows = {variable: subject.published() for variable, subject in replay.subjects(notebook).items()}
    for cell in doctree.findall(lambda node: isinstance(node, nodes.container) and "cell_index" in node):
        text = notebook.cells[cell["cell_index"]].source
        used = [row for variable in rows if re.search(rf"\b{variable}\b", text) for row in rows[variable]]
        for table in [node for node in cell.findall(nodes.raw) if 'class="dataframe"' in node.astext()]:
            # Cells that show a frame made earlier do not name the page it came from.
            of_cell = used or [row for some in rows.values() for row in some]
            table.replace_self(nodes.raw("", linked(table.astext(), of_cell, root), format="html"))
        for legend in [node for figure in cell.findall(nodes.figure) for node in figure.findall(nodes.legend)]:
            drawn = rows_of_figure(text, rows)
            legend += figure_line(drawn, root) if drawn else again_line(source)


def _links(soup: BeautifulSoup, rows: Sequence[Row], root: str) -> Tag:
    cell = soup.new_tag("td")
    cell["class"] = "row-links"
    if len(rows) > _MANY:
        cell.append(_link(soup, f"{len(rows)} rows", f"#{ANCHOR}", f"the {len(rows)} rows behind this line"))
        return cell
    for number, row in enumerate(rows):
        if number:
            cell.append(" ")
        label = f"{label_of(row)}, {row.scale}"
        text = row.key[:4]
        cell.append(_link(soup, text, f"{root}/{row.study}/{row.key}.json", label))
    return cell


def _link(soup: BeautifulSoup, text: str, address: str, title: str) -> Tag:
    link = soup.new_tag("a", href=address, title=title)
    link["class"] = "row-link"
    link.string = text
    return link


def _cell(soup: BeautifulSoup, name: str, text: str) -> Tag:
    cell = soup.new_tag(name)
    cell.string = text
    return cell


def _written(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("doctree-read", add_links, priority=600)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
