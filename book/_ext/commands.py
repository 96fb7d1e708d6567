"""Directive ``command-help``: what a command of `hbanalysis` says of itself, so that the page cannot go stale."""

from collections.abc import Iterator

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from hbanalysis.cli import app as program

NAME, WIDTH = "hbanalysis", 84


def helps() -> dict[str, str]:
    """Return the help text of the program and of each of its commands, by name: "", "run", "store verify"."""
    return dict(_helps(typer.main.get_command(program), None, ""))


def _helps(command: typer.core.TyperGroup, parent: typer.Context | None, name: str) -> Iterator[tuple[str, str]]:
    width = {"max_content_width": WIDTH, "terminal_width": WIDTH}
    with command.make_context(name.split(" ")[-1] or NAME, [], parent, resilient_parsing=True, **width) as context:
        yield name, command.get_help(context)
        for part, inner in getattr(command, "commands", {}).items():
            yield from _helps(inner, context, f"{name} {part}".strip())


class CommandHelp(SphinxDirective):
    """The help of one command, or of the program itself."""

    optional_arguments = 2

    def run(self) -> list[nodes.Node]:
        """Return the text as it stands on a terminal."""
        name = " ".join(self.arguments)
        if name not in helps():
            raise self.error(f"hbanalysis has no command {name!r}; there are {', '.join(filter(None, helps()))}.")
        return [nodes.literal_block("", helps()[name], language="text")]


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_directive("command-help", CommandHelp)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
