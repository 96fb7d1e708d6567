"""What is measured at one state of a training: losses, curvature at both ends, gradient, batch sharpness, FGSM."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hbanalysis.data import Samples
from hbanalysis.eigen import Eigenpairs, eigsh
from hbanalysis.errors import require
from hbanalysis.operators import WeightHessian
from hbanalysis.studies.snapshots import chosen_epochs
from hbanalysis.training.evaluation import accuracy_under_fgsm, evaluate
from hbanalysis.training.sharpness import batch_sharpness

_FEWEST_BATCHES, _MOST_BATCHES = 4, 64


@dataclass(frozen=True)
class DynamicsMeasure:
    """What is measured along a training, and when.

    Attributes:
        dense: Every epoch up to this one.
        growth: Factor between the epochs measured after that.
        tolerance: Relative error allowed for lambda1.
        min_tolerance: The same for the smallest eigenvalue, which lies in a crowd and costs far more.
        min_at_epochs: Whether the smallest eigenvalue is measured at epochs too, or at crossings of the loss only.
        batch_samples: Samples of all random batches for the batch sharpness together; 4 to 64 batches are drawn.
        epsilon: FGSM size in units of [0, 1].
        test_samples: The first n test samples; ``None`` takes all.
    """

    dense: int = 8
    growth: float = 1.5
    tolerance: float = 1e-2
    min_tolerance: float = 0.1
    min_at_epochs: bool = True
    batch_samples: int = 8192
    epsilon: float = 0.1
    test_samples: int | None = None

    def __post_init__(self) -> None:
        next(chosen_epochs(self.dense, self.growth))
        for name in ("tolerance", "min_tolerance"):
            value = getattr(self, name)
            require(0 < value < 1, f"{name} must lie in (0, 1); given {value}.")
        require(self.batch_samples >= 1, f"batch_samples must be at least 1; given {self.batch_samples}.")
        require(0 < self.epsilon <= 1, f"epsilon must be a size in (0, 1]; given {self.epsilon}.")

    def batches(self, batch_size: int) -> int:
        """Return how many batches of a size are drawn.

        Example:
            >>> [DynamicsMeasure(batch_samples=1000).batches(size) for size in (10, 50, 1000)]
            [64, 20, 4]
        """
        return max(_FEWEST_BATCHES, min(_MOST_BATCHES, self.batch_samples // batch_size))


class Course:
    """Measures a model at one state of its training after the other; each start vector comes from the state before.

    Args:
        model: Its weights are set by the caller before each measurement.
        train: The training set.
        test: The test set.
        measure: What to measure.
        batch_size: Of the training.
        seed: Of the training; with the step it decides the random batches.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Samples,
        test: Samples,
        measure: DynamicsMeasure,
        batch_size: int,
        seed: int,
    ) -> None:
        self.model, self.train, self.test, self.measure = model, train, test, measure
        self.batch_size, self.seed = batch_size, seed
        self._starts: dict[str, Tensor] = {}

    def point(self, step: int, smallest: bool, tick: Callable[[], None]) -> dict[str, Any]:
        """Return what is measured on the model as it is.

        Args:
            step: Steps of the training so far.
            smallest: Whether the smallest eigenvalue is measured.
            tick: Called after each product; may raise to stop.
        """
        x, y = self.train.images, self.train.labels
        values: dict[str, Any] = {}
        for name, part in (("train", self.train), ("test", self.test)):
            values[f"loss_{name}"], values[f"accuracy_{name}"] = evaluate(self.model, part.images, part.labels)
        values["fgsm_test"] = accuracy_under_fgsm(self.model, self.test.images, self.test.labels, self.measure.epsilon)
        H = WeightHessian(self.model, x, y, engine="graph")
        values["gradient_norm_train"] = float(H.gradient().double().norm())
        values |= self._end(H, "LA", "lambda1", self.measure.tolerance, tick)
        values |= self._end(H, "SA", "lambda_min", self.measure.min_tolerance, tick) if smallest else {}
        tick()
        found = batch_sharpness(
            *(self.model, x, y, self.batch_size, self.measure.batches(self.batch_size)),
            seed=1_000_003 * (self.seed + 1) + step,
        )
        return values | {
            "sharpness": found.mean,
            "sharpness_error": None if math.isnan(found.standard_error) else found.standard_error,
            "sharpness_batches": found.batches,
        }

    def _end(
        self, H: WeightHessian, which: str, name: str, tolerance: float, tick: Callable[[], None]
    ) -> dict[str, Any]:
        pairs = eigsh(
            H,
            1,
            which=which,
            tol=tolerance,
            method="auto",
            check=False,
            v0=self._start(which),
            show=lambda done, worst: tick(),
        )
        self._keep(which, pairs)
        return {
            f"{name}_train": pairs.values[0].item(),
            f"{name}_bound": pairs.bounds[0].item(),
            f"{name}_products": pairs.products,
        }

    def _start(self, which: str) -> Tensor | None:
        """The last vector with some noise, in which another that has overtaken it is found."""
        vector = self._starts.get(which)
        if vector is None:
            return None
        noise = torch.randn(len(vector), generator=torch.Generator().manual_seed(0)).to(vector) / len(vector) ** 0.5
        return vector + 0.3 * noise

    def _keep(self, which: str, pairs: Eigenpairs) -> None:
        self._starts[which] = pairs.vectors[:, 0]
