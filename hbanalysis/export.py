"""Rows as one tidy CSV file, with a dictionary that says what every column and quantity means."""

import csv
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hbanalysis.errors import InputError
from hbanalysis.store import Row

LEADING = {
    "key": "identifies the cell: hash of the study, its revision and the configuration",
    "study": "the study the row belongs to",
    "scale": "label: paper (a cell of the paper), the name of a preset, or custom",
    "origin": "published (committed with the project) or here (computed in the local store)",
    "revision": "the study's revision; raised when its code changes meaning",
}
TRAILING = {
    "quantity": "what was measured: a dotted path, a number in it counting from 0 into a list",
    "value": "the measured value; accuracies and epsilons are fractions in [0, 1]",
}
CONFIGURATION = {
    "training.dataset": "data set",
    "training.train_samples": "first n training samples used; empty means all",
    "training.network": "network: C1, C2, C3, M1 or CR",
    "training.activation": "activation function",
    "training.batch_size": "samples a step of SGD",
    "training.learning_rate": "initial learning rate",
    "training.momentum": "momentum of SGD",
    "training.schedule": "learning-rate schedule",
    "training.target_loss": "mean training loss (whole set) at which the training ends",
    "training.max_epochs": "cap on the number of epochs",
    "training.ghost_batch": "samples that share batch-normalisation statistics; empty means the batch",
    "training.precision": "floating-point type of the training",
    "training.seed": "seed of initialisation and batch order",
    "measure.eigenvalues": "number of largest eigenvalues of the training Hessian measured",
    "measure.test_eigenvalues": "the same for the test Hessian",
    "measure.tolerance": "relative tolerance of the eigenvalues",
    "measure.epsilons": "sizes of the FGSM attack, in units of the image range [0, 1]",
    "measure.half_width": "the landscape runs over +- this distance along the first eigenvector",
    "measure.points": "number of distances at which the landscape is measured",
    "measure.test_samples": "first n test samples used; empty means all",
}
_MEASURED = {
    "loss_train": "mean loss on the training set",
    "loss_test": "mean loss on the test set",
    "accuracy_train": "accuracy on the training set",
    "accuracy_test": "accuracy on the test set",
    "gradient_norm_train": "Euclidean norm of the gradient of the mean training loss",
    "slope_train": "derivative of the mean training loss along the first eigenvector",
    "lambda1_train": "largest eigenvalue of the Hessian of the mean training loss in the weights",
    "lambda1_test": "largest eigenvalue of the Hessian of the mean test loss in the weights",
    "spectrum_train.*": "largest eigenvalues of the training Hessian, descending",
    "spectrum_test.*": "largest eigenvalues of the test Hessian, descending",
    "bounds_train.*": "error bound of each eigenvalue of the training Hessian",
    "bounds_test.*": "error bound of each eigenvalue of the test Hessian",
    "converged_train": "whether all eigenvalues of the training Hessian met the tolerance",
    "converged_test": "whether all eigenvalues of the test Hessian met the tolerance",
    "kept_samples_train": "share of the training samples that entered the products; the others carry no curvature",
    "kept_samples_test": "share of the test samples that entered the products; the others carry no curvature",
    "screening_error_train": "norm of the training Hessian's part left out, included in its bounds",
    "screening_error_test": "norm of the test Hessian's part left out, included in its bounds",
    "products_train": "Hessian-vector products used on the training set",
    "products_test": "Hessian-vector products used on the test set",
    "fgsm.*.epsilon": "size of the FGSM attack",
    "fgsm.*.accuracy_train": "accuracy on attacked training samples",
    "fgsm.*.accuracy_test": "accuracy on attacked test samples",
}
QUANTITIES = {
    "status": "reached (the target loss), cap (epochs used up) or diverged",
    "epochs": "epochs until the target loss was crossed",
    "steps": "steps of SGD until the target loss was crossed",
    "crossings.*.threshold": "training loss whose first crossing is recorded",
    "crossings.*.epoch": "epoch of the first crossing",
    "crossings.*.step": "step of the first crossing",
    "crossings.*.loss_train": "training loss measured at the first crossing",
    "history.*.epoch": "epoch",
    "history.*.step": "steps of SGD at the end of the epoch",
    "history.*.loss_running": "mean of the batch losses during the epoch",
    "history.*.learning_rate": "learning rate during the epoch",
    "landscape.t.*": "distance along the first eigenvector of the training Hessian",
    "landscape.loss_train.*": "training loss at that distance",
    "landscape.loss_test.*": "test loss at that distance",
    "landscape.slope_train": "first derivative of the training loss along the eigenvector at 0",
    "landscape.curvature_train": "second derivative of the training loss along the eigenvector at 0",
    **{f"at_target.{name}": f"{text}, at the first crossing of the target" for name, text in _MEASURED.items()},
    **{f"epoch_end.{name}": f"{text}, at the end of that epoch" for name, text in _MEASURED.items()},
}


def long_lines(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield one line for every measured value of every row, the configuration beside it."""
    for row in rows:
        fixed = {name: getattr(row, name) for name in LEADING}
        fixed |= {name: _text(value) for name, value in _two_levels(row.config)}
        for quantity, value in _leaves(row.values):
            yield fixed | {"quantity": quantity, "value": value}


def write(rows: Iterable[Row], target: Path | str) -> tuple[Path, Path]:
    """Write the rows as ``target`` and its dictionary beside it as ``<name>_dictionary.csv``.

    Raises:
        InputError: The target cannot be written, or is not named ``.csv``.
    """
    target = Path(target)
    if target.suffix != ".csv":
        raise InputError(f"The export is a CSV file; given {str(target)!r}. Try {str(target.with_suffix('.csv'))!r}.")
    lines = list(long_lines(rows))
    configuration = sorted({name for line in lines for name in line} - {*LEADING, *TRAILING})
    columns = [*LEADING, *configuration, *TRAILING]
    dictionary = target.with_name(f"{target.stem}_dictionary.csv")
    _write(target, columns, lines)
    _write(dictionary, ["kind", "name", "meaning"], describe(columns, (line["quantity"] for line in lines)))
    return target, dictionary


def describe(columns: Iterable[str], quantities: Iterable[str]) -> list[dict[str, str]]:
    """Return the dictionary of the columns and quantities that occur; a list's items share one line.

    Example:
        >>> describe([], ["at_target.spectrum_train.0", "at_target.spectrum_train.1"])[0]["name"]
        'at_target.spectrum_train.*'
    """
    texts = LEADING | CONFIGURATION | TRAILING
    lines = [{"kind": "column", "name": name, "meaning": texts.get(name, "")} for name in columns]
    patterns = dict.fromkeys(pattern(quantity) for quantity in quantities)
    return lines + [{"kind": "quantity", "name": name, "meaning": QUANTITIES.get(name, "")} for name in patterns]


def pattern(quantity: str) -> str:
    """Return a quantity with its places in lists replaced by ``*``."""
    return ".".join("*" if step.isdigit() else step for step in quantity.split("."))


def _two_levels(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", item) for inner, item in value.items())
        else:
            yield name, value


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        if value is not None:
            yield path, value
        return
    for name, item in items:
        yield from _leaves(item, f"{path}.{name}" if path else str(name))


def _text(value: Any) -> Any:
    return " ".join(str(item) for item in value) if isinstance(value, list) else value


def _write(target: Path, columns: list[str], lines: Iterable[Mapping[str, Any]]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(lines)
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"Cannot write {target}: {error.strerror}. Name a file you may write to.") from error
