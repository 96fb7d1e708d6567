"""What the study of input curvature measures on a trained network: summaries over samples as JSON data."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hbanalysis.attacks import fgsm, minimal_distance, pgd, still_correct
from hbanalysis.errors import NumericalError
from hbanalysis.inputs import hessian_ends, logit_jacobians, product_errors
from hbanalysis.store import pictures
from hbanalysis.trends import spearman

Pair = tuple[Tensor, Tensor]  # images and labels

EFFECTIVE = 1e-3  # eigenvalues above this share of a sample's first count towards its effective rank
LARGEST_DENSE = 1024  # numbers of an input up to which its Hessian is made dense
_DISTANCE_TOLERANCE = 2e-3  # of the smallest size at which PGD succeeds, in units of [0, 1]
NEGATIVE_RATIO = 1e-10  # -lambda_min / lambda_max that rounding may leave
_DOUBTS = tuple(10.0**k for k in range(-12, 1))  # edges of the classes of 1 - p_y; the first is open below


@dataclass(frozen=True)
class Curvatures:
    """One number a sample (or a line) from the logit Jacobians of a set, all float64 on the CPU.

    Attributes:
        values: Eigenvalues of the input Hessian, ``(n, r)``, descending.
        gradient_norms: Euclidean norms of the input gradient, ``(n,)``.
        distances: Linearised boundary distances in the maximum norm, ``(n,)``, negative where misclassified.
        doubts: 1 - p_y, ``(n,)``.
        losses: Cross-entropies, ``(n,)``.
    """

    values: Tensor
    gradient_norms: Tensor
    distances: Tensor
    doubts: Tensor
    losses: Tensor

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, labels: Tensor) -> "Curvatures":
        """Return those of a set. Cost: one pass of `logit_jacobians`."""
        columns: list[list[Tensor]] = [[], [], [], [], []]
        for part in logit_jacobians(model, x, labels):
            log_p = part.softmax.log_p
            doubts = part.softmax.log_q.logsumexp(1).exp()
            found = (part.eigenvalues(), part.gradient_norms(), part.boundary_distances(), doubts, -log_p)
            for column, each in zip(columns, found, strict=True):
                column.append(each.cpu())
        return cls(*(torch.cat(column) for column in columns))

    def of_part(self, chosen: Tensor) -> "Curvatures":
        """Return those of some samples."""
        each = (self.values, self.gradient_norms, self.distances, self.doubts, self.losses)
        return Curvatures(*(part[chosen] for part in each))

    @property
    def correct(self) -> Tensor:
        """Whether each sample is classified as its label."""
        return self.distances > 0

    @property
    def effective_ranks(self) -> Tensor:
        """How many eigenvalues of each sample are above `EFFECTIVE` of its first; 0 where all are 0."""
        return ((self.values > EFFECTIVE * self.values[:, :1]) & (self.values > 0)).sum(1).double()

    def summary(self, epsilons: Sequence[float]) -> dict[str, Any] | None:
        """Return means and medians over the samples; None if there is none."""
        if not len(self.values):
            return None
        return {
            "samples": len(self.values),
            "accuracy": float(self.correct.double().mean()),
            "loss": _both(self.losses),
            "doubt": _both(self.doubts),
            "lambda1": _both(self.values[:, 0]),
            "gradient_norm": _both(self.gradient_norms),
            "spectrum": {
                "mean": self.values.mean(0).tolist(),
                "median": self.values.quantile(0.5, dim=0).tolist(),
            },
            "effective_rank": _both(self.effective_ranks),
            "distance": {
                "median": float(self.distances.quantile(0.5)),
                "share_above": [float((self.distances > eps).double().mean()) for eps in epsilons],
            },
        }

    def by_doubt(self) -> list[dict[str, float]]:
        """Return what remains of the spectrum as p_y nears 1: samples in decades of 1 - p_y, the surest first."""
        lines = []
        for low, high in zip((0.0, *_DOUBTS[:-1]), _DOUBTS, strict=True):
            inside = (self.doubts > low) & (self.doubts <= high)
            if bool(inside.any()):
                part = self.of_part(inside)
                lines.append(
                    {
                        "doubt_at_most": high,
                        "samples": len(part.values),
                        "effective_rank": float(part.effective_ranks.mean()),
                        "lambda1": float(part.values[:, 0].quantile(0.5)),
                        "gradient_norm": float(part.gradient_norms.quantile(0.5)),
                    }
                )
        return lines


def on_a_set(model: nn.Module, pair: Pair, epsilons: Sequence[float]) -> dict[str, Any]:
    """Return the summary of a whole set, and of its samples by their doubt."""
    found = Curvatures.of(model, *pair)
    return {**(found.summary(epsilons) or {}), "by_doubt": found.by_doubt()}


def on_test(model: nn.Module, pair: Pair, epsilons: Sequence[float]) -> dict[str, Any]:
    """Return the summaries of the test set: all, correct and wrong samples, and their FGSM images at the first size."""
    found = Curvatures.of(model, *pair)
    moved = fgsm(model, *pair, epsilons[0], softmax="plain")
    return {
        **(found.summary(epsilons) or {}),
        "by_doubt": found.by_doubt(),
        "correct": found.of_part(found.correct).summary(epsilons),
        "wrong": found.of_part(~found.correct).summary(epsilons),
        "attacked": Curvatures.of(model, moved, pair[1]).summary(epsilons),
    }


def robustness(
    model: nn.Module, train: Pair, test: Pair, epsilons: Sequence[float], few: int, steps: int
) -> list[dict[str, float]]:
    """Return accuracies under FGSM on both sets, and under PGD on the margin loss on the first test samples."""
    lines = []
    first: Pair = (test[0][:few], test[1][:few])
    for eps in epsilons:
        line: dict[str, float] = {"epsilon": eps}
        for name, (x, y) in (("train", train), ("test", test)):
            line[f"fgsm_{name}"] = _share(still_correct(model, fgsm(model, x, y, eps, softmax="plain"), y))
        found = pgd(model, *first, eps, steps=steps, loss="margin")
        line["pgd_test"] = _share(still_correct(model, found, first[1]))
        lines.append(line)
    return lines


def distances(model: nn.Module, pair: Pair, steps: int) -> dict[str, Any]:
    """Return how the linearised boundary distance compares with the smallest size at which PGD succeeds."""
    x, y = pair
    attack = partial(pgd, steps=steps, loss="margin", random_start=False)
    found = minimal_distance(model, x, y, attack=attack, tolerance=_DISTANCE_TOLERANCE).eps.cpu()
    linear = Curvatures.of(model, x, y).distances.clamp(min=0.0)
    reached = found.isfinite() & linear.isfinite() & (found > 0)
    both = found[reached].tolist(), linear[reached].tolist()
    return {
        "samples": len(x),
        "compared": int(reached.sum()),
        "median": float(found.quantile(0.5)),
        "linearised_median": float(linear.quantile(0.5)),
        "rank_correlation": spearman(*both) if len(both[0]) >= 2 else None,
    }


def theorem(model: nn.Module, pair: Pair, vectors: int) -> dict[str, Any]:
    """Return the check of Theorem 1 and Proposition 2: dense Hessians of small inputs, products of larger ones."""
    x, y = pair
    form: dict[str, Any] = {"samples": len(x), "inputs": x[0].numel()}
    if x[0].numel() > LARGEST_DENSE:
        errors = product_errors(model, x, y, vectors=vectors)
        return form | {"method": "products", "vectors": vectors, "product_error": float(errors.max())}
    ends = hessian_ends(model, x, y)
    if not bool(ends.highest.isfinite().all()):
        raise NumericalError("An eigenvalue of a dense input Hessian is not finite.")
    counts = torch.bincount(ends.ranks.cpu(), minlength=ends.limit + 1)
    return form | {
        "method": "dense",
        "limit": ends.limit,
        "negative_ratio": float(ends.negative_ratios.max()),
        "ranks": counts.tolist(),
        "asymmetry": float(ends.asymmetry.max()),
        "lambda_max_smallest": float(ends.highest.min()),
        "exceptions": int(ends.exceptions(NEGATIVE_RATIO).sum()),
    }


def images(model: nn.Module, pair: Pair, count: int) -> list[dict[str, Any]]:
    """Return the test samples next to the boundary, one on either side in turn, with what the Hessian says of each."""
    x, y = pair
    found = Curvatures.of(model, x, y)
    order = found.distances.abs().argsort()
    sides = [order[found.correct[order]].tolist(), order[~found.correct[order]].tolist()]
    chosen = [side[k] for k in range(count) for side in sides if k < len(side)][:count]
    entries = []
    for part in logit_jacobians(model, x[chosen], y[chosen]):
        values, vectors = part.eigenpairs()
        shown = {
            "gradient": part.gradient(normalized=True),
            "v1": vectors[:, 0],
            **({"v2": vectors[:, 1]} if vectors.shape[1] > 1 else {}),
            "Newton": part.newton_direction(normalized=True),
        }
        gradient = shown["gradient"].flatten(1)
        for i in range(len(part)):
            sample = chosen[part.first + i]
            with torch.no_grad():
                predicted = int(model(x[sample : sample + 1]).argmax())
            entries.append(
                {
                    "sample": sample,
                    "label": int(y[sample]),
                    "predicted": predicted,
                    "doubt": float(found.doubts[sample]),
                    "eigenvalues": values[i].tolist(),
                    "cosines": {name: float((v[i].flatten() @ gradient[i]).abs()) for name, v in shown.items()},
                    "images": {"image": pictures.encoded(x[sample])}
                    | {name: pictures.encoded(v[i]) for name, v in shown.items()},
                }
            )
    return entries


def _both(values: Tensor) -> dict[str, float]:
    return {"mean": float(values.mean()), "median": float(values.quantile(0.5))}


def _share(correct: Tensor) -> float:
    return float(correct.double().mean())
