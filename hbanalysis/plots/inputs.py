"""Curvature in the input: against the batch size, along the spectrum, along the training, and beside robustness."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hbanalysis.errors import InputError
from hbanalysis.plots.series import PLACE, cell, draw, of_family, place, with_means
from hbanalysis.plots.style import (
    STACKED,
    STACKED_WIDTH,
    Look,
    batch_axis,
    batch_looks,
    grid,
    house_style,
    is_stacked,
    legend,
    line_key,
)
from hbanalysis.store import Row
from hbanalysis.store.pictures import decoded
from hbanalysis.tables.frames import Family, families
from hbanalysis.tables.input_tables import KINDS, kind_of, measured_inputs, measured_rows

_SETS = {"train": Look((0.267, 0.005, 0.329, 1.0), "o"), "test": Look((0.128, 0.567, 0.551, 1.0), "s")}
_KINDS = {
    "train": Look((0.267, 0.005, 0.329, 1.0), "o"),
    "correct": Look((0.128, 0.567, 0.551, 1.0), "s"),
    "wrong": Look((0.702, 0.345, 0.024, 1.0), "^"),
    "attacked": Look((0.851, 0.310, 0.627, 1.0), "D"),
}
_QUANTITIES = {"lambda1": "largest eigenvalue", "gradient_norm": "gradient norm"}
_ENDS = ("smallest batch", "largest batch")
Panels = dict[tuple[Family, str], Axes]

_PICTURES = ("image", "gradient", "v1", "v2", "Newton")
_DPI = 92  # below the house's: five figures of two panels a family must fit into one page
_LOWEST = 1e-30  # what float32 logits leave of an eigenvalue below this is rounding


def input_curvature_vs_batch(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw means and medians over samples of the largest eigenvalue and the gradient norm against the batch size.

    Args:
        rows: Rows of `input_curvature`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `quantity`, `split`,
        `statistic`, `batch_size`, `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: There is no measured row.
    """
    points = []
    for one, group in families(measured_rows(rows)).items():
        for row in group:
            for quantity in _QUANTITIES:
                for split in _SETS:
                    for statistic, value in row.values[split][quantity].items():
                        names = {"quantity": quantity, "split": split, "statistic": statistic, "value": value}
                        points.append(place(one) | cell(row) | names)
    by = [*PLACE, "quantity", "split", "statistic", "batch_size"]
    data = _logarithmic(points, by)
    groups = families(measured_rows(rows))
    figure, axes = _grid(list(groups), list(_QUANTITIES.values()), share_y=False)
    for one in groups:
        part = of_family(data, one)
        for quantity, title in _QUANTITIES.items():
            panel = axes[one, title]
            for split, look in _SETS.items():
                for statistic, line in (("mean", "-"), ("median", ":")):
                    chosen = part[
                        (part[["quantity", "split", "statistic"]] == [quantity, split, statistic]).all(axis=1)
                    ]
                    draw(panel, chosen, "batch_size", look, line=line)
            panel.set_yscale("log")
            batch_axis(panel, part["batch_size"])
    keys = [line_key(f"{name} set", color=look.color, marker=look.marker) for name, look in _SETS.items()]
    legend(figure, {}, "", [*keys, line_key("mean over samples"), line_key("median", linestyle=":")])
    return figure, data


def input_spectra(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the c - 1 eigenvalues, medians over samples, by kind of sample, for the smallest and the largest batch.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `end`, `samples`, `index`,
        `batch_size`, `seed`, `status`, `value`, `kind`, `low`, `high`, `n`.

    Raises:
        InputError: There is no measured row.
    """
    points = []
    groups = families(measured_rows(rows))
    for one, group in groups.items():
        sizes = sorted({row.config["training"]["batch_size"] for row in group})
        for end, size in zip(_ENDS, (sizes[0], sizes[-1]), strict=True):
            for row in [r for r in group if r.config["training"]["batch_size"] == size]:
                for kind in KINDS:
                    found = kind_of(row, kind)
                    for index, value in enumerate(found["spectrum"]["median"] if found else [], start=1):
                        names = {"end": end, "samples": kind, "index": index, "value": value}
                        points.append(place(one) | cell(row) | names)
    data = _logarithmic(points, [*PLACE, "end", "samples", "index", "batch_size"])
    figure, axes = _grid(list(groups), list(_ENDS))
    for one in groups:
        part = of_family(data, one)
        for end in _ENDS:
            panel, chosen = axes[one, end], part[part["end"] == end]
            chosen = chosen.assign(low=np.nan, high=np.nan)  # four bands over one another would hide the lines
            for kind, look in _KINDS.items():
                draw(panel, chosen[chosen["samples"] == kind], "index", look)
            panel.set_yscale("log")
            panel.set_title(f"{end}, B = {chosen['batch_size'].iloc[0]}")
            panel.set_xlabel("eigenvalue number")
        axes[one, _ENDS[0]].set_ylabel("eigenvalue, median over samples")
    keys = [line_key(KINDS[kind], color=look.color, marker=look.marker) for kind, look in _KINDS.items()]
    legend(figure, {}, "", keys)
    return figure, data


def rank_and_doubt(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the effective rank and the largest eigenvalue of test samples against the doubt left, 1 - p_y.

    Samples of all seeds are taken together in decades of 1 - p_y, drawn at the decade's upper end.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`, `doubt`,
        `samples`, `effective_rank`, `lambda1`.

    Raises:
        InputError: There is no measured row.
    """
    lines = []
    groups = families(measured_rows(rows))
    for one, group in groups.items():
        for row in group:
            for entry in row.values["test"]["by_doubt"]:
                size = row.config["training"]["batch_size"]
                names = {"batch_size": size, "doubt": entry["doubt_at_most"], "samples": entry["samples"]}
                lines.append(place(one) | names | {name: entry[name] for name in ("effective_rank", "lambda1")})
    by = [*PLACE, "batch_size", "doubt"]
    frame = pd.DataFrame(lines, columns=[*by, "samples", "effective_rank", "lambda1"])
    for name in ("effective_rank", "lambda1"):
        frame[name] *= frame["samples"]
    data = frame.groupby(by, as_index=False).sum()
    for name in ("effective_rank", "lambda1"):
        data[name] /= data["samples"]
    columns = {"effective rank": "effective_rank", "largest eigenvalue": "lambda1"}
    figure, axes = _grid(list(groups), list(columns), share_y=False)
    looks = batch_looks(data["batch_size"])
    for one in groups:
        part = of_family(data, one)
        for title, name in columns.items():
            panel = axes[one, title]
            for size, look in looks.items():
                chosen = part[part["batch_size"] == size]
                panel.plot(chosen["doubt"], chosen[name], color=look.color, marker=look.marker, markersize=5)
            panel.set_xscale("log")
            panel.set_xlabel("1 - p of the label, at most")
        axes[one, "largest eigenvalue"].set_yscale("log")
        axes[one, "effective rank"].set_ylim(bottom=0)
    legend(figure, looks, "batch size")
    return figure, data


def along_training(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the largest eigenvalue in the input and the accuracy under FGSM while the training loss falls.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`, `seed`,
        `status`, `loss_train`, `lambda1`, `lambda1_median`, `accuracy` (percent, under FGSM).

    Raises:
        InputError: There is no measured row.
    """
    lines = []
    groups = families(measured_rows(rows))
    for one, group in groups.items():
        for row in group:
            for entry in row.values["course"]:
                found = {
                    "loss_train": entry["loss_train"],
                    "lambda1": entry["lambda1"]["mean"],
                    "lambda1_median": entry["lambda1"]["median"],
                    "accuracy": 100 * entry["robustness"],
                }
                lines.append(place(one) | cell(row) | found)
    names = ["loss_train", "lambda1", "lambda1_median", "accuracy"]
    data = pd.DataFrame(lines, columns=[*PLACE, "batch_size", "seed", "status", *names])
    columns = {"largest eigenvalue": "lambda1", "accuracy under FGSM (%)": "accuracy"}
    figure, axes = _grid(list(groups), list(columns), share_y=False)
    looks = batch_looks(data["batch_size"])
    for one in groups:
        for _, course in of_family(data, one).groupby(["batch_size", "seed"]):
            look = looks[int(course["batch_size"].iloc[0])]
            for title, name in columns.items():
                axes[one, title].plot(
                    course["loss_train"],
                    course[name],
                    color=look.color,
                    marker=look.marker,
                    linewidth=1.3,
                    markersize=5,
                )
            panel = axes[one, "largest eigenvalue"]
            panel.plot(course["loss_train"], course["lambda1_median"], ":", color=look.color, linewidth=1.3)
        for title in columns:
            axes[one, title].set_xscale("log")
            axes[one, title].invert_xaxis()
            axes[one, title].set_xlabel("training loss")
        axes[one, "largest eigenvalue"].set_yscale("log")
    legend(figure, looks, "batch size", [line_key("mean over samples"), line_key("median", linestyle=":")])
    return figure, data


def robustness_and_inputs(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy under FGSM against the largest input eigenvalue and against the boundary distance.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`, `seed`,
        `lambda1`, `distance`, `accuracy` (percent, under FGSM).

    Raises:
        InputError: There is no measured row.
    """
    groups = families(measured_rows(rows))
    parts = []
    for one, group in groups.items():
        frame = measured_inputs(group)
        chosen = frame[["batch_size", "seed"]].assign(
            lambda1=frame["lambda1_test"], distance=frame["distance_test"], accuracy=100 * frame["fgsm_test"]
        )
        parts.append(chosen.assign(**place(one)))
    columns = {"largest eigenvalue, mean": "lambda1", "boundary distance, median": "distance"}
    figure, axes = _grid(list(groups), list(columns))
    data = pd.concat(parts, ignore_index=True)
    looks = batch_looks(data["batch_size"])
    for one in groups:
        part = of_family(data, one)
        for title, name in columns.items():
            panel = axes[one, title]
            for size, look in looks.items():
                chosen = part[part["batch_size"] == size]
                panel.plot(chosen[name], chosen["accuracy"], look.marker, color=look.color, markersize=8)
            panel.set_xlabel(title)
            panel.set_title("")
        axes[one, next(iter(columns))].set_ylabel("accuracy under FGSM (%)")
    legend(figure, looks, "batch size")
    return figure, data


def input_directions(row: Row) -> tuple[Figure, pd.DataFrame]:
    """Draw a row's pictures: image, gradient, leading eigenvectors and Newton direction of samples near the boundary.

    Args:
        row: A row of `input_curvature`.

    Returns:
        The figure, and what stands over the pictures: columns `sample`, `label`, `predicted`, `doubt`, `shown`,
        `cosine` with the gradient (its modulus).

    Raises:
        InputError: The row holds no pictures.
    """
    entries = row.values.get("pictures")
    if not entries:
        raise InputError("This row holds no pictures: its training diverged. Take another row.")
    house_style()
    names = [name for name in _PICTURES if name in entries[0]["images"]]
    across = min(3, len(names)) if is_stacked() else len(names)
    down = -(-len(names) // across)
    width = STACKED_WIDTH / across if is_stacked() else 1.5
    size = (width * across, (width + 0.45) * down * len(entries))
    figure = plt.figure(figsize=size, layout="constrained", label=STACKED if is_stacked() else "")
    axes = figure.subplots(down * len(entries), across, squeeze=False).reshape(len(entries), -1)
    lines = []
    for number, entry in enumerate(entries):
        for panel in axes[number, len(names) :]:
            panel.set_axis_off()
        for panel, name in zip(axes[number], names, strict=False):
            picture = decoded(entry["images"][name])
            cosine = entry["cosines"].get(name)
            _show(panel, np.clip(picture, 0, 1) if cosine is None else _signed(picture))
            panel.set_title(_title(entry, name, cosine), fontsize=11)
            said = {key: entry[key] for key in ("sample", "label", "predicted", "doubt")}
            lines.append(said | {"shown": name, "cosine": cosine})
    return figure, pd.DataFrame(lines)


def _grid(groups: Sequence[Family], columns: Sequence[str], share_y: str | bool = "row") -> tuple[Figure, Panels]:
    figure, axes = grid(groups, columns, share_y=share_y)
    figure.set_dpi(_DPI)
    return figure, axes


def _title(entry: Mapping[str, Any], name: str, cosine: float | None) -> str:
    if cosine is None:
        return f"{entry['label']}, taken for {entry['predicted']}"
    words = {"v1": "$v_1$", "v2": "$v_2$", "Newton": "Newton"}
    return name if name == "gradient" else f"{words[name]}, cos {cosine:.2f}"


def _logarithmic(points: list[dict[str, Any]], by: Sequence[str]) -> pd.DataFrame:
    """Points with their geometric means; values that a logarithmic axis cannot hold are raised to its floor."""
    frame = pd.DataFrame(points, columns=[*by, "seed", "status", "value"])
    return with_means(frame.assign(value=frame["value"].clip(lower=_LOWEST)), by, logarithmic=True)


def _show(panel: Any, image: np.ndarray) -> None:
    flat = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
    panel.imshow(flat, cmap="gray", vmin=0, vmax=1)
    panel.set_axis_off()


def _signed(change: np.ndarray) -> np.ndarray:
    """Return a direction as an image: grey is none."""
    return 0.5 + change / (2 * max(float(np.abs(change).max()), 1e-12))
