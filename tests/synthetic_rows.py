"""Rows with known laws, in the schema of `spectrum_vs_batch`: what is tested on them has a known answer."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hbanalysis.store import Row, row_key

STUDY = "spectrum_vs_batch"


def make_row(
    batch_size: int,
    seed: int,
    *,
    scale: str = "digits",
    network: str = "M1",
    dataset: str = "digits",
    lambda1: float = 1.0,
    accuracy_test: float = 0.97,
    fgsm: Sequence[tuple[float, float]] = ((0.1, 0.5), (0.2, 0.3)),
    spectrum: Sequence[float] | None = None,
    status: str = "reached",
    **training: Any,
) -> Row:
    """One row whose measured values are the arguments; the rest follows from them by simple laws."""
    config = {
        "training": {
            "dataset": dataset,
            "train_samples": None,
            "network": network,
            "activation": "relu",
            "batch_size": batch_size,
            "learning_rate": 0.01,
            "momentum": 0.9,
            "schedule": "constant",
            "target_loss": 1e-3,
            "max_epochs": 1000,
            "precision": "float32",
            "ghost_batch": None,
            "seed": seed,
        }
        | training,
        "measure": {"eigenvalues": 20, "tolerance": 1e-4, "epsilons": [e for e, _ in fgsm], "landscape": []},
    }
    top = list(spectrum) if spectrum is not None else [lambda1 * 0.8**i for i in range(20)]
    epochs = 3.0 * math.sqrt(batch_size)
    t = np.linspace(-0.5, 0.5, 21)
    at_target = {
        "loss_train": 9.6e-4,
        "loss_test": 0.09,
        "accuracy_train": 1.0,
        "accuracy_test": accuracy_test,
        "gradient_norm_train": 0.01,
        "lambda1_train": lambda1,
        "lambda1_test": 40 * lambda1,
        "spectrum_train": top,
        "bounds_train": [1e-5] * 20,
        "spectrum_test": [40 * value for value in top],
        "bounds_test": [1e-5] * 20,
        "converged_train": True,
        "converged_test": True,
        "products_train": 60,
        "products_test": 60,
        "fgsm": [{"epsilon": e, "accuracy_train": min(1.0, a + 0.1), "accuracy_test": a} for e, a in fgsm],
    }
    values: dict[str, Any] = {
        "status": status,
        "epochs": epochs,
        "steps": int(epochs * 1437 / batch_size),
        "crossings": [
            {"threshold": c, "epoch": epochs * share, "step": 1, "loss_train": 0.97 * c}
            for c, share in ((1e-1, 0.2), (1e-2, 0.6), (3e-3, 0.8), (1e-3, 1.0))
        ],
        "history": [
            {"epoch": e, "step": e, "loss_running": 2.3 * (4e-4) ** (e / epochs), "learning_rate": 0.01}
            for e in range(1, int(epochs) + 1)
        ],
        "at_target": None if status == "diverged" else at_target,
        "epoch_end": None if status == "diverged" else {k: at_target[k] for k in ("loss_train", "lambda1_train")},
        "landscape": {
            "t": t.tolist(),
            "loss_train": (9.6e-4 + lambda1 * t**2 / 2 + 0.1 * t**4).tolist(),
            "loss_test": (0.09 + 0.02 * t + 20 * lambda1 * t**2).tolist(),
            "slope_train": 0.001,
            "curvature_train": lambda1,
        },
    }
    key = row_key(STUDY, 1, config)
    return Row(study=STUDY, scale=scale, revision=1, key=key, config=config, values=values, provenance={})


def make_rows(
    batch_sizes: Sequence[int],
    seeds: Sequence[int],
    values: Callable[[int, int], dict[str, Any]],
    **fixed: Any,
) -> list[Row]:
    """One row a batch size and seed, with `values(batch_size, seed)` as arguments of `make_row`."""
    return [make_row(b, s, **fixed, **values(b, s)) for b in batch_sizes for s in seeds]


def rising(batch_size: int, seed: int) -> dict[str, Any]:
    """The paper's picture with a little noise that depends on the cell alone."""
    noise = np.random.default_rng([batch_size, seed]).normal(size=3)
    return {
        "lambda1": 0.3 * (batch_size / 16) ** 1.3 * math.exp(0.25 * noise[0]),
        "accuracy_test": 0.97 - 0.002 * math.log2(batch_size / 16) + 0.001 * noise[1],
        "fgsm": (
            (0.1, 0.6 - 0.06 * math.log2(batch_size / 16) + 0.02 * noise[2]),
            (0.2, 0.3 - 0.04 * math.log2(batch_size / 16) + 0.01 * noise[2]),
        ),
    }
