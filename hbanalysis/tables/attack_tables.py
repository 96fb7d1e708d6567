"""Rows of `robustness_vs_batch` as tables: attacks of one step, of ten and of many by batch size, and masked ones."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from hbanalysis import paper
from hbanalysis.store import Row
from hbanalysis.tables.frames import distinct_titles, families, reached

SPLITS = ("train", "test")
# What is drawn and listed against the batch size, by the column of `measured_attacks` that holds it.
ATTACKS = {
    "fgsm_test": "FGSM",
    "fgsm_exact_test": "FGSM, exact softmax",
    "fgsm10_test": "FGSM-10",
    "pgd": "PGD",
}
_PAPER_STEPS = {"table3": "M1 on MNIST", "table4": "C3 on CIFAR-10"}


def measured_attacks(rows: Iterable[Row]) -> pd.DataFrame:
    """Return one line a measured row and size of the attack; accuracies and shares are fractions.

    Returns:
        Columns ``scale``, ``network``, ``dataset``, ``batch_size``, ``seed``, ``epsilon``; for either set
        ``accuracy_*``, ``tiny_losses_*``, ``zero_gradients_*``, ``fgsm_*``, ``fgsm_free_*`` (not clamped),
        ``fgsm_exact_*`` and ``fgsm10_*``; on the first ``samples`` test samples ``noise``, ``fgsm_few``,
        ``fgsm_exact_few``, ``fgsm10_exact_few``, ``pgd``, ``pgd_more_steps`` and ``pgd_half_range``; ``flags``, the
        number of signs of masked gradients.
    """
    lines = []
    for group in families(reached(rows)).values():
        for row in group:
            training, target = row.config["training"], row.values["at_target"]
            place = {"scale": row.scale, **{n: training[n] for n in ("network", "dataset", "batch_size", "seed")}}
            clean = {name: value for name, value in target.items() if not isinstance(value, list)}
            for attack, report in zip(target["attacks"], target["masking"], strict=True):
                strong = {
                    name: report[name] for name in ("samples", "noise", "pgd", "pgd_more_steps", "pgd_half_range")
                }
                few = {"fgsm_few": report["fgsm_plain"], "fgsm_exact_few": report["fgsm"]}
                few |= {"fgsm10_exact_few": report["fgsm_10"], "flags": len(report["flags"])}
                lines.append(place | clean | attack | strong | few)
    return pd.DataFrame(lines)


def by_batch(rows: Sequence[Row]) -> pd.DataFrame:
    """Return test accuracies in percent, means over seeds: a line a family, batch size and size of the attack.

    ``FGSM, free`` is not clamped to valid pixels; PGD attacks the first ``n`` samples alone, and ``FGSM on n`` is FGSM
    on these.
    """
    names = {"accuracy_test": "clean", "fgsm_free_test": "FGSM, free", **ATTACKS, "fgsm_few": "FGSM on n"}
    order = ["clean", "FGSM, free", "FGSM", "FGSM, exact softmax", "FGSM-10", "n", "FGSM on n", "PGD"]
    lines = []
    for place, cells in _groups(rows):
        line = place | {names[column]: f"{100 * cells[column].mean():.1f}" for column in names}
        lines.append(line | {"n": int(cells["samples"].max())})
    return pd.DataFrame(lines, columns=["scale", "trained", "batch_size", "seeds", "epsilon", *order])


def steps(rows: Sequence[Row]) -> pd.DataFrame:
    """Return FGSM minus FGSM-10 on test samples in points, means over seeds: a line a family, batch size and size.

    ``PyTorch's softmax`` and ``not clamped``, where FGSM alone is not, are on all test samples measured; ``exact
    softmax`` is on the first ``n``, for both attacks: what remains there is no rounding.
    """
    pairs = {
        "PyTorch's softmax": ("fgsm_test", "fgsm10_test"),
        "not clamped": ("fgsm_free_test", "fgsm10_test"),
        "exact softmax": ("fgsm_exact_few", "fgsm10_exact_few"),
    }
    lines = []
    for place, cells in _groups(rows):
        gaps = {name: f"{100 * (cells[one] - cells[ten]).mean():+.1f}" for name, (one, ten) in pairs.items()}
        lines.append(place | gaps | {"n": int(cells["samples"].max())})
    return pd.DataFrame(lines, columns=["scale", "trained", "batch_size", "seeds", "epsilon", *pairs, "n"])


def silence(rows: Sequence[Row]) -> pd.DataFrame:
    """Return how much single precision hides, in percent, means over seeds: a line a family and batch size.

    Shares of samples whose loss is below 6e-8 and whose gradient is zero on either set; what FGSM leaves right at each
    size by PyTorch's softmax less by the exact one, in points; networks with a sign of masked gradients at any size.
    """
    lines: list[dict[str, Any]] = []
    for place, cells in _groups(rows):
        gap = f"{100 * (cells['fgsm_test'] - cells['fgsm_exact_test']).mean():.1f}"
        flagged = set(cells[cells["flags"] > 0]["seed"])
        where = {name: place[name] for name in ("scale", "trained", "batch_size")}
        same = lines[-1] if lines and {name: lines[-1][name] for name in where} == where else None
        if same is None:
            line: dict[str, Any] = {**where, "seeds": place["seeds"]}
            for column, name in (("tiny_losses", "loss below 6e-8"), ("zero_gradients", "gradient 0")):
                for split in SPLITS:
                    line[f"{name}, {split}"] = f"{100 * cells[f'{column}_{split}'].mean():.1f}"
            lines.append(line | {"hidden at": f"{place['epsilon']:g}", "points": gap, "flagged": flagged})
        else:
            same["hidden at"] += f", {place['epsilon']:g}"
            same["points"] += f", {gap}"
            same["flagged"] |= flagged
    for line in lines:
        line["flagged"] = f"{len(line['flagged'])} of {line['seeds']}"
    return pd.DataFrame(lines)


def flags(rows: Sequence[Row]) -> pd.DataFrame:
    """Return every sign of masked gradients, a line each."""
    lines = []
    for one, group in families(reached(rows)).items():
        for row in group:
            training = row.config["training"]
            place = {"scale": one.scale, "batch_size": training["batch_size"], "seed": training["seed"]}
            for report in row.values["at_target"]["masking"]:
                lines += [place | {"epsilon": report["eps"], "sign": flag} for flag in report["flags"]]
    return pd.DataFrame(lines, columns=["scale", "batch_size", "seed", "epsilon", "sign"])


def steps_in_the_paper() -> pd.DataFrame:
    """Return the paper's own accuracies under one step and under ten, in percent: its original models."""
    lines = []
    for name, trained in _PAPER_STEPS.items():
        table = paper.table(name)
        original = table[table["model"] == "M_ORI"]
        one, ten = (float(original[column].iloc[0]) for column in ("d_fgsm", "d_fgsm10"))
        lines.append({"trained": trained, "in": name, "FGSM": one, "FGSM-10": ten, "difference": f"{one - ten:.2f}"})
    return pd.DataFrame(lines)


def _groups(rows: Sequence[Row]) -> Iterable[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield the lines of `measured_attacks` of each family, batch size and size of the attack."""
    groups = families(reached(rows))
    titles = distinct_titles(groups)
    for one, group in groups.items():
        frame = measured_attacks(group)
        for (batch_size, epsilon), cells in frame.groupby(["batch_size", "epsilon"]):
            place = {"scale": one.scale, "trained": titles[one], "batch_size": batch_size}
            yield place | {"seeds": len(cells), "epsilon": epsilon}, cells
