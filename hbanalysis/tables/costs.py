"""What rows cost where they were computed, and what the spectrum of a large model would cost at a measured rate."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from hbanalysis import networks
from hbanalysis.eigen.krylov import PROBE_ROOM
from hbanalysis.store import Row
from hbanalysis.tables.frames import scale_order

BACKWARD = 2  # a backward pass in units of a forward pass
EIGENVALUES = 20
IMAGENET = 1_281_167  # training images
LARGE = {"ResNet-50": "resnet50", "ViT-B/16": "vit_b_16"}
SIDE = 224
CORES = 1000
COLUMNS = ["study", "scale", "network", "data set", "rows", "CPU minutes a row", "least", "most", "computed on"]


def of_rows(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the measured CPU minutes a row: median, least and most, by study, scale, network and data set.

    Rows that found their trainings in the store are cheaper than those that did not. Rows without a record of their
    CPU seconds (computed on a GPU) are left out.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        training = row.config["training"]
        if row.provenance.get("cpu_seconds") is not None and row.provenance["device"] == "cpu":
            groups.setdefault((row.study, row.scale, training["network"], training["dataset"]), []).append(row)
    lines = []
    for place, group in sorted(groups.items(), key=lambda item: (item[0][0], scale_order(item[0][1]), item[0][2:])):
        minutes = [row.provenance["cpu_seconds"] / 60 for row in group]
        devices = ", ".join(sorted({row.provenance["device_name"] or "cpu" for row in group}))
        lines.append([*place, len(group), median(minutes), min(minutes), max(minutes), devices])
    return pd.DataFrame(lines, columns=COLUMNS)


def rate(result: Mapping[str, Any]) -> float:
    """Return the floating-point operations a second of one thread in a full-data gradient of a committed benchmark."""
    network = result["network"]
    shape, classes = {"mnist": ((1, 28, 28), 10), "cifar10": ((3, 32, 32), 10)}[network["dataset"]]
    model = networks.build(network["network"], shape, classes, seed=0).eval()
    forward = _forward(model, torch.zeros(1, *shape))
    return (1 + BACKWARD) * forward * network["samples"] / result["unit_seconds"]


def of_large_models(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return what the top 20 of models of ImageNet's size would take: an extrapolation, nothing of it was run.

    Products, and gradients a product, are those of ``hbanalysis lanczos`` in the benchmark; so is the rate.

    Args:
        result: A committed result of `benchmarks.large`; see `hbanalysis.tables.measured.results`.
    """
    run = next(entry for entry in result["methods"] if entry["name"] == "hbanalysis lanczos")
    products, gradients = run["products"], run["gradients"] / run["products"]
    vectors = max(2 * EIGENVALUES + 40, 60) + PROBE_ROOM + EIGENVALUES + 2
    lines = []
    for name, builder in LARGE.items():
        with torch.device("meta"):
            model, image = getattr(torchvision.models, builder)().eval(), torch.empty(1, 3, SIDE, SIDE)
        size = sum(parameter.numel() for parameter in model.parameters())
        work = products * gradients * (1 + BACKWARD) * _forward(model, image) * IMAGENET
        hours = work / rate(result) / 3600
        lines.append(
            {
                "model": name,
                "parameters, million": size / 1e6,
                "a vector, MB": 4 * size / 1e6,
                "basis, GB": vectors * 4 * size / 1e9,
                "all-reduce a product, MB": 8 * size / 1e6,
                "products": products,
                "EFLOP": work / 1e18,
                "core-hours": hours,
                f"hours on {CORES:,} cores": hours / CORES,
            }
        )
    return pd.DataFrame(lines)


def _forward(model: torch.nn.Module, image: torch.Tensor) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(image)
    return counter.get_total_flops()
