"""Golden values: what the measuring code gives in float64 on a committed network, and which studies' rows rest on it.

``python -m tests.golden`` writes `FILE` anew. It refuses values that moved unless every study that rests on them got a
higher ``revision``: rows of the old meaning then no longer count.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hbanalysis as hb
from benchmarks import digits_net
from hbanalysis import studies
from hbanalysis.training.landscape import filter_normalised
from hbanalysis.training.sharpness import batch_sharpness

FILE = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-8
WEIGHTS, FEW = 300, 12  # samples for curvature in the weights and in the input
EPS_INF, EPS_2 = 0.1, 1.0

Values = dict[str, list[float]]


def network() -> tuple[torch.nn.Module, Tensor, Tensor]:
    """Return the committed network in float64 with all images and labels."""
    images, labels = digits_net.data()
    return digits_net.trained().double(), images.double(), labels


def in_the_weights() -> Values:
    """Return spectra of the loss in the weights."""
    model, images, labels = network()
    H = hb.WeightHessian(model, images[:WEIGHTS], labels[:WEIGHTS])
    scale = H.space.vector().abs()
    directions = filter_normalised(model, 2, seed=3)
    sharpness = batch_sharpness(model, images[:WEIGHTS], labels[:WEIGHTS], 30, batches=4, seed=1)
    return {
        "largest": hb.eigsh(H, 10, tol=1e-11).values.tolist(),
        "smallest": hb.eigsh(H, 2, which="SA", tol=1e-11).values.tolist(),
        "screened": hb.eigsh(H, 3, method="screened", tol=1e-11).values.tolist(),
        "one sample": hb.eigsh(hb.WeightHessian(model, images[:1], labels[:1]), 3, tol=1e-11).values.tolist(),
        "D H D": hb.eigsh(hb.Scaled(H, scale), 3, tol=1e-11).values.tolist(),
        "trace": [float(hb.trace(H, products=30, seed=2).value)],
        "filter-normalised": (directions * (H @ directions)).sum(0).tolist(),
        "batch sharpness": [sharpness.mean],
    }


def in_the_input() -> Values:
    """Return curvature in the input: spectra, distances, Newton directions."""
    model, images, labels = network()
    x, y = images[:FEW], labels[:FEW]
    return {
        "spectra": hb.input_spectrum(model, x, y)[:, :3].flatten().tolist(),
        "distances": hb.boundary_distance(model, x, y).tolist(),
        "Newton directions": _seen(hb.newton_direction(model, x, y, normalized=True)),
    }


def in_train_mode() -> Values:
    """Return curvature with the statistics of each batch."""
    model, images, labels = network()
    H = hb.train_mode_hessian(model, images[:WEIGHTS], labels[:WEIGHTS], WEIGHTS // 5, seed=3)
    return {
        "loss": [H.loss()],
        "gradient norm": [float(H.gradient().norm())],
        "largest": hb.eigsh(H, 3, tol=1e-11).values.tolist(),
        "smallest": hb.eigsh(H, 1, which="SA", tol=1e-11).values.tolist(),
    }


def attacks() -> Values:
    """Return steps of every attack."""
    model, images, labels = network()
    x, y = images[:FEW], labels[:FEW]
    steps: dict[str, Callable[[], Tensor]] = {
        "FGSM": lambda: hb.attacks.fgsm(model, x, y, EPS_INF),
        "FGSM-10": lambda: hb.attacks.iterated_fgsm(model, x, y, EPS_INF),
        "L2GRAD": lambda: hb.attacks.l2_grad(model, x, y, EPS_2),
        "FHSM": lambda: hb.attacks.fhsm(model, x, y, EPS_INF),
        "FHSM, exact": lambda: hb.attacks.fhsm(model, x, y, EPS_INF, solver="exact"),
        "L2HESS": lambda: hb.attacks.l2_hess(model, x, y, EPS_2),
        "L2HESS, exact": lambda: hb.attacks.l2_hess(model, x, y, EPS_2, solver="exact"),
        "PGD": lambda: hb.attacks.pgd(model, x, y, EPS_INF, steps=5, seed=4),
    }
    return {name: _seen(step() - x) for name, step in steps.items()}


_SPECTRA = (
    *("spectrum_vs_batch", "learning_rate_factorial", "smooth_activations"),
    *("robust_spectrum", "loss_landscape", "training_dynamics", "batch_statistics"),
)
_ATTACKED = ("attack_readings", "robustness_vs_batch", "adversarial_training", "robust_spectrum", "absa")
GROUPS: dict[str, tuple[Callable[[], Values], tuple[str, ...]]] = {
    "in the weights": (in_the_weights, _SPECTRA),
    "in train mode": (in_train_mode, ("batch_statistics",)),
    "in the input": (in_the_input, ("input_curvature", "saddle_free")),
    "attacks": (attacks, _ATTACKED),
}


def moved(old: Values, new: Values) -> list[str]:
    """Return the names of quantities that differ by more than `TOLERANCE` relative to their largest entry."""
    names = []
    for name in sorted(old.keys() | new.keys()):
        a, b = old.get(name, []), new.get(name, [])
        largest = max(map(abs, [*a, *b]), default=0.0)
        if len(a) != len(b) or any(abs(p - q) > TOLERANCE * largest for p, q in zip(a, b, strict=True)):
            names.append(name)
    return names


def not_raised(old: dict[str, int], new: dict[str, int]) -> list[str]:
    """Return the studies whose revision is no higher than before."""
    return [name for name, revision in new.items() if revision <= old.get(name, 0)]


def found(group: str) -> dict[str, Any]:
    """Compute a group: its values, and the present revisions of the studies that rest on it."""
    values, names = GROUPS[group]
    return {"revisions": {name: studies.get(name).revision for name in names}, "values": values()}


def write() -> None:
    """Write the golden values of now.

    Raises:
        SystemExit: Values moved and the revision of a study did not.
    """
    old = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = {group: found(group) for group in GROUPS}
    for group, entry in new.items():
        before = old.get(group)
        if before is None:
            continue
        names, same = moved(before["values"], entry["values"]), not_raised(before["revisions"], entry["revisions"])
        if names and same:
            sys.exit(f"{group}: {', '.join(names)} moved; raise the revision of {', '.join(same)} first.")
    FILE.write_text(json.dumps(new, indent=1) + "\n")


def _seen(steps: Tensor) -> list[float]:
    """Return two numbers a sample that any change of its step moves."""
    flat = steps.flatten(1)
    place = torch.arange(flat.shape[1], dtype=flat.dtype)
    return (flat @ torch.stack([torch.cos(place), torch.sin(0.7 * place)], 1)).flatten().tolist()


if __name__ == "__main__":
    write()
