"""Rows of `input_curvature` as tables: curvature in the input by batch size, by kind of sample, and with robustness."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from hbanalysis import paper
from hbanalysis.store import Row
from hbanalysis.tables.designs import FEWEST_SIZES, Design
from hbanalysis.tables.frames import Family, distinct_titles, families
from hbanalysis.trends import spearman, t_interval

KINDS = {"train": "training", "correct": "test, correct", "wrong": "test, wrong", "attacked": "test, FGSM"}
# What might go with robustness, by the column of `measured_inputs` that holds it.
PREDICTORS = {
    "lambda1_test": "lambda1_x, mean",
    "lambda1_median_test": "lambda1_x, median",
    "gradient_norm_test": "gradient norm, mean",
    "gradient_norm_median_test": "gradient norm, median",
    "distance_test": "boundary distance, median",
    "share_above_test": "share beyond eps",
    "lambda1_weights": "lambda1_theta, training loss",
}
_PAPER_COLUMNS = {
    "accuracy_test (%)": "accuracy_test",
    "lambda1_train": "lambda1_input_train",
    "lambda1_test": "lambda1_input_test",
    "gradient_norm_train": "grad_input_norm_train",
    "gradient_norm_test": "grad_input_norm_test",
}
_PAPER_PREDICTORS = {
    "lambda1_input_test": "lambda1_x",
    "grad_input_norm_test": "gradient norm",
    "lambda1_weights_train": "lambda1_theta, training loss",
}

Training = tuple[tuple[str, Any], ...]


def measured_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows whose training reached its target and was measured."""
    return [row for row in rows if row.values["status"] == "reached" and row.values.get("test")]


def weight_curvatures(rows: Iterable[Row]) -> dict[Training, float]:
    """Return lambda1 of the training loss in the weights, by training, from rows of `spectrum_vs_batch`."""
    found = {}
    for row in rows:
        target = row.values.get("at_target")
        if target:
            found[training_of(row)] = float(target["lambda1_train"])
    return found


def training_of(row: Row) -> Training:
    """Return the configuration of a row's training as a key."""
    return tuple(sorted(row.config["training"].items()))


def measured_inputs(rows: Iterable[Row], weights: Mapping[Training, float] | None = None) -> pd.DataFrame:
    """Return one line a measured row: curvature, gradient and boundary distance in the input, and robustness.

    Args:
        rows: Rows of `input_curvature`.
        weights: Curvature in the weights by training; see `weight_curvatures`.

    Returns:
        Columns ``scale``, ``network``, ``dataset``, ``batch_size``, ``seed``, ``loss_train``, ``accuracy_test``, means
        and medians on both sets, ``epsilon``, accuracies under FGSM and PGD at the first size (fractions), and
        ``lambda1_weights`` where it is known.
    """
    lines = []
    for group in families(measured_rows(rows)).values():
        for row in group:
            training, values = row.config["training"], row.values
            line: dict[str, Any] = {
                "scale": row.scale,
                **{name: training[name] for name in ("network", "dataset", "batch_size", "seed")},
                "loss_train": values["train"]["loss"]["mean"],
                "accuracy_test": values["test"]["accuracy"],
            }
            for split in ("train", "test"):
                found = values[split]
                for name in ("lambda1", "gradient_norm"):
                    line[f"{name}_{split}"] = found[name]["mean"]
                    line[f"{name}_median_{split}"] = found[name]["median"]
                line[f"effective_rank_{split}"] = found["effective_rank"]["mean"]
                line[f"distance_{split}"] = found["distance"]["median"]
                line[f"share_above_{split}"] = found["distance"]["share_above"][0]
            first = values["robustness"][0]
            line |= {name: first[name] for name in ("epsilon", "fgsm_train", "fgsm_test", "pgd_test")}
            line["lambda1_weights"] = (weights or {}).get(training_of(row))
            lines.append(line)
    return pd.DataFrame(lines)


def beside_the_paper(rows: Sequence[Row]) -> pd.DataFrame:
    """Return means over seeds by batch size, and below them the columns of the paper's Table 1.

    ``lambda1`` and ``gradient_norm`` are means over samples here; the paper does not say how it takes samples together.
    The paper's lines are those of the same network and data set or, where it prints none, of C1 on CIFAR-10.
    """
    frame = measured_inputs(rows)
    place = ["scale", "network", "dataset", "batch_size"]
    lines = []
    for names, cells in frame.groupby(place, sort=False) if len(frame) else []:
        line = dict(zip(place, names, strict=True)) | {"source": "here", "seeds": len(cells)}
        line |= {name: cells[name].mean() for name in _ours()}
        line["accuracy_test (%)"] = 100 * cells["accuracy_test"].mean()
        line["FGSM (%)"] = 100 * cells["fgsm_test"].mean()
        line["epsilon"] = cells["epsilon"].iloc[0]
        lines.append(line)
    theirs = paper.table("table1")
    networks = set(frame[frame["dataset"] == "cifar10"]["network"]) if len(frame) else set()
    for _, one in theirs[theirs["network"].isin(networks & {"C1", "C2"} or {"C1"})].iterrows():
        line = {"source": "paper", "scale": "paper", "network": one["network"], "dataset": "cifar10"}
        line |= {"batch_size": one["batch_size"], "epsilon": 0.02, "FGSM (%)": one["fgsm_accuracy_eps_0.02_test"]}
        lines.append(line | {ours: float(one[name]) for ours, name in _PAPER_COLUMNS.items()})
    order = ["source", *place, "seeds", "accuracy_test (%)", *_ours(), "epsilon", "FGSM (%)"]
    return pd.DataFrame(lines).reindex(columns=order).astype({"seeds": "Int64", "batch_size": "Int64"})


def by_kind(rows: Sequence[Row]) -> pd.DataFrame:
    """Return curvature by kind of sample, a line a family, batch size and kind: medians, averaged over the seeds.

    Kinds are training samples, test samples that are classified correctly and wrongly, and all test samples after FGSM
    at the first size. ``samples`` is the smallest number in any seed.
    """
    lines = []
    groups = families(measured_rows(rows))
    titles = distinct_titles(groups)
    for one, group in groups.items():
        for batch_size in sorted({row.config["training"]["batch_size"] for row in group}):
            cells = [row for row in group if row.config["training"]["batch_size"] == batch_size]
            for kind, name in KINDS.items():
                found = [part for row in cells if (part := kind_of(row, kind))]
                if found:
                    lines.append(
                        {
                            "scale": one.scale,
                            "trained": titles[one],
                            "batch_size": batch_size,
                            "samples": name,
                            "n at least": min(part["samples"] for part in found),
                            "1 - p_y": _mean(part["doubt"]["median"] for part in found),
                            "lambda1_x": _mean(part["lambda1"]["median"] for part in found),
                            "gradient norm": _mean(part["gradient_norm"]["median"] for part in found),
                            "effective rank": _mean(part["effective_rank"]["mean"] for part in found),
                            "boundary distance": _mean(part["distance"]["median"] for part in found),
                        }
                    )
    return pd.DataFrame(lines)


def kind_of(row: Row, kind: str) -> Mapping[str, Any] | None:
    """Return the summary of a kind of sample, one of `KINDS`; None where a row has no such sample."""
    return row.values["train"] if kind == "train" else row.values["test"][kind]


def correlations(
    rows: Sequence[Row], weights: Mapping[Training, float], under: str = "fgsm_test"
) -> dict[Family, dict[str, tuple[float, ...]]]:
    """Return for each family and predictor the rank correlation with accuracy over batch sizes, one for each seed.

    The batch sizes are the same in every seed, see `Design.of`; fewer than three have no correlation.

    Args:
        rows: Rows of `input_curvature`.
        weights: See `measured_inputs`.
        under: ``"fgsm_test"`` or ``"pgd_test"``.
    """
    found: dict[Family, dict[str, tuple[float, ...]]] = {}
    for one, group in families(measured_rows(rows)).items():
        design = Design.of(group, paper.criteria().seeds_needed("K5", one.network))
        found[one] = {}
        if len(design.batch_sizes) < FEWEST_SIZES or not design.seeds:
            continue
        seeds = [cells for _, cells in measured_inputs(design.rows, weights).groupby("seed")]
        for column in PREDICTORS:
            if not any(cells[column].isna().any() for cells in seeds):
                rhos = [spearman(cells[column].tolist(), cells[under].tolist()) for cells in seeds]
                found[one][column] = tuple(rhos)
    return found


def correlation_table(rows: Sequence[Row], weights: Mapping[Training, float]) -> pd.DataFrame:
    """Return the rank correlations of `correlations` as means with intervals over seeds, for FGSM and PGD.

    Below them stand those of the paper's own Table 1, one number each, with its FGSM accuracy at 0.02.
    """
    lines: list[dict[str, Any]] = []
    titles = distinct_titles(families(measured_rows(rows)))
    parts = {under: correlations(rows, weights, under) for under in ("fgsm_test", "pgd_test")}
    for one, found in parts["fgsm_test"].items():
        for column, rhos in found.items():
            lines.append(
                {
                    "scale": one.scale,
                    "trained": titles[one],
                    "what": PREDICTORS[column],
                    "seeds": len(rhos),
                    "rho with FGSM": _shown_rho(rhos),
                    "rho with PGD": _shown_rho(parts["pgd_test"][one][column]),
                }
            )
    table = paper.table("table1")
    for network, cells in table.groupby("network", sort=False):
        for column, what in _PAPER_PREDICTORS.items():
            rho = spearman(cells[column].tolist(), cells["fgsm_accuracy_eps_0.02_test"].tolist())
            line = {"scale": "paper's Table 1", "trained": f"{network} on CIFAR-10, {len(cells)} batch sizes"}
            lines.append(line | {"what": what, "rho with FGSM": f"{rho:.2f}", "rho with PGD": ""})
    columns = ["scale", "trained", "what", "seeds", "rho with FGSM", "rho with PGD"]
    return pd.DataFrame(lines, columns=columns).astype({"seeds": "Int64"})


def distances(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the linearised boundary distance beside the smallest size at which PGD succeeds, by batch size."""
    lines = []
    groups = families(measured_rows(rows))
    titles = distinct_titles(groups)
    for one, group in groups.items():
        for batch_size in sorted({row.config["training"]["batch_size"] for row in group}):
            found = [r.values["distances"] for r in group if r.config["training"]["batch_size"] == batch_size]
            rhos = [part["rank_correlation"] for part in found if part["rank_correlation"] is not None]
            lines.append(
                {
                    "scale": one.scale,
                    "trained": titles[one],
                    "batch_size": batch_size,
                    "samples": sum(part["samples"] for part in found),
                    "linearised, median": _mean(part["linearised_median"] for part in found),
                    "by PGD, median": _mean(part["median"] for part in found),
                    "rho over samples": _mean(rhos),
                }
            )
    return pd.DataFrame(lines)


def _shown_rho(rhos: Sequence[float]) -> str:
    """A mean rank correlation with its interval, cut off where no correlation can be."""
    found = t_interval(rhos)
    if found.low is not None and found.high is not None:
        found = replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))
    return found.text(".2f")


def _ours() -> list[str]:
    pairs = [f"{name}_{split}" for name in ("lambda1", "gradient_norm") for split in ("train", "test")]
    medians = ["lambda1_median_train", "lambda1_median_test"]
    return [*pairs[:2], *medians, *pairs[2:]]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None
