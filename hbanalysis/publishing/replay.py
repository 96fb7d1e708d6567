"""The data of a study notebook's figures, made again from the rows without a kernel.

A study's page is a function of rows: its figures come from ``fig_x, data_x = plots.f(page.rows)``. Running only what
these need (imports, parameters, `pages.start`, cells that set a name beginning with ``data_``, and the digests) gives
the frames that the figures were drawn from. That they are these is checked: the digests must read as they were printed
when the notebook was published.
"""

import ast
import contextlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from nbformat import NotebookNode

from hbanalysis.errors import InputError
from hbanalysis.plots import narrow
from hbanalysis.plots.style import stacked
from hbanalysis.publishing.subjects import Subject

PREFIX = "data_"
_STARTS = "start"
_DIGEST = "digest"


@dataclass
class Replay:
    """What a study notebook's figures were drawn from.

    Attributes:
        frames: The data of each figure by the figure's name, in the order of the page.
        stale: The lines of digests that the notebook shows and its rows no longer give.
        narrow: The figures that have a form for narrow screens, as PNG, by name, if these were asked for.
    """

    frames: dict[str, pd.DataFrame] = field(default_factory=dict)
    stale: list[str] = field(default_factory=list)
    narrow: dict[str, bytes] = field(default_factory=dict)


def subjects(notebook: NotebookNode) -> dict[str, Subject]:
    """Return what a notebook opens by ``pages.start("study", ...)``, by the variable of the page.

    Example:
        >>> import nbformat
        >>> cell = nbformat.v4.new_code_cell('page = pages.start("loss_landscape", globals())')
        >>> subjects(nbformat.v4.new_notebook(cells=[cell]))["page"].study
        'loss_landscape'
    """
    found = {}
    for cell in _code(notebook):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Assign) and _calls(node.value, _STARTS) and isinstance(node.targets[0], ast.Name):
                call = node.value
                if isinstance(call, ast.Call) and call.args and isinstance(call.args[0], ast.Constant):
                    narrowed = {one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg}
                    found[node.targets[0].id] = Subject.of(str(call.args[0].value), **narrowed)
    return found


def studies_shown(notebook: NotebookNode) -> list[str]:
    """Return the names of the studies whose rows a notebook shows, each once."""
    return list(dict.fromkeys(subject.study for subject in subjects(notebook).values()))


def figure_names(notebook: NotebookNode) -> list[str]:
    """Return the names of a notebook's figures, in their order."""
    return [name for cell in _code(notebook) if (name := figure_name(cell))]


def figure_name(cell: NotebookNode) -> str:
    """Return the name that ``mystnb.figure`` gives to a cell's figure, or an empty text."""
    return str(cell.metadata.get("mystnb", {}).get("figure", {}).get("name", ""))


def replay(notebook: NotebookNode, *, draw: bool = False) -> Replay:
    """Make the data of a study notebook's figures again.

    Args:
        notebook: A notebook that shows rows of studies, with its outputs.
        draw: Draw its figures as well, in the form for narrow screens, which the notebook does not hold.

    Returns:
        The frames by figure, and what does not agree with the notebook's outputs. A figure whose cell sets no
        ``data_`` name to a frame has no entry.

    Raises:
        InputError: The cells that are run need something that another kind of cell makes.
    """
    import matplotlib
    import matplotlib.pyplot as plt

    result = Replay()
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with _without_windows(matplotlib, plt):
        for cell in _code(notebook):
            tree = ast.parse(cell.source)
            names = _names_set(tree)
            whole = names or "parameters" in cell.metadata.get("tags", []) or _calls(tree, _STARTS, _DIGEST)
            with stacked():
                said = _run(tree if whole else _imports(tree), namespace)
            pictures = [narrow.picture(plt.figure(number)) for number in plt.get_fignums() if draw]
            plt.close("all")
            if _calls(tree, _DIGEST):
                result.stale += sorted(set(_printed(cell).splitlines()) - set(said.splitlines()))
            frames = [namespace[name] for name in names if isinstance(namespace.get(name), pd.DataFrame)]
            if (name := figure_name(cell)) and len(frames) == 1:
                result.frames[name] = frames[0]
                if picture := next(filter(None, pictures), None):
                    result.narrow[name] = picture
    return result


def value(expression: str, names: Mapping[str, Any]) -> Any:
    """Return the value of an expression that stands in a notebook's cell.

    Args:
        expression: Its text, such as ``page.rows[0]``.
        names: What its names stand for.

    Example:
        >>> value("max(rows)", {"rows": [1, 3, 2]})
        3
    """
    namespace = {"__name__": "__main__", **names}
    _run(ast.parse(f"value = {expression}"), namespace)
    return namespace["value"]


def _code(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "code")


def _names_set(tree: ast.Module) -> list[str]:
    """Names beginning with the prefix that a cell sets, each once."""
    names = (node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    return list(dict.fromkeys(name for name in names if name.startswith(PREFIX)))


def _calls(tree: ast.AST, *methods: str) -> bool:
    """Whether a method of one of these names is called: ``pages.start(...)``, ``page.digest(...)``."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(isinstance(function, ast.Attribute) and function.attr in methods for function in calls)


def _imports(tree: ast.Module) -> ast.Module:
    kept: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return ast.Module(kept, type_ignores=[])


def _run(tree: ast.Module, namespace: dict[str, Any]) -> str:
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            exec(compile(tree, "<notebook>", "exec"), namespace)
    except NameError as error:
        raise InputError(
            f"The data of a figure cannot be made again: {error}. Let its cell need only imports, parameters, pages "
            f"and names that begin with {PREFIX!r}."
        ) from error
    return said.getvalue()


def _printed(cell: NotebookNode) -> str:
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")


@contextlib.contextmanager
def _without_windows(matplotlib: Any, plt: Any) -> Iterator[None]:
    """Draw into memory, and leave matplotlib's settings as they were."""
    with matplotlib.rc_context():
        before = matplotlib.get_backend()
        plt.switch_backend("agg")
        try:
            yield
        finally:
            plt.switch_backend(before)
