"""Data sets as two tensors on one device: images in [0, 1] and integer labels.

The handwritten digits of scikit-learn are embedded; the others are loaded by torchvision, with its checksums, from a
folder that the user fills. Nothing is downloaded unless `fetch` is called.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import interpolate

from hbanalysis import data_files
from hbanalysis.errors import InputError, MissingDataError, unknown_name
from hbanalysis.folders import user_cache

ROOT_VARIABLE = "HBANALYSIS_DATA"


@dataclass(frozen=True)
class Description:
    """What a data set is, before it is loaded.

    Attributes:
        name: What it is called here.
        splits: Number of samples of each split.
        shape: Of an image.
        classes: Number of classes.
        source: Whose it is.
        loader: Name of the class in ``torchvision.datasets``; ``None`` for an embedded one.
        stored: What the loader calls a split, where that is another name than here.
    """

    name: str
    splits: dict[str, int]
    shape: tuple[int, int, int]
    classes: int
    source: str
    loader: str | None
    stored: Mapping[str, str] = field(default_factory=dict)


_SPLITS = {"train": 60_000, "test": 10_000}
_CIFAR = {"train": 50_000, "test": 10_000}
_SVHN = {"train": 73_257, "extra": 531_131, "test": 26_032}
DATASETS = {
    d.name: d
    for d in (
        Description(
            "digits",
            {"train": 1433, "test": 364},
            (1, 28, 28),
            10,
            "scikit-learn, UCI optical recognition of handwritten digits; embedded",
            None,
        ),
        Description("mnist", _SPLITS, (1, 28, 28), 10, "LeCun, Cortes and Burges", "MNIST"),
        Description("fashion_mnist", _SPLITS, (1, 28, 28), 10, "Xiao, Rasul and Vollgraf 2017", "FashionMNIST"),
        Description("cifar10", _CIFAR, (3, 32, 32), 10, "Krizhevsky 2009", "CIFAR10"),
        Description("cifar100", _CIFAR, (3, 32, 32), 100, "Krizhevsky 2009", "CIFAR100"),
        Description("svhn", _SVHN, (3, 32, 32), 10, "Netzer et al. 2011", "SVHN"),
        Description(
            "svhn_extra",
            {"train": _SVHN["extra"], "test": _SVHN["test"]},
            (3, 32, 32),
            10,
            "Netzer et al. 2011; trains on the split `extra`, as the paper does",
            "SVHN",
            {"train": "extra"},
        ),
    )
}


@dataclass(frozen=True)
class Samples:
    """Images ``(N, C, H, W)`` in [0, 1], float32, and labels ``(N,)``, int64, on one device."""

    images: Float[Tensor, "n c h w"]
    labels: Int64[Tensor, " n"]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)


def names() -> list[str]:
    """Return the names of the data sets."""
    return list(DATASETS)


def describe(name: str) -> Description:
    """Return the description of a data set.

    Raises:
        InputError: The name is unknown.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]


def root(given: str | Path | None = None) -> Path:
    """Return the folder of the data sets: ``given``, else ``HBANALYSIS_DATA``, else the user's cache folder."""
    return Path(given or os.environ.get(ROOT_VARIABLE) or user_cache() / "data")


def available(name: str, folder: str | Path | None = None) -> bool:
    """Tell whether every split of a data set can be loaded without a download: all there, and as published."""
    description, where = describe(name), root(folder)
    if description.loader is not None and data_files.damaged(description.loader, where):
        return False
    return all(_present(description, split, where) for split in description.splits)


def load(
    name: str,
    split: str = "train",
    *,
    samples: int | None = None,
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
) -> Samples:
    """Load one split of a data set onto a device.

    Args:
        name: One of `names()`.
        split: ``"train"`` or ``"test"``; SVHN also has ``"extra"``.
        samples: Keep the first ``samples`` only; ``None`` keeps all.
        folder: The root folder; see `root`.
        device: The device of both tensors; ``None`` means the CPU.

    Raises:
        InputError: Unknown name or split, ``samples`` outside 1..N, or files that are not the published ones.
        MissingDataError: The files are not there; names the folder and the command that gets them.

    Example:
        >>> digits = load("digits")
        >>> digits.images.shape, digits.classes
        (torch.Size([1433, 1, 28, 28]), 10)
    """
    description = describe(name)
    if split not in description.splits:
        raise unknown_name(f"split of {name}", split, description.splits)
    size = description.splits[split]
    if samples is not None and not 1 <= samples <= size:
        raise InputError(f"{name} {split} has {size} samples; given samples={samples}. Use 1 to {size}.")
    where = root(folder)
    if description.loader is None:
        images, labels = _digits(split)
    else:
        # First of all: some of these files are pickles, which must not be opened unless they are the published ones.
        wrong = data_files.damaged(description.loader, where, description.stored.get(split, split))
        if wrong:
            listed = "; ".join(f"{path} ({what})" for path, what in wrong.items())
            raise InputError(
                f"Files of the data set {name!r} are not the published ones: {listed}. Delete them and get them again "
                f"with `hbanalysis data fetch {name}`."
            )
        if not _present(description, split, where):
            raise MissingDataError(
                f"The data set {name!r} ({split}) is not in {where}. Get it with `hbanalysis data fetch {name}`, "
                f"or name its folder with --root or the environment variable {ROOT_VARIABLE}."
            )
        images, labels = _tensors(_torchvision(description, split, where, download=False))
    images, labels = images[:samples], labels[:samples]
    return Samples(images.to(device).contiguous(), labels.to(device), description.classes)


def fetch(name: str, folder: str | Path | None = None) -> Path:
    """Download a data set by torchvision, checksums included, and return its root folder.

    Raises:
        InputError: Unknown name, or the download failed.
    """
    description, where = describe(name), root(folder)
    if description.loader is not None:
        where.mkdir(parents=True, exist_ok=True)
        for split in description.splits:
            try:
                _torchvision(description, split, where, download=True)
            except Exception as error:  # torchvision raises bare RuntimeError, URLError or OSError by mirror
                raise InputError(
                    f"Could not fetch {name!r} ({split}) into {where}: {error}. Check the network, or put the files "
                    f"of torchvision.datasets.{description.loader} there by hand."
                ) from error
    return where


def _digits(split: str) -> tuple[Tensor, Tensor]:
    """Every fifth image of each class is a test image; 8x8 pixels in 0..16 become 28x28 in [0, 1]."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rank = np.zeros(len(bunch.target), dtype=int)  # of an image among those of its class
    for label in range(10):
        rank[bunch.target == label] = np.arange((bunch.target == label).sum())
    test = rank % 5 == 0
    chosen = test if split == "test" else ~test
    small = torch.from_numpy(bunch.images[chosen] / 16.0).to(torch.float32)
    images = interpolate(small[:, None], size=(28, 28), mode="bilinear", align_corners=False)
    return images.clamp(0.0, 1.0), torch.from_numpy(bunch.target[chosen]).to(torch.int64)


def _torchvision(description: Description, split: str, where: Path, download: bool) -> Any:
    from torchvision import datasets

    loader = getattr(datasets, str(description.loader))
    choice = (
        {"split": description.stored.get(split, split)} if description.loader == "SVHN" else {"train": split == "train"}
    )
    return loader(str(where), download=download, **choice)


def _present(description: Description, split: str, where: Path) -> bool:
    if description.loader is None:
        return True
    if not where.is_dir():
        return False
    try:
        _torchvision(description, split, where, download=False)
    except (RuntimeError, OSError):
        return False
    return True


def _tensors(dataset: Any) -> tuple[Tensor, Tensor]:
    """The three layouts of torchvision: (N, H, W) tensor, (N, H, W, C) array, (N, C, H, W) array; all 8 bit."""
    pixels = torch.as_tensor(dataset.data)
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.shape[-1] == 3:
        pixels = pixels.permute(0, 3, 1, 2)
    labels = torch.as_tensor(dataset.targets if hasattr(dataset, "targets") else dataset.labels)
    return pixels.to(torch.float32) / 255.0, labels.to(torch.int64)
