"""Rows of `batch_statistics` as tables: the same weights in eval mode and in train mode of batch normalisation."""

from collections.abc import Iterable, Sequence

import pandas as pd

from hbanalysis.lineup import COMMON, EVAL, MODES, OWN
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families

LABELS = {EVAL: "eval", OWN: "train, own batch", COMMON: "train, common batch"}
_QUANTITIES = {
    "loss": "loss",
    "gradient_norm": "gradient norm",
    "smallest": "smallest eigenvalue",
    "slope_along_filters": "slope along filters",
    "curvature_along_filters": "curvature along filters",
    "products": "products",
    "converged": "converged",
}
_UNIT = 2.0**-24  # rounding of single precision relative to a value: no bound says more of a product than its rounding


def measured(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that hold a measurement; a diverged training has none."""
    return [row for row in rows if row.values.get(EVAL)]


def groups(rows: Iterable[Row]) -> dict[Family, list[Row]]:
    """Return measured rows by what they share beside batch size and seed, as `frames.families`."""
    return families(measured(rows))


def by_mode(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one line a row and mode.

    Returns:
        Columns ``scale``, ``trained``, ``batch_size``, ``seed``, ``status``, ``mode``, ``statistics of`` (samples that
        share them; empty in eval mode), ``samples``, ``loss``, ``gradient norm``, ``lambda1``, ``bound``,
        ``lambda1 / loss``, ``smallest eigenvalue``, ``slope along filters``, ``curvature along filters``, ``products``,
        ``converged``. ``bound`` is that of the eigenvalue or the rounding of single precision, whichever is larger.
    """
    found = groups(rows)
    titles = distinct_titles(found)
    lines = []
    for one, group in found.items():
        for row in group:
            training = row.config["training"]
            place = {"scale": one.scale, "trained": titles[one], "batch_size": training["batch_size"]}
            place |= {"seed": training["seed"], "status": row.values["status"]}
            for mode in MODES:
                values = row.values[mode]
                line = {"mode": LABELS[mode], "statistics of": values["batch_size"], "samples": values["samples"]}
                largest = values["spectrum"][0]
                line |= {
                    "lambda1": largest,
                    "bound": max(values["bounds"][0], _UNIT * largest),
                    "lambda1 / loss": largest / values["loss"],
                }
                lines.append(place | line | {text: values[name] for name, text in _QUANTITIES.items()})
    first = ["scale", "trained", "batch_size", "seed", "status", "mode", "statistics of", "samples"]
    middle = ["loss", "gradient norm", "lambda1", "bound", "lambda1 / loss", "smallest eigenvalue"]
    rest = ["slope along filters", "curvature along filters", "products", "converged"]
    return pd.DataFrame(lines, columns=[*first, *middle, *rest]).astype({"statistics of": "Int64"})


def of_largest_batch(rows: Sequence[Row], mode: str, *, over_loss: bool = False) -> dict[int, tuple[float, int, int]]:
    """Return lambda1 at the largest batch over that at the smallest, and these two sizes, for each seed.

    Args:
        rows: Rows of one family.
        mode: One of `lineup.MODES`.
        over_loss: Take lambda1 over the loss in the same mode in place of lambda1.

    Trainings that did not reach their target are left out, and so are seeds with a single batch size.
    """
    by_seed: dict[int, dict[int, float]] = {}
    for row in measured(rows):
        training = row.config["training"]
        if _ended(row):
            value = _value(row, mode, "lambda1") / (_value(row, mode, "loss") if over_loss else 1.0)
            by_seed.setdefault(training["seed"], {})[training["batch_size"]] = value
    found = {}
    for seed, values in sorted(by_seed.items()):
        small, large = min(values), max(values)
        if small < large and values[small] > 0 and values[large] > 0:
            found[seed] = (values[large] / values[small], large, small)
    return found


def over_eval(rows: Sequence[Row], name: str, mode: str = OWN) -> dict[int, list[float]]:
    """Return a quantity in a train mode over the same in eval mode: by batch size, one value a seed.

    Args:
        rows: Rows of one family.
        name: ``lambda1``, ``loss`` or ``gradient_norm``.
        mode: One of `lineup.MODES`.
    """
    found: dict[int, list[float]] = {}
    for row in measured(rows):
        if _ended(row):
            train, evaluated = (_value(row, which, name) for which in (mode, EVAL))
            found.setdefault(row.config["training"]["batch_size"], []).append(train / evaluated)
    return dict(sorted(found.items()))


def _value(row: Row, mode: str, name: str) -> float:
    values = row.values[mode]
    return float(values["spectrum"][0] if name == "lambda1" else values[name])


def _ended(row: Row) -> bool:
    """Whether the training reached its target, or was finished where it had none."""
    return row.values["status"] in ("reached", "finished")
