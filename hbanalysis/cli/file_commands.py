"""The commands on files: data sets, archives and the local store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbanalysis.cli.options import DataRoot, StorePath

if TYPE_CHECKING:
    from hbanalysis.records.archive import Contents

data = typer.Typer(name="data", help="List and fetch data sets.", no_args_is_help=True, rich_markup_mode=None)
archive = typer.Typer(
    name="archive", help="Rows with their checkpoints in one file.", no_args_is_help=True, rich_markup_mode=None
)
store = typer.Typer(name="store", help="Look after the local store.", no_args_is_help=True, rich_markup_mode=None)


@data.command("list")
def data_list(root: DataRoot = None) -> None:
    """List data sets: samples, whether they are here, where they come from."""
    from hbanalysis import data

    for name in data.names():
        one = data.describe(name)
        there = "embedded" if one.loader is None else "here" if data.available(name, root) else "not here"
        splits = ", ".join(f"{split} {size:,}" for split, size in one.splits.items())
        print(f"{name:14} {there:9} {splits}; {'x'.join(map(str, one.shape))}; {one.source}")
    print(f"Data folder: {data.root(root)}")


@data.command("fetch")
def data_fetch(name: str, root: DataRoot = None) -> None:
    """Download data set NAME by torchvision, with its checksums."""
    from hbanalysis import data

    print(f"{name} is in {data.fetch(name, root)}")


@store.command("verify")
def store_verify(
    store: StorePath = None,
    book: Annotated[bool, typer.Option("--published", help="Check the published rows instead.")] = False,
    root: DataRoot = None,
) -> int:
    """Check every row, checkpoint, piece of unfinished work and data file by its checksum; name what is damaged."""
    from hbanalysis import data
    from hbanalysis.records import store_check
    from hbanalysis.store import Store, published

    # A data folder that nobody named need not exist.
    where = root or (data.root() if data.root().is_dir() and not book else None)
    report = store_check.check(published() if book else Store(store), where)
    print(report.text())
    return report.exit_code


@archive.command("write")
def archive_write(
    target: Path,
    study: Annotated[list[str] | None, typer.Option(help="Studies; default: all.")] = None,
    scale: Annotated[list[str] | None, typer.Option(help="Scale labels; default: all.")] = None,
    store: StorePath = None,
) -> None:
    """Write rows of the local store with the checkpoints behind them into the file TARGET."""
    from hbanalysis import studies
    from hbanalysis.records import archive
    from hbanalysis.store import Store

    place = Store(store)
    names = [studies.get(name).name for name in study or studies.names()]
    rows = [row for name in names for row in place.rows(name) if not scale or row.scale in scale]
    _say_archive(target, archive.write(target, place, rows))


@archive.command("read")
def archive_read(
    source: Path,
    sha256: Annotated[str | None, typer.Option(help="What the file should be; its beginning is enough.")] = None,
    store: StorePath = None,
) -> None:
    """Check the archive SOURCE and put its rows and checkpoints into the local store."""
    from hbanalysis.records import archive
    from hbanalysis.store import Store

    _say_archive(source, archive.read(source, Store(store), sha256))


def _say_archive(path: Path, found: "Contents") -> None:
    print(f"{path}: {len(found.rows)} rows, {found.checkpoints} trainings, sha256 {found.sha256}")
