"""The commands on rows: which there are, how they compare, and one file of all."""

import json
from pathlib import Path
from typing import Annotated

import typer

from hbanalysis.cli.options import DataRoot, Device, Overrides, Scale, StorePath, Threads, cells_of, use_data_of
from hbanalysis.errors import InputError


def status(store: StorePath = None) -> None:
    """Show rows there and missing, by study and scale, local and published."""
    from hbanalysis import studies
    from hbanalysis.store import Store, published

    local, theirs = Store(store), published()
    print(f"{'study':24} {'scale':10} {'cells':>6} {'local':>6} {'published':>10} {'missing':>8}")
    for name in studies.names():
        study = studies.get(name)
        here = {row.key: row for row in local.rows(name)}
        there = {row.key: row for row in theirs.rows(name)}
        listed: set[str] = set()
        for scale in study.scales:
            keys = {study.key(cell) for cell in study.cells(scale)}
            listed |= keys
            counts = (
                len(keys),
                len(keys & set(here)),
                len(keys & set(there)),
                len(keys - set(here) - set(there)),
            )
            print(f"{name:24} {scale:10} {counts[0]:6d} {counts[1]:6d} {counts[2]:10d} {counts[3]:8d}")
        others = (len(set(here) - listed), len(set(there) - listed))
        if any(others):
            print(f"{name:24} {'(others)':10} {'':6} {others[0]:6d} {others[1]:10d} {'':8}")
    print(f"Local store: {local.root}")


def cells(
    study: Annotated[list[str] | None, typer.Argument(help="Studies; default: all.")] = None,
    *,
    scale: Scale,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: a JSON array.")] = False,
) -> None:
    """List a preset: keys of the rows, guessed seconds on one CPU thread, labels."""
    from hbanalysis import studies

    if overrides and len(study or ()) != 1:
        raise InputError(f"--set goes with one study; given {', '.join(study or studies.names())}.")
    found = []
    for name in study or [name for name in studies.names() if scale in studies.get(name).scales]:
        one = studies.get(name)
        for _, cell in cells_of(name, scale, overrides):
            entry = {"study": name, "key": one.key(cell), "seconds": round(one.cost(cell), 1)}
            found.append(entry | {"label": one.label(cell), "notebook": one.page(cell)})
    if as_json:
        print(json.dumps(found, indent=1))
        return
    for entry in found:
        print(f"{entry['study']:24} {entry['key']} {entry['seconds']:10,.0f} s  {entry['label']}")


def verify(row: str, device: Device = None, threads: Threads = 1, root: DataRoot = None) -> int:
    """Recompute published ROW (its key, or the beginning of it) and compare: published, here, ratio, band."""
    from hbanalysis.records import comparison
    from hbanalysis.records import verify as verification

    use_data_of(root)
    result = verification.verify(row, device=device, threads=threads)
    if result.here is not None:
        print(comparison.table(result.compared))
    return result.exit_code


def compare(
    study: Annotated[list[str] | None, typer.Option(help="Studies; default: all.")] = None,
    store: StorePath = None,
) -> int:
    """Set every row of the local store beside the published row of the same cell: published, here, ratio, band."""
    from hbanalysis import studies
    from hbanalysis.records import comparison
    from hbanalysis.store import Store, published
    from hbanalysis.studies.base import PRIVATE_SCALE

    names = [studies.get(name).name for name in study or studies.names()]
    here = [row for name in names for row in Store(store).rows(name) if row.scale != PRIVATE_SCALE]
    if not here:
        raise InputError(f"The local store {Store(store).root} has no row of {', '.join(names)}.")
    theirs = published().rows()
    compared, alone = comparison.compare(here, theirs), comparison.without_partner(here, theirs)
    print(comparison.table(compared))
    for row in alone:
        one = studies.get(row.study)
        print(f"No published row: {row.study}, {row.scale}: {one.label(one.from_config(row.config))}")
    return 0 if compared["inside"].all() else 1


def export(
    output: Annotated[Path, typer.Option(help="The CSV file; its dictionary is written beside it.")] = Path("rows.csv"),
    local: Annotated[bool, typer.Option("--local", help="Add the rows of the local store.")] = False,
    store: StorePath = None,
) -> None:
    """Write every published row as one tidy CSV file with a data dictionary."""
    from hbanalysis.records import export as exporter
    from hbanalysis.store import Store, published

    rows = published().rows() + (Store(store).rows() if local or store else [])
    for path in exporter.write(rows, output):
        print(path)


ALL = (status, cells, compare, verify, export)
