"""Curvature of the original, the control and the robust models (paper, section 3.3: Figs. 6 and 12)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hbanalysis.eigen import eigsh
from hbanalysis.errors import require, unknown_name
from hbanalysis.lineup import MODELS, ORIGINAL
from hbanalysis.operators import WeightHessian
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import GRADIENT_SECONDS, Costs, gradient_seconds, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.phases import Phases
from hbanalysis.studies.robust_config import Adversary, Robust, families, trained_copy
from hbanalysis.studies.spectra import largest
from hbanalysis.training import TrainingConfig

_ENDS_TOLERANCE = 5e-2  # of the two ends, which show signs and sizes
_TRAINED = 0.3  # share of a cell's time that is training, roughly


@dataclass(frozen=True)
class SpectrumMeasure:
    """What is measured on one model.

    Attributes:
        eigenvalues: How many of the largest eigenvalues of the training loss.
        tolerance: Relative error allowed for each.
        samples: The first n training samples; ``None`` takes all.
        subsample: Samples in the sub-sampled Hessian (the paper has 320, and 1).
        ends: Eigenvalues from each end of a sub-sampled Hessian.
        singles: Random training samples whose own Hessians are looked at, both ends; for the original model only.
    """

    eigenvalues: int = 20
    tolerance: float = 1e-4
    samples: int | None = None
    subsample: int = 320
    ends: int = 10
    singles: int = 200

    def __post_init__(self) -> None:
        require(self.eigenvalues >= 1, f"eigenvalues must be at least 1; given {self.eigenvalues}.")
        require(0 < self.tolerance < 1, f"tolerance must lie in (0, 1); given {self.tolerance}.")
        require(self.subsample >= 1, f"subsample must be at least 1; given {self.subsample}.")
        require(self.ends >= 1, f"ends must be at least 1; given {self.ends}.")
        require(self.singles >= 1, f"singles must be at least 1; given {self.singles}.")


@dataclass(frozen=True)
class SpectrumCell:
    """One of the seven models, and what is measured on it."""

    training: TrainingConfig
    adversary: Adversary
    robust: Robust
    measure: SpectrumMeasure
    model: str

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise unknown_name("model", self.model, MODELS)


_MEASURES = {
    "tiny": SpectrumMeasure(2, 1e-1, 40, 20, 1, 2),
    "digits": SpectrumMeasure(tolerance=1e-2, samples=300, subsample=100, ends=1, singles=20),
    # All 60,000 images are for a GPU: `paper` has them.
    "mnist": SpectrumMeasure(tolerance=1e-2, samples=10_000, ends=3),
    "small": SpectrumMeasure(tolerance=1e-2, samples=1000, ends=1, singles=50),
}


class RobustSpectrum(Study):
    """Spectra of robust models on the clean loss and on their own attacked images; sub-sampled ones, both ends."""

    cell_type = SpectrumCell
    name = "robust_spectrum"
    title = "Curvature of robust models"
    revision = 1
    notebook = "17_robust_curvature"
    scales = ("digits", "mnist", "small", "paper")
    budget = 900.0
    parameters: ClassVar = common(
        *("seeds", "batch_size", "train_samples", "eps_inf", "eps_2", "reading", "robust_epochs"),
        *("eigenvalues", "tolerance"),
    ) | {
        "models": Parameter(list[str], f"Which models: {', '.join(MODELS)}."),
        "max_epochs": Parameter(int, "Epochs of the original training."),
        "samples": Parameter(int, "The first n training samples for the spectra."),
    }
    bands: ClassVar = {"clean.spectrum.0": (0.4, 2.5), "own.spectrum.0": (0.4, 2.5)}

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        measure = changed(_MEASURES.get(scale, SpectrumMeasure()), chosen)
        models = chosen.get("models", (ORIGINAL, "FGSM") if scale == "tiny" else MODELS)
        found = [SpectrumCell(*family, measure, model) for family in families(scale, chosen) for model in models]
        return list(dict.fromkeys(found))

    def trainings(self, cell: Cell) -> list[str]:
        """Return the keys of the original model's checkpoints and of those of the copy that is measured."""
        copies = [] if cell.model == ORIGINAL else [cell.robust.key(cell.training, cell.adversary, cell.model)]
        return [cell.training.key, *copies]

    def distinction(self, cell: Cell) -> str:
        """Return the model."""
        return cell.model

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: the copy as some ten epochs, and some 6 gradients an eigenvalue."""
        t, m = cell.training, cell.measure
        measured = GRADIENT_SECONDS[t.network] * (m.samples or t.samples) * 6 * m.eigenvalues
        return Costs(training_seconds(t) + 10 * gradient_seconds(t), measured)

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        trained = run.train(_TRAINED / 2).demanded(ORIGINAL)
        if cell.model != ORIGINAL:
            report = run.part(_TRAINED / 2, _TRAINED)
            trained = trained_copy(run, cell.adversary, cell.robust, trained, cell.model, report)
        model, few = trained.load(run.network()), slice(0, cell.measure.samples)
        x, y = run.samples.images[few], run.samples.labels[few]
        spectra, seed = _Spectra(model, cell.measure, run.work, run.report), cell.training.seed
        attack = cell.adversary.attacks().get(cell.model)
        return {
            "status": trained.record.status,
            "epochs": trained.record.epochs,
            "clean": spectra.top("clean", x, y, _TRAINED),
            "own": None if attack is None else spectra.top("own", attack(model, x, y), y, 0.6),
            "ends": spectra.ends(x, y, seed),
            "singles": spectra.singles(x, y, seed) if cell.model == ORIGINAL else None,
        }, trained


class _Spectra:
    """The measurements on one model, in phases."""

    def __init__(self, model: nn.Module, measure: SpectrumMeasure, work: Phases, report: CellProgress) -> None:
        self.model, self.measure, self.work, self.report = model, measure, work, report

    def top(self, name: str, x: Tensor, y: Tensor, begin: float) -> dict[str, Any]:
        """Return loss, gradient norm and the largest eigenvalues of the mean loss on these images."""

        def tell(done: float) -> None:
            self.report(f"spectrum, {name}", begin + 0.25 * done)

        def measured() -> dict[str, Any]:
            H = WeightHessian(self.model, x, y)
            return largest(H, self.measure.eigenvalues, self.measure.tolerance, tell)

        tell(0.0)
        return self.work.once(name, measured)

    def ends(self, x: Tensor, y: Tensor, seed: int) -> list[dict[str, Any]]:
        """Return both ends of the spectra of one sample, of a random few and of all."""
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
        found = []
        for count in (1, min(self.measure.subsample, len(y)), len(y)):
            self.report(f"both ends, {count} samples", 0.85)
            chosen = order[:count].to(x.device)
            found.append(self.work.once(f"ends {count}", partial(self._ends, x[chosen], y[chosen])))
        return found

    def singles(self, x: Tensor, y: Tensor, seed: int) -> list[dict[str, Any]]:
        """Return both extreme eigenvalues and the gradient norm of random single samples' losses."""
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[: self.measure.singles]
        return self.work.once("singles", partial(self._singles, x, y, order.tolist()))

    def _ends(self, x: Tensor, y: Tensor) -> dict[str, Any]:
        pairs = eigsh(
            WeightHessian(self.model, x, y),
            2 * self.measure.ends,
            which="BE",
            tol=max(self.measure.tolerance, _ENDS_TOLERANCE),
            check=False,
            show=lambda done, worst: self.report(f"both ends, {len(y)} samples", 0.87),
        )
        return {"samples": len(y), "spectrum": pairs.values.tolist(), "converged": pairs.converged}

    def _singles(self, x: Tensor, y: Tensor, order: list[int]) -> list[dict[str, Any]]:
        found = []
        for number, i in enumerate(order):
            self.report(f"single samples, {number + 1} of {len(order)}", 0.9 + 0.09 * number / len(order))
            H = WeightHessian(self.model, x[i : i + 1], y[i : i + 1])
            ends = eigsh(
                H, 2, which="BE", tol=_ENDS_TOLERANCE, check=False, show=lambda done, worst: None
            ).values.tolist()
            norm = float(H.gradient().double().norm())
            found.append({"sample": i, "largest": ends[0], "smallest": ends[1], "gradient_norm": norm})
        return found
