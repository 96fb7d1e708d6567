"""How the training loss fell, epoch by epoch, to the target at which everything is measured."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from hbanalysis.plots.series import PLACE, cell, of_family, place
from hbanalysis.plots.style import batch_looks, grid, legend, line_key
from hbanalysis.store import Row
from hbanalysis.tables.frames import Family, families


def training_history(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """The running training loss by epoch, and the epochs at which the full loss crossed a threshold.

    The running loss is the mean over the mini-batches of an epoch; the crossings are those of the loss on
    the whole training set, measured several times an epoch near a threshold.

    Args:
        rows: rows of `spectrum_vs_batch`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `batch_size`,
        `seed`, `status`, `kind` ("running" or "crossing"), `epoch`, `loss`.

    Raises:
        InputError: no row has a history.
    """
    lines = []
    for one, group in families(rows).items():
        for row in group:
            for point in row.values.get("history") or []:
                lines.append(_line(one, row, "running", point["epoch"], point["loss_running"]))
            for point in row.values.get("crossings") or []:
                lines.append(_line(one, row, "crossing", point["epoch"], point["loss_train"]))
    columns = [*PLACE, "batch_size", "seed", "status", "kind", "epoch", "loss"]
    # A loss that is not a number belongs to a diverged training and has no place on the axis.
    data = pd.DataFrame(lines, columns=columns).dropna(subset=["loss"])
    chosen = [one for one in families(rows) if of_family(data, one).size]
    figure, axes = grid(chosen, ["loss"])
    looks = batch_looks(data["batch_size"])
    for one in chosen:
        panel = axes[one, "loss"]
        for _, path in of_family(data, one).groupby(["batch_size", "seed"]):
            look = looks[path["batch_size"].iloc[0]]
            running = path[path["kind"] == "running"]
            crossings = path[path["kind"] == "crossing"]
            panel.plot(running["epoch"], running["loss"], color=look.color, linewidth=1.0, alpha=0.8)
            panel.plot(crossings["epoch"], crossings["loss"], look.marker, color=look.color, zorder=3)
        panel.axhline(dict(one.setting)["target_loss"], color="0.35", linestyle=":", linewidth=1.2)
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xlabel("epoch")
        panel.set_ylabel("training loss")
    keys = [line_key("target", linestyle=":"), line_key("running loss, one seed", linewidth=1.0)]
    legend(figure, looks, "batch size: full loss at a crossing", keys)
    return figure, data


def _line(one: Family, row: Row, kind: str, epoch: int | float, loss: int | float | None) -> dict[str, object]:
    return place(one) | cell(row) | {"kind": kind, "epoch": epoch, "loss": loss}
