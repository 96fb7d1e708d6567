"""What a study notebook calls: parameters checked, rows found or computed, outputs made comparable.

The first code cell of every study notebook is::

    from hbanalysis.publishing import pages
    page = pages.start("spectrum_vs_batch", globals())

At ``scale = "published"`` nothing is computed and every output depends on committed rows and code alone. Any
other scale takes rows from the local store, then published ones (labelled so, unless ``use_published`` is
false), and computes what neither has.
"""

import difflib
import hashlib
import json
import math
import time
import types
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from hbanalysis import arguments, studies
from hbanalysis.errors import InputError, unknown_name
from hbanalysis.publishing.subjects import Subject
from hbanalysis.records import comparison
from hbanalysis.running.display import duration
from hbanalysis.running.worker import compute_cell
from hbanalysis.store import Row, default_store, published
from hbanalysis.tables import frames

PUBLISHED = "published"
_OWN = {"scale": "str", "device": "str", "use_published": "bool"}
_IPYTHON = {"In", "Out", "exit", "quit", "open", "get_ipython"}
_SIGNIFICANT = 4


@dataclass(frozen=True)
class Page:
    """The rows of one study at one scale, as its notebook shows them.

    Attributes:
        study: The study.
        scale: ``"published"`` or the preset that was asked for.
        rows: Rows to show, largest scale first; `Row.origin` tells ``"here"`` from ``"published"``.
        published: Published rows of the cells in ``rows``.
        missing: Cells of the public presets that have no published row; empty at any other scale.
    """

    study: Any
    scale: str
    rows: list[Row]
    published: list[Row]
    missing: list[Any] = field(default_factory=list)

    def frame(self, digits: int | None = _SIGNIFICANT) -> pd.DataFrame:
        """Return one line a row, rounded to significant digits unless None; see `frames.measured`."""
        frame = frames.measured(self.rows)
        return frame if digits is None else significant(frame, digits)

    def missing_frame(self) -> pd.DataFrame:
        """Return the cells of the public presets that nobody has published yet, one line for all seeds of a setting."""
        seeds: dict[tuple[str, str], list[int]] = {}
        for cell in self.missing:
            line = (self.study.scale_of(cell), self.study.setting(cell))
            seeds.setdefault(line, []).append(cell.training.seed)
        lines = [[*line, ", ".join(map(str, found)), len(found)] for line, found in seeds.items()]
        return pd.DataFrame(lines, columns=["scale", "cell", "seeds", "cells not yet run"])

    def comparison(self, digits: int | None = _SIGNIFICANT) -> pd.DataFrame:
        """Return rows computed here beside the published ones; empty where nothing was computed."""
        here = [row for row in self.rows if row.origin == "here"]
        compared = comparison.compare(here, self.published)
        return compared if digits is None else significant(compared, digits)

    def summary(self) -> str:
        """Say what the page shows, a line for each scale and origin."""
        counts: dict[tuple[str, str], int] = {}
        for row in self.rows:
            counts[row.scale, row.origin] = counts.get((row.scale, row.origin), 0) + 1
        parts = [f"{scale}: {count} computed here" for (scale, origin), count in counts.items() if origin == "here"]
        parts += [f"{scale}: {count} published" for (scale, origin), count in counts.items() if origin != "here"]
        lacking: dict[str, int] = {}
        for cell in self.missing:
            scale = self.study.scale_of(cell)
            lacking[scale] = lacking.get(scale, 0) + 1
        parts += [f"{scale}: {count} not yet run" for scale, count in lacking.items()]
        return "\n  ".join(["Rows shown", *(parts or ["none"])])

    def digest(self, figure_data: Mapping[str, Any]) -> None:
        """Print digests of the rows and of each figure's data, compared by nbval in place of pictures.

        Args:
            figure_data: The data of every figure of the page, by the figure's name.
        """
        rows = sorted(row.to_json(schema=1) for row in self.rows)
        print(f"rows     {len(rows):6d}  {_sha(rows)}")
        for name, data in figure_data.items():
            print(f"figure   {name}  {_sha(plain(data))}")


def start(
    name: str, namespace: Mapping[str, Any], *, only: Collection[str] = (), without: Collection[str] = ()
) -> Page:
    """Check a notebook's parameters and return its page.

    Args:
        name: The study.
        namespace: The notebook's ``globals()``. The parameters are ``scale``, ``device``, ``use_published``
            and those of the study. Modules, functions, classes, names that IPython puts there and names that
            start with an underscore are passed over.
        only: Data sets that the page is about; the study's rows on others stand elsewhere. A scale that has none of
            them is shown with what it has, as a stand-in, and so is a data set that was asked for by name.
        without: In place of ``only``, the data sets that another page is about.

    Raises:
        InputError: Unknown study, data set, scale or parameter (nearest names are listed), or a value of a wrong type.
    """
    study, subject = studies.get(name), Subject.of(name, only, without)
    given = _parameters(study, namespace)
    scale = given.pop("scale", PUBLISHED) or PUBLISHED
    device, use_published = given.pop("device", None), given.pop("use_published", True)
    overrides = {key: value for key, value in given.items() if value is not None}
    if scale == PUBLISHED:
        if overrides:
            raise InputError(
                f"scale='published' shows every published row, so {', '.join(sorted(overrides))} cannot "
                f"choose among them. Give a scale that is computed: {', '.join(study.scales)}."
            )
        return _published_page(study, subject)
    cells = _cells(study, subject, scale, overrides)
    return _computed_page(study, scale, cells, device, use_published is not False)


def significant(frame: pd.DataFrame, digits: int = _SIGNIFICANT) -> pd.DataFrame:
    """Return the frame with every float rounded to significant digits.

    Example:
        >>> significant(pd.DataFrame({"x": [0.123456, 98765.4]}))["x"].tolist()
        [0.1235, 98770.0]
    """
    rounded = frame.copy()
    for column in rounded:
        if pd.api.types.is_float_dtype(rounded[column]):
            rounded[column] = [float(f"{value:.{digits}g}") for value in rounded[column]]
    return rounded


def plain(data: Any) -> Any:
    """Return data as lists, numbers of six significant digits and text, the same on every machine."""
    if isinstance(data, pd.Series):
        data = data.to_frame()
    if isinstance(data, pd.DataFrame):
        return [
            [str(c) for c in data.columns],
            *[[plain(v) for v in line] for line in data.itertuples(index=False)],
        ]
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, np.ndarray):
        return plain(data.tolist())
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [plain(item) for item in data]
    if isinstance(data, np.generic):
        data = data.item()
    if isinstance(data, float):
        return f"{data:.6g}" if math.isfinite(data) else str(data)
    return data if isinstance(data, int | bool | str | None) else str(data)


def _published_page(study: Any, subject: Subject) -> Page:
    rows = subject.published()
    known = {row.key for row in rows}
    missing: dict[str, Any] = {}
    for scale in sorted(study.scales, key=frames.scale_order):
        for cell in study.cells(scale):
            if study.key(cell) not in known and subject.takes(cell.training.dataset):
                missing.setdefault(study.key(cell), cell)
    return Page(study, PUBLISHED, rows, rows, list(missing.values()))


def _cells(study: Any, subject: Subject, scale: str, overrides: dict[str, Any]) -> list[Any]:
    cells = study.cells(scale, **overrides)
    if "dataset" in overrides:
        return cells
    return [cell for cell in cells if subject.takes(cell.training.dataset)] or cells


def _computed_page(study: Any, scale: str, cells: Sequence[Any], device: str | None, reuse: bool) -> Page:
    store, theirs = default_store(), published()
    rows, partners = [], []
    for cell in cells:
        key = study.key(cell)
        partner = theirs.get(study.name, key)
        row = store.get(study.name, key) or (partner if reuse else None)
        if row is None:
            began = time.monotonic()
            row, _ = compute_cell(study, cell, store, device=device)
            assert row is not None
            print(f"computed here: {study.label(cell)} ({duration(time.monotonic() - began)})")
        rows.append(row)
        if partner is not None:
            partners.append(partner)
    return Page(study, scale, rows, partners)


def _parameters(study: Any, namespace: Mapping[str, Any]) -> dict[str, Any]:
    kinds = _OWN | {name: arguments.kind_of(parameter.type) for name, parameter in study.parameters.items()}
    given = {name: value for name, value in namespace.items() if name in kinds}
    # Cells run again in an open notebook find what later cells defined, so there only near misses are
    # refused.
    again = any(isinstance(value, Page) for value in namespace.values())
    for name, value in namespace.items():
        if name in kinds or name.startswith("_") or name in _IPYTHON or not _is_data(value):
            continue
        if not again or difflib.get_close_matches(name, kinds, n=1, cutoff=0.75):
            raise unknown_name(f"parameter of {study.name}", name, kinds)
    arguments.check(given, kinds, study.name)
    return given


def _is_data(value: Any) -> bool:
    """Whether a value could be meant as a parameter: plain data, neither code nor the result of a cell."""
    if isinstance(value, types.ModuleType | type) or callable(value):
        return False
    return value is None or isinstance(value, bool | int | float | str | list | tuple | dict | set)


def _sha(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
