"""Rows of `loss_landscape` as tables: where the second-order picture ends, and curvature beside the weights' scale."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, distinct_titles, families, over_seeds

PLANES = {"eigenvectors": "first two eigenvectors", "filters": "two random directions"}
MEASURES = {
    "lambda1_train": "lambda1 of H",
    "scaled_lambda1_train": "lambda1 of D H D",
    "filter_curvature_train": "filter-normalised",
    "weight_norm": "norm of the weights",
}
LIMIT = 0.1  # a relative error of the quadratic model above this ends the second-order picture


def with_planes(rows: Iterable[Row]) -> list[Row]:
    """Return the rows that have planes."""
    return [row for row in rows if row.values.get("planes")]


def quadratic(plane: Mapping[str, Any], at: np.ndarray | None = None) -> np.ndarray:
    r"""Return what loss, slopes s and curvatures C at the weights predict over the plane, a line for each a.

    The values of a and b are those ``at``, by default the plane's own.

    .. math:: Q(a, b) = L(\theta) + a s_1 + b s_2 + \tfrac12 (a^2 C_{11} + 2 a b \, C_{12} + b^2 C_{22})

    Example:
        >>> plane = {"t": [-1.0, 0.0, 1.0], "loss_train": [[0, 0, 0], [0, 5.0, 0], [0, 0, 0]],
        ...          "slopes": [1.0, 0.0], "curvatures": [[2.0, 0.0], [0.0, 4.0]]}
        >>> quadratic(plane).tolist()
        [[7.0, 5.0, 7.0], [7.0, 5.0, 7.0], [9.0, 7.0, 9.0]]
    """
    t = np.asarray(plane["t"] if at is None else at, dtype=float)
    (first, second), C = plane["slopes"], np.asarray(plane["curvatures"], dtype=float)
    a, b = np.meshgrid(t, t, indexing="ij")
    middle = len(plane["t"]) // 2
    centre = plane["loss_train"][middle][middle]
    return centre + a * first + b * second + (a**2 * C[0, 0] + 2 * a * b * C[0, 1] + b**2 * C[1, 1]) / 2


def along_axes(rows: Iterable[Row]) -> pd.DataFrame:
    """Return training loss and quadratic model along both axes of every plane, a line a point.

    ``error`` is abs(quadratic - loss) / loss; 0 is left out.

    Returns:
        Columns ``family``, ``scale``, ``batch_size``, ``seed``, ``plane``, ``axis`` (1 or 2), ``t``, ``loss``,
        ``quadratic``, ``error``.
    """
    lines = []
    for one, group in families(with_planes(rows)).items():
        for row in group:
            training = row.config["training"]
            place = {"family": one, "scale": one.scale, "batch_size": training["batch_size"], "seed": training["seed"]}
            for name, plane in row.values["planes"].items():
                loss, model = np.asarray(plane["loss_train"], dtype=float), quadratic(plane)
                middle = len(plane["t"]) // 2
                for axis, here, there in (
                    (1, loss[:, middle], model[:, middle]),
                    (2, loss[middle], model[middle]),
                ):
                    for t, found, said in zip(plane["t"], here, there, strict=True):
                        if t:
                            error = abs(said - found) / found
                            point = {"t": t, "loss": float(found), "quadratic": float(said), "error": float(error)}
                            lines.append(place | {"plane": name, "axis": axis, **point})
    columns = ["family", "scale", "batch_size", "seed", "plane", "axis", "t", "loss", "quadratic", "error"]
    return pd.DataFrame(lines, columns=columns)


def reach(rows: Sequence[Row]) -> pd.DataFrame:
    """Return how far the quadratic model is right within a tenth of the loss, a line a family, batch size and axis.

    ``right to`` is the largest distance measured up to which it is right to both sides, ``wrong at`` the next one; the
    smallest over seeds. Units: those of the weights for eigenvectors, shares of the filters' lengths for random
    directions.
    """
    points = along_axes(rows)
    titles: dict[Family, str] = distinct_titles(families(with_planes(rows)))
    lines: list[dict[str, Any]] = []
    for one, title in titles.items():
        mine = points[[family == one for family in points["family"]]]
        for _, cells in mine.groupby(["plane", "axis", "batch_size"], sort=True):
            head = cells.iloc[0]
            distances = sorted({abs(t) for t in cells["t"]})
            wrong = {abs(t) for t, error in zip(cells["t"], cells["error"], strict=True) if error > LIMIT}
            first = min(wrong, default=None)
            right = [t for t in distances if first is None or t < first]
            lines.append(
                {
                    "scale": one.scale,
                    "trained": title,
                    "plane": PLANES[head["plane"]],
                    "axis": int(head["axis"]),
                    "batch_size": int(head["batch_size"]),
                    "seeds": int(cells["seed"].nunique()),
                    "right to": max(right, default=0.0),
                    "wrong at": np.nan if first is None else first,
                    "worst error": float(cells["error"].max()),
                }
            )
    return pd.DataFrame(lines)


def scales(rows: Sequence[Row]) -> pd.DataFrame:
    """Return means over seeds by batch size: curvatures of the training loss with and without scale, and norms."""
    table = over_seeds(rows, list(MEASURES))
    return table.rename(columns={name: text for name, text in MEASURES.items() if name in table})
