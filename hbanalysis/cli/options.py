"""Options that several commands share, and what they mean."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

StorePath = Annotated[
    Path | None,
    typer.Option("--store", help="Local store; default: HBANALYSIS_STORE, else the user's cache folder."),
]
DataRoot = Annotated[
    Path | None,
    typer.Option("--root", help="Data folder; default: HBANALYSIS_DATA, else the user's cache folder."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:0, ...; default: cuda where present.")]
Workers = Annotated[int | None, typer.Option(help="Worker processes; default: one a core, one on CUDA.")]
Threads = Annotated[int, typer.Option(help="Threads of each worker process.")]
Scale = Annotated[str, typer.Option(help="Preset: digits, mnist, small, paper.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the preset (YAML).")
]


def cells_of(study: str, scale: str, overrides: list[str] | None) -> list[tuple[str, Any]]:
    """Return the cells of a study's preset with its overrides, each with the name of the study."""
    from hbanalysis import arguments, studies

    chosen = studies.get(study)
    kinds = {name: arguments.kind_of(one.type) for name, one in chosen.parameters.items()}
    values = arguments.parse_assignments(overrides or [], kinds, study)
    return [(study, cell) for cell in chosen.cells(scale, **values)]


def use_data_of(root: Path | None) -> None:
    """Worker processes find the data folder in their environment."""
    if root is not None:
        from hbanalysis import data

        os.environ[data.ROOT_VARIABLE] = str(root.absolute())
