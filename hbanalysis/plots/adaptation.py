"""Batches that grow along training, and what each way to choose the batch ends with."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from hbanalysis.lineup import ARMS
from hbanalysis.plots.series import PLACE, of_family, place
from hbanalysis.plots.style import Look, grid, legend, level_looks, line_key, remark
from hbanalysis.store import Row
from hbanalysis.tables.adaptive_tables import QUANTITIES, arms, groups, seed
from hbanalysis.tables.frames import Family

_COURSE = {"batch_size": "samples a step", "lambda1": r"$\lambda_1$ that is watched"}
_APART = 0.05
_ENDS = ("test accuracy (%)", "FGSM accuracy (%)", "PGD accuracy (%)")


def adaptive_course(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the batch size and the watched eigenvalue at each epoch, one curve a training; of the latter medians, too.

    Batch sizes are drawn a few percent apart, so that no arm hides another.

    Args:
        rows: Rows of `absa`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `arm`, `seed`, `epoch`,
        `step`, `batch_size`, `learning_rate`, `share`, `lambda1`, `loss_running`.

    Raises:
        InputError: There is no row.
    """
    families = groups(rows)
    lines = [head | point for head, row in _heads(families) for point in row.values["history"]]
    names = ["epoch", "step", *_COURSE, "learning_rate", "share", "loss_running"]
    data = pd.DataFrame(lines, columns=[*PLACE, "arm", "seed", *names])
    figure, axes = grid(list(families), list(_COURSE.values()), share_y=False)
    looks = _looks()
    for one in families:
        left, right = (axes[one, title] for title in _COURSE.values())
        for (arm, _), path in of_family(data, one).groupby(["arm", "seed"]):
            look, apart = looks[str(arm)], 1 + _APART * ARMS.index(str(arm))
            left.plot(path["epoch"], apart * path["batch_size"], color=look.color, linewidth=1.6, drawstyle="steps-mid")
            right.plot(path["epoch"], path["lambda1"], color=look.color, linewidth=0.8, alpha=0.35)
        for arm, paths in of_family(data, one).groupby("arm"):
            middle, look = paths.groupby("epoch")["lambda1"].median(), looks[str(arm)]
            right.plot(middle.index, middle, color=look.color, marker=look.marker, markersize=4)
        left.set_yscale("log", base=2)
        right.set_yscale("log", nonpositive="mask")
        for panel in (left, right):
            panel.set_xlabel("epoch")
        ticks = sorted({int(size) for size in of_family(data, one)["batch_size"]})
        left.set_yticks(ticks, [str(size) for size in ticks])
    legend(figure, {}, "how the batch is chosen", _keys())
    return figure, data


def steps_and_outcomes(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw test accuracy, clean and under FGSM and PGD, against the number of SGD steps, one mark a training.

    Args:
        rows: Rows of `absa`.

    Returns:
        The figure, and the plotted data: columns `scale`, `network`, `dataset`, `setting`, `arm`, `seed`, and one for
        each quantity of `hbanalysis.tables.adaptive_tables.QUANTITIES`.

    Raises:
        InputError: There is no row.
    """
    families = groups(rows)
    lines = [
        head | {quantity: read(row) for quantity, (read, _) in QUANTITIES.items()}
        for head, row in _heads(families)
        if row.values["at_target"]
    ]
    data = pd.DataFrame(lines, columns=[*PLACE, "arm", "seed", *QUANTITIES])
    figure, axes = grid(list(families), [name.removesuffix(" (%)") for name in _ENDS], share_y=False)
    looks = _looks()
    for one, group in families.items():
        part = of_family(data, one)
        for quantity in _ENDS:
            panel = axes[one, quantity.removesuffix(" (%)")]
            for arm, ended in part.groupby("arm"):
                look = looks[str(arm)]
                panel.plot(ended["SGD steps"], ended[quantity], look.marker, color=look.color, alpha=0.75)
            panel.set_xscale("log")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            panel.set_xlabel("SGD steps")
            panel.margins(0.15)
        axes[one, _ENDS[0].removesuffix(" (%)")].set_ylabel("of the test set (%)")
        lost = [f"{row.config['arm']}, seed {seed(row)}" for row in group if not row.values["at_target"]]
        remark(axes[one, _ENDS[0].removesuffix(" (%)")], f"diverged: {'; '.join(lost)}" if lost else "")
    legend(figure, {}, "how the batch is chosen", _keys(linestyle=""))
    return figure, data


def _heads(families: Mapping[Family, Sequence[Row]]) -> Iterator[tuple[dict[str, Any], Row]]:
    """Yield each row with the columns that say what it is, in the order of the figures."""
    for one, group in families.items():
        for name, chosen in arms(group).items():
            for row in chosen:
                yield place(one) | {"arm": name, "seed": seed(row)}, row


def _looks() -> dict[str, Look]:
    return dict(zip(ARMS, level_looks(range(len(ARMS))).values(), strict=True))


def _keys(**style: Any) -> list[Any]:
    return [line_key(name, color=look.color, marker=look.marker, **style) for name, look in _looks().items()]
