"""Computes the whole book here, from nothing: rows, notebooks, a site of its own below ``build/live``.

Every study is computed at scale ``digits`` (data embedded, no download) into ``build/live/store``; published
rows are not used. Every notebook then runs on these rows through papermill into ``build/live/notebooks``, and
the site is built from there. Nothing outside ``build/live`` is written. A run that was interrupted goes on
where it was: rows in ``build/live/store`` that this code (version and commit) computed are kept, unless
``fresh`` is asked for.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from hbanalysis import __version__, studies
from hbanalysis.errors import InputError
from hbanalysis.publishing import notebooks, replay
from hbanalysis.records import comparison
from hbanalysis.running import compute
from hbanalysis.running.display import duration
from hbanalysis.store import PUBLISHED_VARIABLE, STORE_VARIABLE, Row, Store, published
from hbanalysis.store.provenance import commit

BANNER_VARIABLE = "HBANALYSIS_BANNER"
_SITE = "from jupyter_book.cli.main import main; main()"


@dataclass(frozen=True)
class Budget:
    """CPU-seconds of one study: spent in this run, spent on all its rows, and allowed for them."""

    study: str
    rows: int
    spent_now: float
    spent_on_rows: float
    allowed: float


@dataclass
class Live:
    """What became of a book computed here.

    Attributes:
        outcome: What became of the cells.
        site: The built site's folder, or None if it was not built.
        compared: Rows here beside the published ones.
        unpublished: Rows whose cell has no published row.
        budgets: CPU-seconds by study.
    """

    outcome: compute.Outcome
    site: Path | None = None
    compared: pd.DataFrame = field(default_factory=pd.DataFrame)
    unpublished: list[Row] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """That of the cells; 1 where these are complete and the site was not built."""
        return self.outcome.exit_code or (0 if self.site is not None else 1)


def make(
    *,
    scale: str = "digits",
    seeds: int = 1,
    device: str | None = None,
    workers: int | None = None,
    fresh: bool = False,
    folder: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    show: bool | None = None,
) -> Live:
    """Compute every study, run every notebook and build the site of it.

    Args:
        scale: The preset to compute.
        seeds: How many of the preset's seeds, from the first.
        device: Where to compute; ``None`` lets the studies choose.
        workers: Number of processes; see `compute.run`.
        fresh: Throw away what an earlier run left.
        folder: Where everything is written; ``build/live`` of the project by default.
        say: Called with one line at every stage.
        show: ``False`` for no progress on standard error.

    Raises:
        InputError: Unknown scale, wrong device, no repository, or a folder that cannot be written.
        NotebookError: A cell of a notebook raised an error.
    """
    root = notebooks.folder().parent
    live = folder or root / "build" / "live"
    store = Store(live / "store")
    cells = {name: chosen(studies.get(name), scale, seeds) for name in studies.names()}
    if fresh:
        shutil.rmtree(live, ignore_errors=True)
    kept = drop_foreign(store)
    say(f"Computing {sum(map(len, cells.values()))} cells at scale {scale} into {live / 'store'}.")
    if kept:
        say(f"{kept} rows of an earlier run of this code are kept; --fresh computes them again.")
    tasks = [(name, cell) for name, ones in cells.items() for cell in ones]
    result = Live(compute.run(tasks, store, device=device, workers=workers, show=show))
    here = [row for name, ones in cells.items() for row in _rows(store, studies.get(name), ones)]
    result.budgets = [
        _budget(studies.get(name), scale, ones, seeds, store, result.outcome) for name, ones in cells.items()
    ]
    theirs = published().rows()
    result.compared = comparison.compare(here, theirs)
    result.unpublished = comparison.without_partner(here, theirs)
    if result.outcome.exit_code:
        return result
    copy_sources(root, live)
    _run_notebooks(root, live, store, scale, cells, device, say)
    say("Building the site.")
    result.site = _build(live, store, banner(scale, here))
    return result


def chosen(study: Any, scale: str, seeds: int) -> list[Any]:
    """Return the cells of a preset that have one of its first ``seeds`` seeds.

    Raises:
        InputError: Unknown scale, or ``seeds`` is not positive or more than the preset has.
    """
    cells = study.cells(scale)
    known = list(dict.fromkeys(_seed(study, cell) for cell in cells))
    if not 1 <= seeds <= len(known):
        raise InputError(f"Scale {scale!r} of {study.name} has {len(known)} seeds; given {seeds}.")
    return [cell for cell in cells if _seed(study, cell) in known[:seeds]]


def drop_foreign(store: Store) -> int:
    """Empty the store if other code computed any of its rows, checkpoints included; return how many rows stay."""
    rows = store.rows()
    own = (__version__, commit())
    if all((row.provenance.get("hbanalysis"), row.provenance.get("commit")) == own for row in rows):
        return len(rows)
    shutil.rmtree(store.root)
    return 0


def copy_sources(root: Path, live: Path) -> None:
    """Copy what the site is built from, leaving out notebooks, which are written as they run."""
    for name in ("_config.yml", "_toc.yml", "pyproject.toml"):
        live.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, live / name)
    for name in ("book", "notebooks", "_build"):
        shutil.rmtree(live / name, ignore_errors=True)
    shutil.copytree(root / "book", live / "book", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copytree(
        root / "notebooks", live / "notebooks", ignore=shutil.ignore_patterns("*.ipynb", "__pycache__", ".*")
    )


def banner(scale: str, rows: Sequence[Row]) -> str:
    """Say above every page where its numbers come from."""
    devices = sorted({row.provenance.get("device_name") or row.provenance["device"] for row in rows})
    return f"computed here: {scale}, {', '.join(devices)}, {datetime.now(UTC):%Y-%m-%d}"


def report(live: Live) -> str:
    """Return the closing text: rows here beside the published ones, and CPU-seconds beside their budgets."""
    lines = ["", comparison.table(live.compared)]
    if live.unpublished:
        lines.append(f"{len(live.unpublished)} rows here have no published partner.")
    for failure in live.outcome.failed:
        lines.append(f"FAILED: {failure.task.study}, {failure.task.label}: {failure.error}")
    if live.outcome.missing:
        lines.append(f"{len(live.outcome.missing)} cells are missing; run the same command again to go on.")
    lines += ["", "CPU-seconds by study:"]
    for one in live.budgets:
        verdict = "within" if one.spent_on_rows <= one.allowed else "OVER"
        lines.append(
            f"  {one.study}: {one.spent_on_rows:.0f} for {one.rows} rows, {verdict} the budget of "
            f"{one.allowed:.0f}; {one.spent_now:.0f} in this run"
        )
    if live.site is not None:
        lines += ["", f"The book computed here: {live.site / 'index.html'}"]
    return "\n".join(lines)


def _run_notebooks(
    root: Path,
    live: Path,
    store: Store,
    scale: str,
    cells: dict[str, list[Any]],
    device: str | None,
    say: Callable[[str], None],
) -> None:
    environment = {STORE_VARIABLE: str(store.root), PUBLISHED_VARIABLE: str(published().root)}
    for name in notebooks.names():
        path = notebooks.find(name)
        parameters: dict[str, Any] = {}
        if shown := replay.studies_shown(nbformat.read(path, as_version=4)):
            study = studies.get(shown[0])
            used = list(dict.fromkeys(_seed(study, cell) for cell in cells[study.name]))
            parameters = {"scale": scale, "seeds": used, "use_published": False}
        known = notebooks.declared(path)
        if device is not None and "device" in known:
            parameters["device"] = device
        run = notebooks.execute(path, parameters, environment=environment)
        notebooks.write(run, live / "notebooks" / path.name)
        say(f"{name}: run in {duration(run.metadata[notebooks.BLOCK]['seconds'])}")


def _build(live: Path, store: Store, text: str) -> Path | None:
    # The status page reads published rows; in this book these are the ones computed here, and its figures' data are
    # made again from them.
    places = {PUBLISHED_VARIABLE: str(store.root / "rows"), STORE_VARIABLE: str(store.root)}
    environment = {**os.environ, BANNER_VARIABLE: text, **places}
    site = live / "_build" / "html"
    command = [
        sys.executable,
        "-c",
        _SITE,
        "build",
        str(live),
        "--path-output",
        str(live),
        "-n",
        "-W",
        "--keep-going",
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not (site / "index.html").is_file():
        print((done.stdout + done.stderr)[-4000:], file=sys.stderr)
        return None
    return site


def _budget(study: Any, scale: str, cells: list[Any], seeds: int, store: Store, outcome: compute.Outcome) -> Budget:
    rows = _rows(store, study, cells)
    spent = sum(row.provenance.get("cpu_seconds") or 0.0 for row in rows)
    # A study states its budget for one seed at scale digits; elsewhere its cost estimate has to do.
    allowed = study.budget * seeds if scale == "digits" else sum(study.cost(cell) for cell in cells)
    return Budget(study.name, len(rows), outcome.cpu_seconds.get(study.name, 0.0), spent, allowed)


def _rows(store: Store, study: Any, cells: list[Any]) -> list[Row]:
    found = (store.get(study.name, study.key(cell)) for cell in cells)
    return [row for row in found if row is not None]


def _seed(study: Any, cell: Any) -> int:
    return study.config(cell)["training"]["seed"]
