"""Curvature of the original, the control and the robust models (paper, section 3.3: Figs. 6 and 12)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hbanalysis import checkpoints, data
from hbanalysis.eigen import eigsh
from hbanalysis.errors import NumericalError, require, unknown_name
from hbanalysis.lineup import MODELS, ORIGINAL
from hbanalysis.memory import keep_freed_memory
from hbanalysis.operators import WeightHessian
from hbanalysis.provenance import environment
from hbanalysis.store import Row, Store
from hbanalysis.studies.adversarial_training import ROBUST_TRAINING
from hbanalysis.studies.base import Cell, CellProgress, Parameter, Study
from hbanalysis.studies.phases import Phases, trained
from hbanalysis.studies.robust_config import PRESETS, Adversary, Robust, changed, part_of
from hbanalysis.training_config import TrainingConfig

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
}


class RobustSpectrum(Study):
    """Spectra of robust models on the clean loss and on their own attacked images; sub-sampled ones, both ends."""

    name = "robust_spectrum"
    title = "Curvature of robust models"
    revision = 1
    notebook = "06_adversarial_training"
    scales = ("digits", "mnist", "small", "paper")
    budget = 900.0
    parameters: ClassVar = {
        "seeds": Parameter(list[int], "Seeds of initialisation and order."),
        "models": Parameter(list[str], f"Which models: {', '.join(MODELS)}."),
        "batch_size": Parameter(int, "Samples a step, in 1..N."),
        "max_epochs": Parameter(int, "Epochs of the original training."),
        "train_samples": Parameter(int, "The first n training samples."),
        "eps_inf": Parameter(float, "Size in the maximum norm, in units of [0, 1]."),
        "eps_2": Parameter(float, "Size in the Euclidean norm, in units of [0, 1]."),
        "reading": Parameter(str, "H1 or H2: how the paper's attacks are read."),
        "robust_epochs": Parameter(int, "Additional epochs with attacked images."),
        "eigenvalues": Parameter(int, "How many of the largest eigenvalues of the training loss."),
        "tolerance": Parameter(float, "Relative error allowed for each eigenvalue."),
        "samples": Parameter(int, "The first n training samples for the spectra."),
    }
    bands: ClassVar = {"clean.spectrum.0": (0.4, 2.5), "own.spectrum.0": (0.4, 2.5)}

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        for base, adversary, seeds in PRESETS[scale]:
            robust = Robust(epochs=1) if scale == "tiny" else ROBUST_TRAINING.get(base.dataset, Robust())
            robust = replace(robust, epochs=chosen.get("robust_epochs", robust.epochs))
            measure = changed(_MEASURES.get(scale, SpectrumMeasure()), chosen)
            models = chosen.get("models", (ORIGINAL, "FGSM") if scale == "tiny" else MODELS)
            for seed in chosen.get("seeds", seeds):
                training = changed(base, {**chosen, "seed": seed})
                for model in models:
                    cells.append(SpectrumCell(training, changed(adversary, chosen), robust, measure, model))
        return list(dict.fromkeys(cells))

    def config(self, cell: Cell) -> dict[str, Any]:
        """Return the configuration of a cell as JSON data."""
        parts = {name: asdict(getattr(cell, name)) for name in ("training", "adversary", "robust", "measure")}
        return parts | {"model": cell.model}

    def from_config(self, config: Mapping[str, Any]) -> Cell:
        """Return the cell of a configuration.

        Raises:
            InputError: A field is missing or unknown.
        """
        kinds = {"training": TrainingConfig, "adversary": Adversary, "robust": Robust, "measure": SpectrumMeasure}
        parts = {name: part_of(config, name, kind, self.name) for name, kind in kinds.items()}
        return SpectrumCell(**parts, model=config.get("model", ""))

    def label(self, cell: Cell) -> str:
        """Return network, data set, model and seed."""
        t = cell.training
        return f"{t.network} {t.dataset} {cell.model} seed {t.seed}"

    def cost(self, cell: Cell) -> float:
        """Return CPU seconds, guessed from gradients."""
        samples = cell.measure.samples or cell.training.samples
        return 3e-4 * (cell.training.samples * 10 + samples * 5 * cell.measure.eigenvalues)

    def compute(self, cell: Cell, store: Store, device: str | None = None, progress: CellProgress | None = None) -> Row:
        """Train what is not trained yet, measure, write the row; see `Study.compute`."""
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        report = progress or (lambda phase, fraction: None)
        keep_freed_memory()
        config, key = cell.training, self.key(cell)
        work = Phases(store.work_folder(key), environment(device))
        samples = data.load(config.dataset, "train", samples=config.train_samples, device=device)
        folder = store.checkpoint_folder(config.key)
        record = trained(config, samples, folder, work, report, 0.0, _TRAINED / 2)
        path = folder / f"{record.final}.safetensors"
        attack = cell.adversary.attacks().get(cell.model)
        if cell.model != ORIGINAL and record.status != "diverged":
            folder = store.checkpoint_folder(cell.robust.key(config, cell.adversary, cell.model))
            further, phase = cell.robust.training(config), f"training {cell.model}"
            how = partial(trained, further, samples, folder, work, report, _TRAINED / 2, _TRAINED, phase)
            record = how(start=path, perturb=attack)
            path = folder / f"{record.final}.safetensors"
        if record.status == "diverged":
            raise NumericalError(f"The training of {self.label(cell)} diverged. Use a smaller learning rate.")
        model = config.network_on(device)
        checkpoints.restore(model, path)
        model.eval()
        few = slice(0, cell.measure.samples)
        x, y = samples.images[few], samples.labels[few]
        spectra = _Spectra(model, cell.measure, work, report)
        values: dict[str, Any] = {"status": record.status, "epochs": record.epochs}
        values["clean"] = spectra.top("clean", x, y, _TRAINED)
        values["own"] = None if attack is None else spectra.top("own", attack(model, x, y), y, 0.6)
        values["ends"] = spectra.ends(x, y, config.seed)
        values["singles"] = spectra.singles(x, y, config.seed) if cell.model == ORIGINAL else None
        provenance = work.provenance(record.seconds, record.checkpoints[record.final])
        work.discard()
        row = Row(self.name, self.scale_of(cell), self.revision, key, self.config(cell), values, provenance)
        store.put(row)
        return row


class _Spectra:
    """The measurements on one model, in phases."""

    def __init__(self, model: nn.Module, measure: SpectrumMeasure, work: Phases, report: CellProgress) -> None:
        self.model, self.measure, self.work, self.report = model, measure, work, report

    def top(self, name: str, x: Tensor, y: Tensor, begin: float) -> dict[str, Any]:
        """Return loss, gradient norm and the largest eigenvalues of the mean loss on these images."""
        self.report(f"spectrum, {name}", begin)
        return self.work.once(name, partial(self._top, name, x, y, begin))

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

    def _top(self, name: str, x: Tensor, y: Tensor, begin: float) -> dict[str, Any]:
        H = WeightHessian(self.model, x, y)
        guess = 2.3 * self.measure.eigenvalues + 12
        pairs = eigsh(
            H,
            self.measure.eigenvalues,
            tol=self.measure.tolerance,
            method="auto",
            check=False,
            show=lambda done, worst: self.report(f"spectrum, {name}", begin + 0.25 * min(1.0, done / guess)),
        )
        return {
            "loss": H.loss(),
            "gradient_norm": float(H.gradient().double().norm()),
            "spectrum": pairs.values.tolist(),
            "bounds": pairs.bounds.tolist(),
            "converged": pairs.converged,
            "products": pairs.products,
        }

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
