"""What is measured on a trained network: losses, accuracies, spectra, FGSM accuracy, the landscape along v1.

The phases are kept one by one in the store's work folder, so an interrupted cell goes on with the first unfinished one.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from hbanalysis import checkpoints, training
from hbanalysis.eigen import Eigenpairs, eigsh
from hbanalysis.operators import WeightHessian
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.phases import Phases
from hbanalysis.training.evaluation import accuracy_under_fgsm, evaluate
from hbanalysis.training.landscape import along_direction

SETS = ("train", "test")


@runtime_checkable
class MeasureLike(Protocol):
    """The fields of a study's measure that are read here."""

    eigenvalues: int
    test_eigenvalues: int
    tolerance: float
    epsilons: tuple[float, ...]
    half_width: float
    points: int
    test_samples: int | None


def measure_trained_model(run: CellRun, measure: MeasureLike, share: float) -> tuple[dict[str, Any], Trained]:
    """Train (or reuse the checkpoint), measure, and return the values as JSON data beside the training.

    Args:
        run: The cell that is computed.
        measure: What to measure.
        share: Share of the cell's cost that is training, for the progress.
    """
    trained, test = run.train(share), run.test(measure.test_samples)
    record = trained.record
    values: dict[str, Any] = {
        "status": record.status,
        "epochs": record.epochs,
        "steps": record.steps,
        "crossings": record.crossings,
        "history": record.history,
        "at_target": None,
        "epoch_end": None,
        "landscape": None,
    }
    if trained.diverged:
        return values, trained
    sets = {"train": (run.samples.images, run.samples.labels), "test": (test.images, test.labels)}
    cell = _Cell(trained.load(run.network()), sets, measure, run.work, run.part(share, 1.0))
    values["at_target"] = cell.full()
    values["landscape"] = cell.landscape()
    if record.status == "reached":
        if record.epochs == int(record.epochs):
            values["epoch_end"] = _short(values["at_target"])
        else:
            trained.load(cell.model, training.EPOCH_END)
            values["epoch_end"] = cell.short()
    return values, trained


class _Cell:
    """The measurements on one model, in phases."""

    def __init__(
        self,
        model: nn.Module,
        sets: Mapping[str, tuple[Tensor, Tensor]],
        measure: MeasureLike,
        work: Phases,
        report: CellProgress,
    ) -> None:
        self.model, self.sets, self.measure, self.work, self._report = model, sets, measure, work, report

    def full(self) -> dict[str, Any]:
        """Everything at the target: losses, gradient, top eigenvalues, FGSM."""
        self._tick("evaluation", 0.0)
        values = self.work.once("evaluation", self._evaluation)
        for index, name in enumerate(SETS):
            values = values | self.work.once(f"spectrum_{name}", partial(self._spectrum, name, 0.75 * index))
        self._tick("attack", 0.86)
        return values | {"fgsm": self.work.once("attack", self._fgsm)}

    def short(self) -> dict[str, Any]:
        """Losses, accuracies and lambda1 only, for the end of the epoch."""
        return self.work.once("epoch_end", self._short)

    def landscape(self) -> dict[str, Any]:
        """Train and test loss along the first eigenvector of the training loss."""
        return self.work.once("landscape", self._landscape)

    def _evaluation(self) -> dict[str, Any]:
        values = {}
        for name in SETS:
            values[f"loss_{name}"], values[f"accuracy_{name}"] = evaluate(self.model, *self.sets[name])
        return values

    def _spectrum(self, name: str, begin: float) -> dict[str, Any]:
        count = self.measure.eigenvalues if name == "train" else self.measure.test_eigenvalues
        pairs = self._eigsh(name, count, "spectrum", begin)
        values = {
            f"lambda1_{name}": pairs.values[0].item(),
            f"spectrum_{name}": pairs.values.tolist(),
            f"bounds_{name}": pairs.bounds.tolist(),
            f"converged_{name}": pairs.converged,
            f"products_{name}": pairs.products,
            f"kept_samples_{name}": pairs.notes.get("used", 1.0),
            f"screening_error_{name}": pairs.notes.get("left_out_norm", 0.0),
        }
        if name == "train":
            gradient = WeightHessian(self.model, *self.sets[name]).gradient().double()
            v1 = pairs.vectors[:, 0].double()
            values["gradient_norm_train"] = gradient.square().sum().sqrt().item()
            values["slope_train"] = (gradient @ v1).item()
            checkpoints.save(self.work.folder / "direction.safetensors", {"v1": pairs.vectors[:, 0]})
        return values

    def _fgsm(self) -> list[dict[str, float]]:
        rows = []
        for eps in self.measure.epsilons:
            accuracies = {f"accuracy_{n}": accuracy_under_fgsm(self.model, *self.sets[n], eps) for n in SETS}
            rows.append({"epsilon": eps, **accuracies})
            self._tick("attack", 0.87)
        return rows

    def _landscape(self) -> dict[str, Any]:
        half = self.measure.points // 2
        distances = [self.measure.half_width * i / half for i in range(-half, half + 1)]
        sets = [self.sets[name] for name in SETS]
        curves = along_direction(
            self.model, self._direction(), distances, *sets, show=lambda f: self._tick("landscape", 0.88 + 0.06 * f)
        )
        spectrum = self.work.results["spectrum_train"]
        return {
            "t": distances,
            "loss_train": curves[0],
            "loss_test": curves[1],
            "slope_train": spectrum["slope_train"],
            "curvature_train": spectrum["lambda1_train"],
        }

    def _direction(self) -> Tensor:
        return checkpoints.load(self.work.folder / "direction.safetensors")[0]["v1"]

    def _short(self) -> dict[str, Any]:
        # The weights have moved by less than an epoch: the first eigenvector at the target is a good start, and the
        # random part finds another that may have overtaken it.
        v1 = self._direction()
        noise = torch.randn(len(v1), generator=torch.Generator().manual_seed(0)).to(v1) / len(v1) ** 0.5
        values = self._evaluation()
        for name in SETS:
            pairs = self._eigsh(name, 1, "epoch end", 0.94, v0=v1 + 0.1 * noise)
            values[f"lambda1_{name}"] = pairs.values[0].item()
        return values

    def _eigsh(self, name: str, k: int, phase: str, begin: float, v0: Tensor | None = None) -> Eigenpairs:
        length = 0.7 if name == "train" and k > 1 else 0.1
        guess = 2.3 * k + 12
        return eigsh(
            WeightHessian(self.model, *self.sets[name]),
            k,
            tol=self.measure.tolerance,
            method="auto",
            check=False,
            v0=v0,
            show=lambda done, worst: self._tick(f"{phase} {name}", begin + length * min(1.0, done / guess) * (k > 1)),
        )

    def _tick(self, phase: str, fraction: float) -> None:
        self._report(phase, min(fraction, 0.99))


def _short(full: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("loss", "accuracy", "lambda1")
    return {f"{name}_{s}": full[f"{name}_{s}"] for name in kept for s in SETS}
