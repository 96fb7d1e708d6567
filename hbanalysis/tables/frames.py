"""Rows of trained cells as tidy frames, grouped into families that differ in batch size and seed alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from hbanalysis import paper
from hbanalysis.store import Row

SCALES = ("paper", "small", "mnist", "digits", "custom", "tiny")
_DATASETS = {
    "digits": "the digits",
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "svhn": "SVHN",
    "svhn_extra": "SVHN (extra)",
}
# Network, data set and activation of a row: the paper's table, and the paper's name of the network in it.
_PAPER_TABLES = {
    ("C1", "cifar10", "relu"): ("table1", "C1"),
    ("C2", "cifar10", "relu"): ("table1", "C2"),
    ("CR", "cifar100", "relu"): ("table2", "CR"),
    ("C1", "svhn_extra", "relu"): ("table5", "C1"),
    ("C1", "cifar10", "softplus(20)"): ("table6", "C1S"),
    ("C1", "cifar10", "elu(1)"): ("table6", "C1E"),
}
_CURVATURES = ("lambda1_train", "lambda1_test", "lambda1_train_epoch_end")
# What the title of a family says anyway, what varies inside it, and the cap, which changes no training that
# reached its target.
_NO_SETTING = ("batch_size", "seed", "network", "dataset", "max_epochs")


@dataclass(frozen=True)
class Family:
    """Cells that share everything but batch size and seed.

    Attributes:
        scale: the scale of the rows: `paper`, `small`, `digits`, ...
        network: `C1`, `C2`, `C3`, `M1` or `CR`.
        dataset: name of the data set.
        setting: the rest of the training configuration, as sorted pairs.
    """

    scale: str
    network: str
    dataset: str
    setting: tuple[tuple[str, Any], ...]

    @property
    def title(self) -> str:
        """Network, data set and, where the configuration says so, how many samples."""
        samples = dict(self.setting).get("train_samples")
        return self.whole + (f" (first {samples:,})" if samples else "")

    @property
    def whole(self) -> str:
        """Network and data set, as the paper's tables have them."""
        return f"{self.network} on {_DATASETS.get(self.dataset, self.dataset)}"

    @property
    def scale_label(self) -> str:
        """The scale in words, so that nobody takes a small run for the paper's."""
        if self.scale == "paper":
            return "paper: the paper's scale"
        if self.scale == "custom":
            return "custom: not a cell of the paper"
        return f"{self.scale}: smaller scale than the paper's"


def scale_order(scale: str) -> int:
    """The place of a scale, largest first; unknown ones last.

    Example:
        >>> sorted(["digits", "paper", "small"], key=scale_order)
        ['paper', 'small', 'digits']
    """
    return SCALES.index(scale) if scale in SCALES else len(SCALES)


def family(row: Row) -> Family:
    """The family of a row."""
    return family_of(row.scale, row.config["training"])


def family_of(scale: str, training: Mapping[str, Any]) -> Family:
    """The family of a training's configuration at a scale."""
    setting = tuple(sorted((k, _hashable(v)) for k, v in training.items() if k not in _NO_SETTING))
    return Family(scale, training["network"], training["dataset"], setting)


def families(rows: Iterable[Row]) -> dict[Family, list[Row]]:
    """Rows by family, largest scale first, each sorted by batch size and seed."""
    groups: dict[Family, list[Row]] = {}
    for row in rows:
        groups.setdefault(family(row), []).append(row)
    order = sorted(groups, key=lambda f: (scale_order(f.scale), f.dataset, f.network, repr(f.setting)))
    return {one: sorted(groups[one], key=_batch_and_seed) for one in order}


def families_over(rows: Iterable[Row], setting: str) -> dict[Family, list[Row]]:
    """Rows by what they share besides batch size, seed and one setting, such as ``activation``; as `families`."""
    found: dict[Family, list[Row]] = {}
    for one, group in families(rows).items():
        shared = tuple(pair for pair in one.setting if pair[0] != setting)
        found.setdefault(replace(one, setting=shared), []).extend(group)
    return found


def distinct_titles(groups: Iterable[Family]) -> dict[Family, str]:
    """A title for each family; those that would read the same get the settings in which they differ."""
    chosen = list(groups)
    titles = {}
    for one in chosen:
        twins = [f for f in chosen if (f.title, f.scale) == (one.title, one.scale)]
        varying = [name for name, value in one.setting if any(dict(f.setting).get(name) != value for f in twins)]
        extra = ", ".join(f"{name.replace('_', ' ')} {dict(one.setting)[name]}" for name in varying)
        titles[one] = one.title + (f", {extra}" if extra else "")
    return titles


def measured(rows: Iterable[Row]) -> pd.DataFrame:
    """One line a row: where it belongs, how the training ended, what was measured at the target loss.

    Accuracies are fractions. A diverged training has its configuration and status, and nothing measured.

    Args:
        rows: rows of a study that trains cells to a target loss.

    Returns:
        Columns `scale`, `network`, `dataset`, `batch_size`, `seed`, `status`, `epochs`, `loss_*`, `accuracy_*`,
        `lambda1_*`, `gradient_norm_train`, `fgsm_<epsilon>_train`, `fgsm_<epsilon>_test`, `key`, `origin`; what was
        measured again at the end of the epoch that crossed the target ends in `_epoch_end`.
    """
    lines = []
    for group in families(rows).values():
        for row in group:
            training = row.config["training"]
            line = {
                "scale": row.scale,
                "network": training["network"],
                "dataset": training["dataset"],
                "batch_size": training["batch_size"],
                "seed": training["seed"],
                "status": row.values["status"],
                "epochs": row.values.get("epochs"),
            }
            later = {f"{k}_epoch_end": v for k, v in (row.values.get("epoch_end") or {}).items()}
            lines.append(line | _scalars(row.values.get("at_target") or {}) | later | _origin(row))
    return pd.DataFrame(lines)


def over_seeds(rows: Iterable[Row], columns: Sequence[str]) -> pd.DataFrame:
    """Means over seeds of the trainings that reached the target, one line a family and batch size.

    The number of seeds stands in `seeds`; trainings that stopped at the cap or diverged are counted in
    `not_reached`, and enter no mean.
    """
    lines = []
    for one, group in families(rows).items():
        frame = measured(group)
        for batch_size, cells in frame.groupby("batch_size"):
            reached = cells[cells["status"] == "reached"]
            line: dict[str, Any] = {
                "scale": one.scale,
                "network": one.network,
                "dataset": one.dataset,
                "batch_size": batch_size,
                "seeds": len(reached),
                "not_reached": len(cells) - len(reached),
            }
            lines.append(line | {c: reached[c].mean() for c in columns if c in reached and len(reached)})
    return pd.DataFrame(lines)


def of_the_paper(rows: Iterable[Row]) -> pd.DataFrame:
    """The paper's numbers for the networks, data sets and activations of the rows; empty where it has none.

    Accuracies are turned into fractions, so that they read like ours.
    """
    parts = [part for one in families(rows) if not (part := of_the_paper_for(one)).empty]
    if not parts:
        return pd.DataFrame()
    return pd.concat(parts, ignore_index=True).drop_duplicates(ignore_index=True)


def of_the_paper_for(one: Family) -> pd.DataFrame:
    """As `of_the_paper`, for one family."""
    activation = dict(one.setting).get("activation", "relu")
    if (one.network, one.dataset, activation) not in _PAPER_TABLES:
        return pd.DataFrame()
    table_name, network = _PAPER_TABLES[one.network, one.dataset, activation]
    table = paper.table(table_name)
    if "network" in table:
        table = table[table["network"] == network]
    return _paper_part(table, network, one.dataset)


def beside_the_paper(rows: Sequence[Row]) -> pd.DataFrame:
    """Means over seeds of the rows, and below them the paper's numbers, in the layout of its Table 1.

    The paper's lines are those of the same networks and data sets or, where it prints none of these, of C1 on CIFAR-10
    for orientation. Accuracies are in percent; the epsilons of FGSM are those of either side.
    """
    attacks = [c for c in measured(rows).columns if c.startswith("fgsm_") and c.endswith("_test")]
    ours = over_seeds(rows, ["epochs", "accuracy_test", *_CURVATURES, *attacks])
    ours = ours.reindex(columns=[*dict.fromkeys([*ours.columns, *_CURVATURES, "accuracy_test", "epochs"])])
    theirs = of_the_paper(rows)
    if theirs.empty:
        table = paper.table("table1")
        theirs = _paper_part(table[table["network"] == "C1"], "C1", "cifar10")
    both = pd.concat([ours.assign(source="here"), theirs.assign(source="paper", scale="paper")], ignore_index=True)
    for column in [c for c in map(str, both) if c.startswith(("accuracy_", "fgsm_"))]:
        both[f"{column} (%)"] = 100 * both.pop(column)
    first = ["source", "scale", "network", "dataset", "batch_size", "seeds", "not_reached", "epochs"]
    attacked = [c for c in map(str, both) if c.startswith("fgsm_") and c.endswith("_test (%)")]
    return both[
        [*first, "accuracy_test (%)", "lambda1_train", "lambda1_test", *attacked, "lambda1_train_epoch_end"]
    ].astype({"seeds": "Int64", "not_reached": "Int64"})


def readable(frame: pd.DataFrame, digits: int = 4) -> pd.DataFrame:
    """The frame as text of few significant digits, the same on every machine; nothing where a value is missing.

    The index, line numbers that mean nothing to a reader, is blank.

    Example:
        >>> readable(pd.DataFrame({"x": [80.18123, float("nan")], "n": [3, 4]})).values.tolist()
        [['80.18', '3'], ['', '4']]
    """
    text = {column: [_text(value, digits) for value in frame[column]] for column in frame}
    return pd.DataFrame(text, index=[""] * len(frame))


def reached(rows: Iterable[Row]) -> list[Row]:
    """The rows whose training reached its target loss or, where it had none, was finished."""
    return [
        row
        for row in rows
        if row.values["status"] == "finished" or (row.values["status"] == "reached" and row.values.get("at_target"))
    ]


def _paper_part(table: pd.DataFrame, network: str, dataset: str) -> pd.DataFrame:
    columns = {
        "network": network,
        "dataset": dataset,
        "batch_size": table["batch_size"],
        "accuracy_test": table["accuracy_test"] / 100,
        "lambda1_train": table["lambda1_weights_train"],
        "lambda1_test": table["lambda1_weights_test"],
    }
    for column in map(str, table.columns):
        if column.startswith("fgsm_accuracy_eps_"):
            columns[column.replace("accuracy_eps_", "")] = table[column] / 100
    return pd.DataFrame(columns | {"note": table["note"]})


def _scalars(at_target: Mapping[str, Any]) -> dict[str, Any]:
    line = {k: v for k, v in at_target.items() if not isinstance(v, list | dict)}
    for attack in at_target.get("fgsm", []):
        for split in ("train", "test"):
            line[f"fgsm_{attack['epsilon']:g}_{split}"] = attack[f"accuracy_{split}"]
    return line


def _text(value: Any, digits: int) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _origin(row: Row) -> dict[str, Any]:
    return {"key": row.key, "origin": row.origin}


def _batch_and_seed(row: Row) -> tuple[int, int]:
    training = row.config["training"]
    return training["batch_size"], training["seed"]


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(sorted((k, _hashable(v)) for k, v in value.items()))
    return tuple(_hashable(v) for v in value) if isinstance(value, list) else value
