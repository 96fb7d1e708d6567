"""Tables as several directives make them: of nodes, and as Markdown from frames."""

from collections.abc import Iterable, Sequence

import pandas as pd
from docutils import nodes

Entry = str | nodes.Node | Sequence[nodes.Node]


def table(
    columns: Sequence[str], lines: Iterable[Iterable[Entry]], kind: str, widths: Sequence[int] = ()
) -> nodes.table:
    """Return a table with one line of heads; ``kind`` is its class, ``widths`` are relative."""
    chosen = widths or [1] * len(columns)
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in chosen), cols=len(columns))
    group += nodes.thead("", _line(columns))
    group += nodes.tbody("", *map(_line, lines))
    return nodes.table("", group, classes=[kind])


def markdown(frame: pd.DataFrame) -> str:
    """Return a frame of texts as a Markdown table."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _line(entries: Iterable[Entry]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *_content(entry))) for entry in entries))


def _content(entry: Entry) -> Sequence[nodes.Node]:
    if isinstance(entry, str):
        return [nodes.Text(entry)]
    return [entry] if isinstance(entry, nodes.Node) else entry
