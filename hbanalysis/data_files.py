"""The files of the data sets and their published checksums.

torchvision checks the archives that it downloads and, of some sets, the files in them; what it does not check again is
checked here, so that no changed pixel and no foreign file is ever loaded. The sums of MNIST and Fashion-MNIST are
those of the unpacked files; the rest are torchvision's own.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

_MD5 = {
    "MNIST": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}


@dataclass(frozen=True)
class DataFile:
    """One file of a data set: its path, the split it belongs to (``None``: all of them) and its MD5."""

    path: Path
    split: str | None
    md5: str

    def damage(self) -> str | None:
        """Return what is wrong with a file that is there, or ``None``. Cost: the file is read once."""
        with self.path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return None if found == self.md5 else f"MD5 {found}; published is {self.md5}"


def files(loader: str, root: Path) -> list[DataFile]:
    """Return the files of a data set, there or not.

    Args:
        loader: Name of the class in ``torchvision.datasets``.
        root: The folder of the data sets.
    """
    from torchvision import datasets

    if loader in _MD5:
        raw = root / loader / "raw"
        splits = {"train": "train", "t10k": "test"}
        return [DataFile(raw / name, splits[name.partition("-")[0]], md5) for name, md5 in _MD5[loader].items()]
    kind = getattr(datasets, loader)
    if loader == "SVHN":
        return [DataFile(root / name, split, md5) for split, (_, name, md5) in kind.split_list.items()]
    folder = root / kind.base_folder
    lists = {"train": kind.train_list, "test": kind.test_list}
    found = [DataFile(folder / name, split, md5) for split, entries in lists.items() for name, md5 in entries]
    return [*found, DataFile(folder / kind.meta["filename"], None, kind.meta["md5"])]


def damaged(loader: str, root: Path, split: str | None = None) -> dict[Path, str]:
    """Return what is wrong with the files of a data set that are there, by path.

    Args:
        loader: Name of the class in ``torchvision.datasets``.
        root: The folder of the data sets.
        split: Check the files of this split only.
    """
    wrong = {}
    for file in files(loader, root):
        if (split is None or file.split in (split, None)) and file.path.is_file():
            damage = file.damage()
            if damage is not None:
                wrong[file.path] = damage
    if loader in _MD5:
        # torchvision would read these in place of the files above, and nobody publishes their checksums.
        for path in sorted((root / loader / "processed").glob("*.pt")):
            wrong[path] = "torchvision's old layout, which has no published checksums"
    return wrong
