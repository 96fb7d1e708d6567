"""What attacks do: accuracy over conjugate gradient iterations, images side by side, and lines between models."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hbanalysis.errors import InputError
from hbanalysis.lineup import ATTACKS
from hbanalysis.plots.style import BLUE, ORANGE, STACKED, STACKED_WIDTH, grid, house_style, is_stacked, legend, line_key
from hbanalysis.store import Row
from hbanalysis.store.pictures import decoded
from hbanalysis.tables.frames import families
from hbanalysis.tables.robustness import original_line, paper_matrix, sweep

_COLORS = {"FHSM": BLUE, "L2HESS": ORANGE}
_LINES = {"loss_train": ("#440154", "-"), "loss_test": ("#21918c", "-"), "loss_attacked": ("#b35806", "--")}


def cg_sweep(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw accuracy under the Newton attacks against the number of conjugate gradient iterations.

    Args:
        rows: Rows of `attack_readings`.

    Returns:
        The figure, and the plotted data; see `robustness.sweep`.

    Raises:
        InputError: There is no row.
    """
    groups = families(rows)
    figure, axes = grid(list(groups), ["accuracy"])
    data = sweep(rows)
    for one in groups:
        panel, part = axes[one, "accuracy"], data[data["family"] == one]
        theirs = paper_matrix(one)
        for attack, color in _COLORS.items():
            for clipped, style in ((False, "-"), (True, ":")):
                chosen = part[(part["attack"] == attack) & (part["clipped"] == clipped)]
                mean = chosen.groupby("iterations")["accuracy"].mean()
                panel.plot(mean.index, mean, color=color, linestyle=style, marker="o")
                for _, each in chosen.groupby("seed"):
                    panel.plot(each["iterations"], each["accuracy"], color=color, linestyle=style, linewidth=0.7)
            if theirs is not None:
                panel.axhline(original_line(theirs)[attack], color=color, linewidth=1.2, linestyle="--")
        panel.set_xlabel("conjugate gradient iterations")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_ylabel("test accuracy (%)")
        panel.set_ylim(-3, 103)
    keys = [line_key(attack, color=color, marker="o") for attack, color in _COLORS.items()]
    keys += [line_key("not clipped"), line_key("clipped", linestyle=":"), line_key("the paper's", linestyle="--")]
    legend(figure, {}, "", keys)
    return figure, data.drop(columns="family")


def examples(row: Row) -> tuple[Figure, pd.DataFrame]:
    """Draw a row's pictures: clean image, and for every attack the perturbation and the image that comes of it.

    Args:
        row: A row of `attack_readings`.

    Returns:
        The figure, and what stands under the images: columns `sample`, `version`, `label`, `predicted`, `confidence`.
    """
    pictures = row.values["pictures"]
    house_style()
    count, names = len(pictures), ("clean", *ATTACKS)
    across = 3 if is_stacked() else len(names)
    blocks = count * -(-len(names) // across)
    size = (STACKED_WIDTH, 3.3 * blocks) if is_stacked() else (1.32 * across, 3.15 * blocks)
    figure = plt.figure(figsize=size, layout="constrained", label=STACKED if is_stacked() else "")
    axes = figure.subplots(2 * blocks, across, squeeze=False)
    lines = []
    for number, entry in enumerate(pictures):
        clean = decoded(entry["versions"]["clean"]["image"])
        for place, name in enumerate(names):
            version = entry["versions"][name]
            image = decoded(version["image"])
            block, column = divmod(number * len(names) + place, across)
            top, below = axes[2 * block, column], axes[2 * block + 1, column]
            _show(top, np.clip(image, 0, 1))
            top.set_title(f"{name}\n{version['predicted']} ({100 * version['confidence']:.0f} %)", fontsize=9.5)
            _show(below, _signed(image - clean))
            lines.append({"sample": number, "version": name, "label": entry["label"]} | _said(version))
    return figure, pd.DataFrame(lines)


def lines_between(rows: Sequence[Row]) -> tuple[Figure, pd.DataFrame]:
    """Draw the loss along the straight lines from the original model to every robust one (paper, Figs. 5, 10, 11).

    Args:
        rows: Rows of `adversarial_training`.

    Returns:
        The figure, and the plotted data: columns `scale`, `seed`, `attack`, `a`, `set`, `loss`.

    Raises:
        InputError: There is no row.
    """
    groups = families(rows)
    if not groups:
        raise InputError("There is no row to draw. Compute the study first: `hbanalysis run adversarial_training`.")
    house_style()
    shape, size, label = ((3, 2), (STACKED_WIDTH, 6.0), STACKED) if is_stacked() else ((2, 3), (6.8, 4.9), "")
    figure = plt.figure(figsize=(size[0], size[1] * len(groups)), layout="constrained", label=label)
    data = []
    for (one, group), part in zip(groups.items(), figure.subfigures(len(groups), 1, squeeze=False)[:, 0], strict=True):
        part.suptitle(f"{one.title}\n{one.scale_label}", fontsize=13, fontweight="bold")
        panels = part.subplots(*shape, sharex=True, sharey=True).ravel()
        for attack, panel in zip(ATTACKS, panels, strict=False):
            for row in group:
                curves = row.values["lines"][attack]
                for name, (color, style) in _LINES.items():
                    panel.plot(curves["a"], curves[name], color=color, linestyle=style, linewidth=1.4)
                    for a, loss in zip(curves["a"], curves[name], strict=True):
                        place = {"scale": one.scale, "seed": row.config["training"]["seed"], "attack": attack, "a": a}
                        data.append(place | {"set": name.removeprefix("loss_"), "loss": loss})
            panel.set_title(attack, fontsize=12)
            panel.set_yscale("log")
            for a in (0, 1):
                panel.axvline(a, color="0.6", linewidth=1)
        panels[-1].set_visible(False)
        panels[-1 - shape[1]].tick_params(labelbottom=True)  # the panel above the empty place
        part.supxlabel("a: 0 is the original model, 1 the robust one", fontsize=12)
        part.supylabel("cross-entropy", fontsize=12)
    names = {"loss_train": "training set", "loss_test": "test set", "loss_attacked": "attacked test set"}
    legend(figure, {}, "", [line_key(names[n], color=c, linestyle=s) for n, (c, s) in _LINES.items()])
    return figure, pd.DataFrame(data)


def _show(panel: Axes, image: np.ndarray) -> None:
    flat = image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, 2)
    panel.imshow(flat, cmap="gray", vmin=0, vmax=1)
    panel.set_axis_off()


def _signed(change: np.ndarray) -> np.ndarray:
    """Return a perturbation as an image: grey is none."""
    return 0.5 + change / (2 * max(float(np.abs(change).max()), 1e-12))


def _said(version: dict) -> dict:
    return {"predicted": version["predicted"], "confidence": version["confidence"]}
