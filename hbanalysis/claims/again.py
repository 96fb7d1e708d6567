"""Command lines that compute published rows again."""

import shlex
from collections.abc import Iterable, Iterator

from hbanalysis import studies
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, families

_SHOWN = 8  # digits of a key that a command gives


def commands(study: str, rows: Iterable[Row], among: Iterable[Family] | None = None) -> tuple[str, ...]:
    """Return the command lines that compute these rows again, those of the largest scale first.

    A preset is named where it has all rows of a family, with their seeds where these are not its own; else the rows
    are named by their keys. Rows that no preset of the study has, such as those of scale ``custom``, have none.

    Args:
        study: Name of the study.
        rows: Its rows.
        among: Keep the rows of these families' scales, networks and data sets; all are kept without it.
    """
    kept = None if among is None else {(one.scale, one.network, one.dataset) for one in among}
    found = {}
    for one, group in families(rows).items():
        if kept is None or (one.scale, one.network, one.dataset) in kept:
            found.update(dict.fromkeys(_commands(study, one, group)))
    return tuple(found)


def _commands(name: str, one: Family, rows: Iterable[Row]) -> Iterator[str]:
    study, keys = studies.get(name), {row.key for row in rows}
    if one.scale not in study.scales:
        return
    # The paper's cells of MNIST have a preset of their own, of fewer seeds and batch sizes.
    scale = one.dataset if one.scale == "paper" and one.dataset in study.scales else one.scale
    seeds = sorted({row.config["training"]["seed"] for row in rows})
    for chosen in ({}, {"seeds": seeds}):
        if keys <= {study.key(cell) for cell in study.cells(scale, **chosen)}:
            yield shlex.join(["hbanalysis", "run", name, "--scale", scale, *_set(chosen)])
            return
    there = sorted(keys & {study.key(cell) for cell in study.cells(one.scale)})
    if there:
        picked = [word for key in there for word in ("--key", key[:_SHOWN])]
        yield shlex.join(["hbanalysis", "run", name, "--scale", one.scale, *picked])


def _set(chosen: dict[str, list[int]]) -> Iterator[str]:
    for name, value in chosen.items():
        yield from ("--set", f"{name}={value}".replace(" ", ""))
