"""The command ``hbanalysis``.

Exit codes: 0 complete, 1 failed, 2 bad input, 3 stopped with cells missing, 130 interrupted.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbanalysis import __version__
from hbanalysis.cli import file_commands, row_commands
from hbanalysis.cli.options import (
    DataRoot,
    Device,
    Overrides,
    Scale,
    StorePath,
    Threads,
    Workers,
    cells_of,
    use_data_of,
)
from hbanalysis.errors import InputError, NotebookError, NumericalError, StoreError

if TYPE_CHECKING:
    from hbanalysis.store import Store

# The time budget of a command counts from here, since importing torch takes seconds of it.
_STARTED = time.monotonic()

# Everything that imports torch is imported by the command that needs it, so that --help answers at once.

_ON_ONE_CARD = 6  # processes that share a GPU: small trainings wait for kernels to start more than for arithmetic

app = typer.Typer(
    help="Compute, inspect, publish and verify the rows of the book.",
    epilog="Exit codes: 0 complete, 1 failed, 2 bad input, 3 stopped with cells missing, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
for files in (file_commands.data, file_commands.archive, file_commands.store):
    app.add_typer(files)
for command in (
    row_commands.status,
    row_commands.cells,
    row_commands.compare,
    row_commands.verify,
    row_commands.export,
):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    study: Annotated[str | None, typer.Argument(help="Name of a study; see `hbanalysis status`.")] = None,
    *,
    scale: Scale,
    everything: Annotated[
        bool, typer.Option("--all", help="Every study's cells, by what the book lacks most; prints the plan first.")
    ] = False,
    overrides: Overrides = None,
    key: Annotated[
        list[str] | None, typer.Option(help="Only cells whose keys begin so; see `hbanalysis cells`.")
    ] = None,
    device: Device = None,
    time_budget: Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop cleanly inside this time.")] = None,
    workers: Workers = None,
    threads: Threads = 1,
    low_priority: Annotated[bool, typer.Option("--low-priority", help="Compute at the lowest priority.")] = False,
    store: StorePath = None,
    root: DataRoot = None,
) -> int:
    """Compute the cells of STUDY (or --all) that the local store lacks; run it again to go on where it stopped."""
    from hbanalysis import studies
    from hbanalysis.running import compute
    from hbanalysis.running.display import duration
    from hbanalysis.store import Store

    use_data_of(root)
    if time_budget is not None and time_budget <= 0:
        raise InputError(f"The time budget must be positive; given {time_budget:g} seconds.")
    if (study is None) != everything:
        raise InputError("Name one study, or say --all; see `hbanalysis status` for the names.")
    place = Store(store)
    if everything:
        work, workers = _everything(scale, overrides, place, device, workers)
    else:
        work = cells_of(study or "", scale, overrides)
    if key:
        work = [(name, cell) for name, cell in work if studies.get(name).key(cell).startswith(tuple(key))]
        if not work:
            raise InputError(f"No cell has a key that begins with {', '.join(key)}; see `hbanalysis cells`.")
    outcome = compute.run(
        work,
        place,
        device=device,
        workers=workers,
        threads=threads,
        time_budget=time_budget and max(time_budget - (time.monotonic() - _STARTED), 0.001),
        low_priority=low_priority,
        longest_first=not everything,
    )
    spent = sum(outcome.cpu_seconds.values())
    print(
        f"{study or 'all studies'}, {scale}: {len(outcome.computed)} computed, {len(outcome.present)} there before, "
        f"{len(outcome.missing)} missing, {len(outcome.failed)} failed; {duration(outcome.elapsed)}, "
        f"{spent:.0f} CPU-seconds; store {place.root}"
    )
    return outcome.exit_code


def _everything(
    scale: str, overrides: list[str] | None, store: "Store", device: str | None, workers: int | None
) -> tuple[list[tuple[str, Any]], int]:
    from hbanalysis.running import agenda, compute
    from hbanalysis.store import published

    if overrides:
        raise InputError("--set goes with one study; given --all.")
    cuda = compute.uses_cuda(device)
    count = workers or (_ON_ONE_CARD if cuda else max(1, len(os.sched_getaffinity(0))))
    done = (row.key for row in published().rows())
    plan = agenda.plan(scale, store, device or ("cuda" if cuda else "cpu"), count, done)
    print(plan, file=sys.stderr, flush=True)
    if plan.left_out and not plan.work:
        raise InputError(f"No data set of scale {scale} is here; get one with `hbanalysis data fetch`.")
    return plan.work, count


@app.command()
def notebook(
    name: str,
    parameters: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", metavar="NAME=VALUE", help="A parameter (YAML).")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Where the run is written; default: NAME_run.ipynb here.")] = None,
) -> None:
    """Run notebook NAME through papermill, names and types of parameters checked, into a file of its own."""
    from hbanalysis import arguments
    from hbanalysis.publishing import notebooks

    path = notebooks.find(name)
    kinds = {key: one.kind for key, one in notebooks.declared(path).items()}
    values = arguments.parse_assignments(parameters or [], kinds, path.name)
    target = (output or Path(f"{path.stem}_run.ipynb")).absolute()
    if target.resolve() == path:
        raise InputError(f"{path} is the source; name another --output, or run `hbanalysis publish --notebooks`.")
    notebooks.write(notebooks.execute(path, values, progress=sys.stderr.isatty()), target)
    print(target)


@app.command()
def book(
    seeds: Annotated[int, typer.Option(help="How many of the preset's seeds.")] = 1,
    scale: Annotated[str, typer.Option(help="Preset to compute.")] = "digits",
    device: Device = None,
    workers: Workers = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away what an earlier run left.")] = False,
) -> int:
    """Compute every study here, run every notebook and build the site of it in build/live."""
    from hbanalysis.publishing import book as flow

    live = flow.make(
        scale=scale,
        seeds=seeds,
        device=device,
        workers=workers,
        fresh=fresh,
        say=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(flow.report(live))
    return live.exit_code


@app.command()
def publish(
    study: Annotated[list[str] | None, typer.Option(help="Studies; default: all.")] = None,
    scale: Annotated[list[str] | None, typer.Option(help="Scale labels; default: all but tiny.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Keys of rows, or their beginnings.")] = None,
    notebooks: Annotated[bool, typer.Option("--notebooks", help="Run the committed notebooks again, too.")] = False,
    store: StorePath = None,
) -> None:
    """Copy rows from the local store into book/results, and run the committed notebooks on them."""
    from hbanalysis import studies
    from hbanalysis.publishing import notebooks as runner
    from hbanalysis.publishing import readme
    from hbanalysis.store import Store, publish, published

    selected = bool(study or scale or key)
    if not selected and not notebooks:
        raise InputError("Say what to publish: --study, --scale, --key or --notebooks.")
    if selected:
        names = [studies.get(name).name for name in study or studies.names()]
        rows = [row for name in names for row in Store(store).rows(name)]
        rows = [row for row in rows if row.scale in scale] if scale else [r for r in rows if r.scale != "tiny"]
        if key:
            rows = [row for row in rows if row.key.startswith(tuple(key))]
        if not rows:
            raise InputError(f"No row of the local store {Store(store).root} fits; see `hbanalysis status`.")
        known = {(row.study, row.key): row for row in published().rows()}
        changed = [row for row in rows if known.get((row.study, row.key)) != row]
        publish(changed)
        print(f"{len(changed)} rows published, {len(rows) - len(changed)} were published before.")
        readme.refresh()
    if notebooks:
        changed_notebooks = runner.publish(progress=sys.stderr.isatty())
        print("Notebooks changed: " + (", ".join(path.name for path in changed_notebooks) or "none"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and leave with its exit code; an error is its message alone, without a traceback."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    code: Any
    try:
        code = app(args=arguments, standalone_mode=False)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StoreError, NumericalError, NotebookError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # typer keeps its own copy of click, whose usage errors are known by what they can do.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show()
        return error.exit_code
    return code if isinstance(code, int) else 0
