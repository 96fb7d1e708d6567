"""Runs notebooks through papermill in a scratch folder and writes successful runs back in one normal form.

The normal form makes a run comparable: no injected cell (the parameters cell itself shows the values that
were used), no timestamps, cell ids from the cells' contents, streams joined, executions counted from 1. What
changes from run to run stands in one small block, ``metadata.hbanalysis``: date, seconds, device, parameters,
versions, commit.
"""

import ast
import base64
import hashlib
import io
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from hbanalysis import __version__, arguments
from hbanalysis.errors import InputError, NotebookError, StoreError, unknown_name
from hbanalysis.files import sweep, write_atomically
from hbanalysis.folders import PROJECT

BLOCK = "hbanalysis"
_INJECTED = {"injected-parameters", "papermill-error-cell-tag"}
_VOLATILE = {"papermill", "execution", "ExecuteTime", "collapsed", "scrolled", "trusted"}
# The kernel would warn on the terminal that it listens on this machine without encryption.
_QUIET = ("--log-level=ERROR",)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Declared:
    """One parameter of a notebook: its type as text, its default and what it is for."""

    kind: str
    default: Any
    help: str


def folder() -> Path:
    """Return the folder of the project's notebooks.

    Raises:
        InputError: The package was installed without the project's repository.
    """
    where = PROJECT / "notebooks"
    if not where.is_dir():
        raise InputError(f"There is no folder {where}. The notebooks come with a clone of the project's repository.")
    return where


def names() -> list[str]:
    """Return the names of the project's notebooks, in the order of the book."""
    return sorted(path.stem for path in folder().glob("*.ipynb"))


def find(name: str) -> Path:
    """Return the path of a notebook: a path that exists, a name, or the number a name begins with.

    Raises:
        InputError: No such notebook; the nearest names are listed.
    """
    if name.endswith(".ipynb") and Path(name).is_file():
        return Path(name).resolve()
    stem = Path(name).name.removesuffix(".ipynb")
    numbered = [known for known in names() if known == stem or known.partition("_")[0] == stem]
    if len(numbered) != 1:
        raise unknown_name("notebook", name, names())
    return folder() / f"{numbered[0]}.ipynb"


def declared(path: Path) -> dict[str, Declared]:
    """Return the parameters that a notebook declares in its cell tagged ``parameters``."""
    import papermill

    found = {}
    for name, one in papermill.inspect_notebook(str(path)).items():
        try:
            default = ast.literal_eval(one["default"])
        except (ValueError, SyntaxError):
            default = one["default"]
        kind = arguments.kind_of(one["inferred_type_name"])
        if kind == "None":
            kind = "" if default is None else type(default).__name__
        found[name] = Declared(kind, default, one["help"])
    return found


def check(path: Path, parameters: Mapping[str, Any]) -> None:
    """Check names and types of parameters against what a notebook declares; papermill itself only logs them.

    Raises:
        InputError: Unknown name (the nearest are listed) or a value of another type.
    """
    kinds = {name: one.kind for name, one in declared(path).items()}
    if parameters and not kinds:
        raise InputError(f"{path.name} takes no parameters; given {', '.join(parameters)}.")
    arguments.check(parameters, kinds, path.name)


def execute(
    path: Path,
    parameters: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    progress: bool = False,
) -> NotebookNode:
    """Run a notebook with this Python in a scratch folder and return the run in normal form.

    Args:
        path: The notebook; it is not changed.
        parameters: Values for its parameters cell.
        environment: Variables for the kernel, beside those of this process.
        progress: Let papermill draw its bar of cells on standard error.

    Raises:
        InputError: Wrong parameters, or a cell raised an `InputError`.
        NotebookError: A cell raised another error; the message names cell and error.
    """
    import papermill

    given = dict(parameters or {})
    check(path, given)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hbanalysis-notebook-") as scratch:
        try:
            run = papermill.execute_notebook(
                str(path),
                str(Path(scratch) / path.name),
                parameters=given,
                cwd=scratch,
                kernel_name="python3",
                language="python",
                progress_bar=progress,
                kernel_manager_class=_kernel_manager(Path(scratch), environment or {}),
            )
        except papermill.PapermillExecutionError as error:
            message = _ANSI.sub("", error.evalue)
            if error.ename in ("InputError", "MissingDataError"):
                raise InputError(f"{path.name}: {message}") from error
            trace = _ANSI.sub("", "\n".join(error.traceback[-3:]))
            raise NotebookError(f"{path.name}, cell {error.cell_index}: {error.ename}: {message}\n{trace}") from error
    device = given.get("device") or _default_device()
    block = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "seconds": round(time.monotonic() - started),
        "device": device,
        "parameters": given,
        "version": __version__,
        **_origin(device),
    }
    return normal_form(run, given, block)


def normal_form(notebook: NotebookNode, parameters: Mapping[str, Any], block: Mapping[str, Any]) -> NotebookNode:
    """Return a run without anything that changes between two runs of the same thing.

    Args:
        notebook: What papermill returned.
        parameters: The values given; they are written into the parameters cell.
        block: The content of ``metadata.hbanalysis``.
    """
    result = nbformat.from_dict(notebook)
    result.cells = [cell for cell in result.cells if not _INJECTED & set(cell.metadata.get("tags", []))]
    count, taken = 0, set[str]()
    for cell in result.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = with_values(cell.source, parameters)
        cell.metadata = NotebookNode({k: v for k, v in cell.metadata.items() if k not in _VOLATILE})
        cell.id = _identifier(cell, taken)
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            cell.execution_count = count if cell.source.strip() else None
            cell.outputs = [_plain_output(output, cell.execution_count) for output in _joined(cell.outputs)]
    kept = {k: v for k, v in result.metadata.items() if k not in {"papermill", "widgets", "language_info", BLOCK}}
    kept["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    result.metadata = nbformat.from_dict({**kept, "language_info": {"name": "python"}, BLOCK: dict(block)})
    result.nbformat, result.nbformat_minor = 4, 5
    nbformat.validate(result)
    return result


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """Return the source of a parameters cell with the values of some assignments replaced.

    Example:
        >>> with_values('scale: str = "published"  # preset', {"scale": "digits"})
        "scale: str = 'digits'  # preset"
    """
    lines = source.splitlines(keepends=True)
    places = []
    for node in ast.parse(source).body:
        target = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id in values and value is not None:
            places.append((value, values[target.id]))
    for node, new in reversed(places):
        # Columns of the syntax tree count bytes.
        first, last = lines[node.lineno - 1].encode(), lines[node.end_lineno - 1].encode()
        replaced = first[: node.col_offset] + repr(new).encode() + last[node.end_col_offset :]
        lines[node.lineno - 1 : node.end_lineno] = [replaced.decode()]
    return "".join(lines)


def write(notebook: NotebookNode, target: Path) -> None:
    """Write a notebook in one piece: either the new text is there or the old one still is.

    Raises:
        InputError: The target cannot be written.
    """
    try:
        write_atomically(target, nbformat.writes(notebook) + "\n")
    except StoreError as error:
        raise InputError(f"Cannot write {target}. Name a file you may write to.") from error


def publish(chosen: Iterable[str] = (), *, progress: bool = False) -> list[Path]:
    """Run committed notebooks at their defaults and write them back where anything but the date changed.

    Args:
        chosen: Names of notebooks; none means all of them.
        progress: Let papermill draw its bar of cells on standard error.

    Returns:
        The notebooks whose text changed.

    Raises:
        NotebookError: A cell failed, or one wrote to standard error, which would fail the build of the site.
    """
    changed = []
    sweep(folder())
    for path in [find(name) for name in chosen] or [folder() / f"{name}.ipynb" for name in names()]:
        run = execute(path, progress=progress)
        words = [output.text for cell in run.cells for output in cell.get("outputs", []) if _is_error_stream(output)]
        if words:
            raise NotebookError(f"{path.name} wrote to standard error and was not published: {words[0][:500]}")
        if _without_block(run) != _without_block(nbformat.read(path, as_version=4)):
            write(run, path)
            changed.append(path)
    return changed


def _without_block(notebook: NotebookNode) -> str:
    copy = nbformat.from_dict(notebook)
    copy.metadata.pop(BLOCK, None)
    return nbformat.writes(copy)


def _is_error_stream(output: NotebookNode) -> bool:
    return output.output_type == "stream" and output.name == "stderr"


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: where a stream was cut depends on the clock."""
    joined: list[NotebookNode] = []
    for output in outputs:
        previous = joined[-1] if joined else None
        if output.output_type == "stream" and previous is not None and previous.get("name") == output.name:
            previous.text += output.text
        else:
            joined.append(nbformat.from_dict(output))
    return joined


def _plain_output(output: NotebookNode, count: int | None) -> NotebookNode:
    output.pop("transient", None)
    if "image/png" in output.get("data", {}):
        output.data["image/png"] = _small_png(output.data["image/png"])
    if output.output_type == "execute_result":
        output.execution_count = count
    return output


def _small_png(encoded: str) -> str:
    """Keep a figure's picture in 32 colours, which suffice for lines and text: a fifth of the bytes; and its data."""
    from PIL import Image

    from hbanalysis.plots.shown import chunk_of

    picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
    if picture.mode == "P":
        return encoded
    small = io.BytesIO()
    flat = picture.convert("RGB").quantize(32, method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE)
    flat.save(small, "PNG", optimize=True, pnginfo=chunk_of(picture))
    return base64.b64encode(small.getvalue()).decode()


def _identifier(cell: NotebookNode, taken: set[str]) -> str:
    content = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    number, identifier = 1, content
    while identifier in taken:
        number += 1
        identifier = f"{content}-{number}"
    taken.add(identifier)
    return identifier


def _kernel_manager(scratch: Path, environment: Mapping[str, str]) -> type:
    """The kernel is this interpreter, whatever kernels are installed, and reads no personal profile."""
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    specification = KernelSpec(
        argv=[sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", *_QUIET, "-f", "{connection_file}"],
        display_name="Python 3",
        language="python",
        env={
            "PYTHONPATH": path,
            "IPYTHONDIR": str(scratch / ".ipython"),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            **environment,
        },
    )

    class ThisPython(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            return specification

    return ThisPython


def _origin(device: str) -> dict[str, Any]:
    from hbanalysis.store.provenance import environment

    return {name: text for name, text in environment(device).items() if name in ("torch", "python", "commit")}


def _default_device() -> str:
    from hbanalysis.running.compute import uses_cuda

    return "cuda" if uses_cuda(None) else "cpu"
