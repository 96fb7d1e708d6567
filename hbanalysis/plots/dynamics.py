"""The course of trainings: curvature against epochs, steps and loss, with the lines where steps lose stability."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hbanalysis.plots.series import PLACE, cell, of_family, place
from hbanalysis.plots.style import batch_looks, grid, legend, line_key
from hbanalysis.store import Row
from hbanalysis.tables.dynamics import groups, stability_lines

_PLACES = {"epoch": "epoch", "step": "step", "loss_train": "training loss"}
_BESIDE = {
    "gradient_norm_train": "gradient norm",
    "fgsm_test": "accuracy under FGSM (%)",
}
_ENDS = ("smallest batch", "largest batch")
_LOWER, _UPPER, _ROBUST = "--", ":", "-."


def curvature_course(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw lambda1 against epochs, steps and training loss; robust trainings are dash-dotted (paper, Figs. 4 and 16).

    Args:
        rows: Rows of `training_dynamics`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`, `seed`,
        `status`, `train_epsilon`, and the values of each measured state.

    Raises:
        InputError: There is no row.
    """
    data, families = _data(rows), groups(rows)
    figure, axes = grid(list(families), list(_PLACES.values()))
    looks = batch_looks(data["batch_size"])
    for one, group in families.items():
        for name, title in _PLACES.items():
            panel = axes[one, title]
            for path in _trainings(of_family(data, one)):
                shown, look = path[path[name] > 0], looks[int(path["batch_size"].iloc[0])]
                panel.plot(
                    *(shown[name], shown["lambda1_train"], _style(path)),
                    color=look.color,
                    marker=look.marker,
                    markersize=3.5,
                    linewidth=1.3,
                )
            _stability(panel, group[0])
            panel.set_xscale("log")
            panel.set_yscale("log")
            panel.set_xlabel(title)
            panel.set_title("")
        axes[one, "training loss"].invert_xaxis()
        axes[one, "epoch"].set_ylabel("largest eigenvalue")
    keys = _stability_keys()
    if (data["train_epsilon"] > 0).any():
        keys.append(line_key("trained with FGSM images", linestyle=_ROBUST))
    legend(figure, looks, "batch size", keys)
    return figure, data


def sharpness_course(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the batch sharpness with its standard error, and lambda1 thin beside it, for the two extreme batch sizes.

    Args:
        rows: Rows of `training_dynamics`.

    Returns:
        The figure and the plotted data, as `curvature_course`.

    Raises:
        InputError: There is no row.
    """
    data, families = _data(rows), groups(rows)
    figure, axes = grid(list(families), list(_ENDS))
    looks = batch_looks(data["batch_size"])
    for one, group in families.items():
        part = of_family(data, one)
        sizes = sorted(int(size) for size in part["batch_size"].unique())
        for size, end in zip((sizes[0], sizes[-1]), _ENDS, strict=True):
            panel = axes[one, end]
            panel.set_title(f"B = {size}")
            for _, path in part[(part["batch_size"] == size) & (part["train_epsilon"] == 0)].groupby("seed"):
                shown = path[path["epoch"] > 0]
                errors = shown["sharpness_error"].fillna(0.0)
                look = looks[size]
                panel.errorbar(
                    *(shown["epoch"], shown["sharpness"]), errors, color=look.color, marker=look.marker, ms=3.5, lw=1.3
                )
                panel.plot(shown["epoch"], shown["lambda1_train"], color="0.45", linewidth=1.0)
            _stability(panel, group[0])
            panel.set_xscale("log")
            panel.set_yscale("symlog", linthresh=1.0)
            panel.set_xlabel("epoch")
        axes[one, _ENDS[0]].set_ylabel("curvature")
    legend(figure, looks, "batch sharpness", [*_stability_keys(), line_key("largest eigenvalue", linewidth=1.0)])
    return figure, data


def beside_the_curvature(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the gradient norm and the accuracy under FGSM against the training loss.

    Args:
        rows: Rows of `training_dynamics`.

    Returns:
        The figure and the plotted data, as `curvature_course`.

    Raises:
        InputError: There is no row.
    """
    data, families = _data(rows), groups(rows)
    figure, axes = grid(list(families), list(_BESIDE.values()), share_y=False)
    looks = batch_looks(data["batch_size"])
    for one in families:
        for path in _trainings(of_family(data, one)):
            look = looks[int(path["batch_size"].iloc[0])]
            for name, title in _BESIDE.items():
                values = path[name] * (100 if name == "fgsm_test" else 1)
                axes[one, title].plot(
                    *(path["loss_train"], values, _style(path)),
                    color=look.color,
                    marker=look.marker,
                    markersize=3.5,
                    linewidth=1.3,
                )
        for title in _BESIDE.values():
            panel = axes[one, title]
            panel.set_xscale("log")
            panel.invert_xaxis()
            panel.set_xlabel("training loss")
        axes[one, "gradient norm"].set_yscale("log")
    legend(figure, looks, "batch size")
    return figure, data


def _data(rows: Sequence[Row]) -> pd.DataFrame:
    lines: list[dict[str, Any]] = []
    for one, group in groups(rows).items():
        for row in group:
            head = place(one) | cell(row) | {"train_epsilon": row.config["train_epsilon"]}
            lines += [head | point for point in row.values["course"]]
    names = ["epoch", "step", "loss_train", "lambda1_train", "gradient_norm_train", "fgsm_test", "sharpness"]
    columns = [*PLACE, "batch_size", "seed", "status", "train_epsilon", *names, "sharpness_error", "lambda_min_train"]
    return pd.DataFrame(lines, columns=columns)


def _trainings(part: pd.DataFrame) -> list[pd.DataFrame]:
    return [path for _, path in part.groupby(["batch_size", "seed", "train_epsilon"])]


def _style(path: pd.DataFrame) -> str:
    return _ROBUST if path["train_epsilon"].iloc[0] else "-"


def _stability(panel: Axes, row: Row) -> None:
    lower, upper = stability_lines(row)
    panel.axhline(lower, color="0.35", linestyle=_LOWER, linewidth=1.2)
    panel.axhline(upper, color="0.35", linestyle=_UPPER, linewidth=1.4)


def _stability_keys() -> list[Any]:
    return [
        line_key(r"$2(1-\beta)/\eta$", linestyle=_LOWER, linewidth=1.2),
        line_key(r"$2(1+\beta)/\eta$", linestyle=_UPPER, linewidth=1.4),
    ]
