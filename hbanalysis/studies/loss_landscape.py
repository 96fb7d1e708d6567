"""Loss over planes in weight space, and curvature that does not depend on scale (paper, section 2.2: Fig. 3)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from hbanalysis import checkpoints
from hbanalysis.eigen import eigsh
from hbanalysis.errors import require
from hbanalysis.operators import Scaled, WeightHessian
from hbanalysis.studies.base import Cell, Study
from hbanalysis.studies.cell_run import CellProgress, CellRun, Trained
from hbanalysis.studies.cells import changed
from hbanalysis.studies.costs import Costs, gradient_seconds, training_seconds
from hbanalysis.studies.parameters import Parameter, common
from hbanalysis.studies.phases import Phases
from hbanalysis.studies.spectrum_vs_batch import PRESETS, Block, trainings
from hbanalysis.training import TrainingConfig
from hbanalysis.training.evaluation import evaluate
from hbanalysis.training.landscape import filter_normalised, over_plane

EIGENVECTORS, FILTERS = "eigenvectors", "filters"  # what spans a plane
_FIGURE_3 = {("C1", "cifar10"): 512}  # the smaller of the two batch sizes whose planes the paper compares


@dataclass(frozen=True)
class LandscapeMeasure:
    """What is measured on a trained network.

    Attributes:
        tolerance: Relative error allowed for each eigenvalue.
        directions: Random filter-normalised directions whose curvature is measured, at least 2.
        planes: Whether the loss is measured over planes as well.
        points: Distances along each axis of the plane of the first two eigenvectors, odd so that 0 is one of them.
        half_width: That plane reaches so far to each side, in units of the weights.
        random_points: The same for the plane of the first two random directions.
        random_half_width: The same, as a share of the length of each filter.
        test_samples: The first n test samples; ``None`` takes all.
    """

    tolerance: float = 1e-4
    directions: int = 10
    planes: bool = False
    points: int = 21
    half_width: float = 0.5
    random_points: int = 21
    random_half_width: float = 1.0
    test_samples: int | None = None

    def __post_init__(self) -> None:
        require(0 < self.tolerance < 1, f"tolerance must lie in (0, 1); given {self.tolerance}.")
        require(self.directions >= 2, f"directions must be at least 2, which span a plane; given {self.directions}.")
        for name in ("points", "random_points"):
            given = getattr(self, name)
            require(given >= 3 and given % 2 == 1, f"{name} must be odd and at least 3; given {given}.")
        for name in ("half_width", "random_half_width"):
            require(getattr(self, name) > 0, f"{name} must be positive; given {getattr(self, name)}.")


@dataclass(frozen=True)
class LandscapeCell:
    """One training and what is measured on it."""

    training: TrainingConfig
    measure: LandscapeMeasure


_MEASURES = {
    "tiny": LandscapeMeasure(tolerance=1e-1, directions=2, points=3, random_points=3, test_samples=50),
    "digits": LandscapeMeasure(tolerance=1e-2, directions=3, points=9, random_points=5),
}


class LossLandscape(Study):
    """Planes of the loss around trained networks, and lambda1 of D H D with D = diag abs(theta)."""

    cell_type = LandscapeCell
    name = "loss_landscape"
    title = "Landscapes and scale"
    revision = 1
    notebook = "08_landscapes"
    scales = ("digits", "mnist", "small", "paper")
    budget = 150.0
    parameters: ClassVar = common(
        *("batch_sizes", "seeds", "dataset", "network", "activation", "learning_rate", "momentum", "schedule"),
        *("target_loss", "max_epochs", "train_samples", "test_samples", "tolerance"),
    ) | {
        "directions": Parameter(int, "Random filter-normalised directions, at least 2."),
        "points": Parameter(int, "Distances along each axis of the plane of two eigenvectors, odd."),
        "half_width": Parameter(float, "That plane reaches so far to each side."),
        "random_points": Parameter(int, "Distances along each axis of the plane of two random directions, odd."),
        "random_half_width": Parameter(float, "That plane reaches so far, as a share of each filter's length."),
    }
    bands: ClassVar = {
        "at_target.lambda1_train": (0.5, 2.0),
        "at_target.scaled_lambda1_train": (0.5, 2.0),
        "at_target.filter_curvature_train": (0.5, 2.0),
        "at_target.weight_norm": (0.9, 1.1),
    }

    def _cells(self, scale: str, chosen: Mapping[str, Any]) -> list[Cell]:
        cells = []
        for block, config in trainings(scale, chosen):
            given = replace(_MEASURES.get(scale, LandscapeMeasure()), test_samples=_test_samples(scale, block))
            sizes = chosen.get("batch_sizes", block.batch_sizes)
            ends = {*_ends(block), min(sizes), max(sizes)}
            measure = replace(changed(given, chosen), planes=config.batch_size in ends)
            cells.append(LandscapeCell(config, measure))
        return list(dict.fromkeys(cells))

    def costs(self, cell: Cell) -> Costs:
        """Return guesses: some 30 products, and a forward pass, a third of a gradient, for each point of a plane."""
        measure, t = cell.measure, cell.training
        points = measure.points**2 + measure.random_points**2 if measure.planes else 0
        passes = 3.3 * (25 + measure.directions) + 0.4 * points
        return Costs(training_seconds(t), gradient_seconds(t) * passes + 1)

    def _values(self, cell: Cell, run: CellRun) -> tuple[dict[str, Any], Trained]:
        begin = self.costs(cell).share
        trained, test = run.train(begin), run.test(cell.measure.test_samples)
        record = trained.record
        values: dict[str, Any] = {"status": record.status, "epochs": record.epochs}
        if trained.diverged:
            return values | {"at_target": None, "layers": None, "planes": None}, trained
        sets = ((run.samples.images, run.samples.labels), (test.images, test.labels))
        model = trained.load(run.network())
        landscape = _Landscape(model, sets, cell, run.work, run.part(begin, 1.0))
        values["at_target"] = landscape.controls()
        values["layers"] = landscape.layers()
        values["planes"] = landscape.planes() if cell.measure.planes else None
        return values, trained


class _Landscape:
    """The measurements on one model, in phases; the planes line by line."""

    def __init__(
        self,
        model: nn.Module,
        sets: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
        cell: LandscapeCell,
        work: Phases,
        report: CellProgress,
    ) -> None:
        self.model, self.sets, self.measure, self.work, self.report = model, sets, cell.measure, work, report
        self.seed = cell.training.seed
        self.hessian = WeightHessian(model, *sets[0])
        self.weights = self.hessian.space.vector().double()

    def controls(self) -> dict[str, Any]:
        """Return losses, accuracies, norms, and the curvature with and without the scale of the weights."""
        self.report("evaluation", 0.0)
        values = self.work.once("evaluation", self._evaluation)
        values = values | self.work.once("spectrum", self._spectrum)
        values = values | self.work.once("scaled", self._scaled)
        self.report("random directions", 0.28)
        found = self.work.once("filters", self._filters)
        curvatures = [line[i] for i, line in enumerate(found["curvatures"])]
        return values | {
            "filter_curvature_train": sum(curvatures) / len(curvatures),
            "filter_curvatures_train": curvatures,
        }

    def layers(self) -> list[dict[str, Any]]:
        """Return the norm of every parameter."""
        space = self.hessian.space
        return [
            {"name": name, "norm": tensor.detach().double().norm().item()}
            for name, tensor in zip(space.names, space.tensors, strict=True)
        ]

    def planes(self) -> dict[str, Any]:
        """Return both losses over both planes, with the derivatives of the training loss in their axes."""
        measure, first = self.measure, self.work.results["spectrum"]
        along = self.work.results["filters"]
        top = first["spectrum_train"]
        v = checkpoints.load(self._path)[0]["vectors"]
        return {
            EIGENVECTORS: self._plane(EIGENVECTORS, v, measure.points, measure.half_width, 0.3)
            | {"slopes": first["slopes_train"], "curvatures": [[top[0], 0.0], [0.0, top[1]]]},
            FILTERS: self._plane(FILTERS, self._random()[:, :2], measure.random_points, measure.random_half_width, 0.65)
            | {"slopes": along["slopes"][:2], "curvatures": [line[:2] for line in along["curvatures"][:2]]},
        }

    def _evaluation(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, images in zip(("train", "test"), self.sets, strict=True):
            values[f"loss_{name}"], values[f"accuracy_{name}"] = evaluate(self.model, *images)
        return values | {"weight_norm": self.weights.norm().item()}

    def _spectrum(self) -> dict[str, Any]:
        pairs = eigsh(
            self.hessian,
            2 if self.measure.planes else 1,
            tol=self.measure.tolerance,
            method="auto",
            check=False,
            show=lambda done, worst: self.report("spectrum", 0.02 + 0.1 * min(1.0, done / 25)),
        )
        gradient = self.hessian.gradient().double()
        # An eigenvector has no sign of its own; this one makes the loss rise.
        rising = 1 - 2 * (pairs.vectors.double().T @ gradient < 0).to(pairs.vectors.dtype)
        vectors = pairs.vectors * rising
        checkpoints.save(self._path, {"vectors": vectors})
        return {
            "lambda1_train": pairs.values[0].item(),
            "spectrum_train": pairs.values.tolist(),
            "converged_train": pairs.converged,
            "products_train": pairs.products,
            "gradient_norm_train": gradient.norm().item(),
            "slopes_train": (vectors.double().T @ gradient).tolist(),
        }

    def _scaled(self) -> dict[str, Any]:
        # The diagonal whose square root stands on both sides: diag abs(theta) is the root of diag theta^2.
        pairs = eigsh(
            Scaled(self.hessian, self.weights.square()),
            1,
            tol=self.measure.tolerance,
            check=False,
            show=lambda done, worst: self.report("scaled spectrum", 0.14 + 0.12 * min(1.0, done / 25)),
        )
        return {
            "scaled_lambda1_train": pairs.values[0].item(),
            "scaled_converged_train": pairs.converged,
            "scaled_products_train": pairs.products,
        }

    def _filters(self) -> dict[str, Any]:
        d = self._random()
        curved, wide = (self.hessian @ d).double(), d.double()
        matrix = wide.T @ curved
        slopes = wide.T @ self.hessian.gradient().double()
        return {"slopes": slopes.tolist(), "curvatures": ((matrix + matrix.T) / 2).tolist()}

    def _plane(self, name: str, directions: Tensor, points: int, half_width: float, begin: float) -> dict[str, Any]:
        distances = spaced(points, half_width)
        planes = over_plane(
            self.model,
            directions,
            distances,
            *self.sets,
            keep=lambda number, line: self.work.once(f"{name} {number}", line),
            show=lambda fraction: self.report(f"plane, {name}", begin + 0.34 * fraction),
        )
        return {"t": distances, "loss_train": planes[0], "loss_test": planes[1]}

    def _random(self) -> Tensor:
        return filter_normalised(self.model, self.measure.directions, self.seed)

    @property
    def _path(self) -> Path:
        return self.work.folder / "directions.safetensors"


def spaced(points: int, half_width: float) -> list[float]:
    r"""Return distances from ``-half_width`` to ``half_width``, closer together near 0.

    .. math:: t(u) = h \, u^3, \qquad u \in [-1, 1] \text{ evenly spaced}

    The second-order picture of a trained network ends long before the plane does; even spacing would miss where.

    Args:
        points: How many, odd.
        half_width: The largest distance.

    Example:
        >>> spaced(5, 1.0)
        [-1.0, -0.125, 0.0, 0.125, 1.0]
    """
    half = points // 2
    return [half_width * (i / half) ** 3 for i in range(-half, half + 1)]


def _ends(block: Block) -> set[int]:
    """Return the batch sizes whose planes are measured: the ends of every preset of this network on this data."""
    found, family = set(), replace(block.base, batch_size=1)
    for other in (one for others in PRESETS.values() for one in others):
        if replace(other.base, batch_size=1) == family:
            found |= {min(other.batch_sizes), max(other.batch_sizes)}
    figure = _FIGURE_3.get((block.base.network, block.base.dataset))
    return found | ({figure} if figure else set())


def _test_samples(scale: str, block: Block) -> int | None:
    return _MEASURES[scale].test_samples if scale in _MEASURES else block.measure.test_samples
