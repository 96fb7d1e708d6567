"""Rows of the study of robust models' curvature as tables: beside the control, at which loss, and of single samples."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from hbanalysis import paper
from hbanalysis.lineup import ATTACKS, CONTROL, MODELS
from hbanalysis.store import Row
from hbanalysis.tables.frames import families


def curvature(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a family and model of `robust_spectrum`: losses and curvatures, means over seeds.

    ``lambda1`` and ``top`` (the sum of the eigenvalues measured) are those of the clean training loss; ``own`` marks
    those on the images that the model's own attack makes of them. ``ratio`` is the geometric mean of lambda1 over that
    of the control with the same seed.
    """
    lines = []
    for one, group in families(rows).items():
        for name in MODELS:
            chosen = [row for row in group if row.config["model"] == name]
            if not chosen:
                continue
            clean = [row.values["clean"] for row in chosen]
            own = [row.values["own"] for row in chosen if row.values["own"]]
            ratios = _ratios(group, name)
            line: dict[str, Any] = {
                "scale": one.scale,
                "trained": one.title,
                "model": name,
                "seeds": len(chosen),
                "loss": float(np.mean([part["loss"] for part in clean])),
                "lambda1": float(np.mean([part["spectrum"][0] for part in clean])),
                "top": float(np.mean([sum(part["spectrum"]) for part in clean])),
                "ratio": float(np.exp(np.mean(np.log(ratios)))) if ratios else np.nan,
            }
            if own:
                line["own loss"] = float(np.mean([part["loss"] for part in own]))
                line["own lambda1"] = float(np.mean([part["spectrum"][0] for part in own]))
            lines.append(line)
    return pd.DataFrame(lines)


def flatter(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a family of `robust_spectrum`: how many robust models are flatter than the control.

    ``flatter`` counts the models with a ``ratio`` below 1, see `curvature`, among the ``robust`` ones that have rows.
    ``lambda1 ratio`` is the median of their ratios, ``loss ratio`` that of their clean training losses over the
    control's (means over seeds), and ``CLEAN+ loss`` the latter: cross-entropy that is fitted away leaves no
    curvature, so losses belong beside it. A family without a control, or without a robust model, has no line.
    """
    lines = []
    for one, group in families(rows).items():
        models = curvature(group).set_index("model")
        robust = models[models.index.isin(ATTACKS)]
        if CONTROL in models.index and len(robust):
            loss = models["loss"][CONTROL]
            lines.append(
                {
                    "scale": one.scale,
                    "trained": one.title,
                    "seeds": int(robust["seeds"].min()),
                    "robust": len(robust),
                    "flatter": int((robust["ratio"] < 1).sum()),
                    "lambda1 ratio": robust["ratio"].median(),
                    "loss ratio": (robust["loss"] / loss).median(),
                    f"{CONTROL} loss": loss,
                }
            )
    return pd.DataFrame(lines)


def log_ratios(rows: Sequence[Row], top: int) -> dict[int, dict[str, float]]:
    """Return by seed and robust model the log of the sum of ``top`` eigenvalues over the control's (clean loss).

    Seeds that lack the control or one of the five models are left out.
    """
    found = _spectra(rows)
    seeds = sorted({seed for seed, _ in found})
    whole = [seed for seed in seeds if all((seed, name) in found for name in (CONTROL, *ATTACKS))]
    sums = {key: sum(spectrum[:top]) for key, spectrum in found.items()}
    return {seed: {name: math.log(sums[seed, name] / sums[seed, CONTROL]) for name in ATTACKS} for seed in whole}


def _spectra(rows: Sequence[Row]) -> dict[tuple[int, str], list[float]]:
    """Return the leading eigenvalues on the clean loss by seed and model."""
    return {(row.config["training"]["seed"], row.config["model"]): row.values["clean"]["spectrum"] for row in rows}


def _ratios(rows: Sequence[Row], model: str) -> list[float]:
    """Return for each seed that has both the lambda1 of a model over the control's."""
    found = _spectra(rows)
    seeds = sorted(seed for seed, name in found if name == model and (seed, CONTROL) in found)
    return [found[seed, model][0] / found[seed, CONTROL][0] for seed in seeds]


def single_samples(rows: Sequence[Row]) -> pd.DataFrame:
    """Return one line a row with single-sample Hessians: how many have a negative eigenvalue that counts (K8)."""
    criteria = paper.criteria()
    rule = criteria.claims["K8"].thresholds
    lines = []
    for one, group in families(rows).items():
        for row in group:
            singles = row.values["singles"]
            if singles:
                hits = sum(_negative(entry) for entry in singles)
                low = binomtest(hits, len(singles)).proportion_ci(criteria.rules["confidence"], "exact").low
                lines.append(
                    {
                        "scale": one.scale,
                        "trained": one.title,
                        "seed": row.config["training"]["seed"],
                        "samples": len(singles),
                        "negative (%)": 100 * hits / len(singles),
                        "lower bound (%)": 100 * float(low),
                        "above half": bool(low > rule["share_lower_bound_above"]),
                    }
                )
    return pd.DataFrame(lines)


def _negative(single: Mapping[str, float]) -> bool:
    """Whether a single sample's Hessian has a negative eigenvalue that counts, by the criterion of K8."""
    rule = paper.criteria().claims["K8"].thresholds
    deep = -single["smallest"] > rule["negative_share_of_lambda_max"] * single["largest"]
    return deep and single["gradient_norm"] > rule["gradient_norm_above"]
