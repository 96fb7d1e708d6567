"""Run the methods on a network of the paper trained to loss 1e-3, too large for a dense Hessian.

``python -m benchmarks.large M1 --cache FOLDER --out benchmarks/results/m1_5000.json`` (or ``C1``; see ``TASKS``)
"""

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import costs, peers
from benchmarks.peers import BASES, TOLERANCES, Entry, K, Task
from benchmarks.reference import reference
from benchmarks.rounds import Rounds, score
from hbanalysis import checkpoints, data
from hbanalysis.training import TrainingConfig, train

SCREENED = "hbanalysis auto, check=False"
PASSES = 2  # of PyHessian that are timed
POWER_LIMITS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)  # tolerances tried in the simulation of PyHessian
POWER_STEPS = 20_000


@dataclass(frozen=True)
class Size:
    """A network and so many training samples, with the batch sizes that are tried."""

    dataset: str
    network: str
    samples: int
    batch_size: int
    sizes: tuple[int, ...]
    seed: int = 0

    def training(self) -> TrainingConfig:
        """Return how the network is trained: to loss 1e-3 at the defaults of the batch-size study."""
        return TrainingConfig(self.dataset, self.network, self.batch_size, self.seed, self.samples)


TASKS = {
    "M1": Size("mnist", "M1", 5000, 64, (50, 100, 250, 500, 1000)),
    "C1": Size("cifar10", "C1", 2000, 64, (25, 50, 100, 250)),
}


def task_of(size: Size, cache: Path) -> tuple[Task, dict[str, Any]]:
    """Return the trained network with its data, and how it was trained; training is kept in ``cache``."""
    config = size.training()
    samples = data.load(size.dataset, "train", samples=size.samples)
    record = train(config, samples, cache / config.key)
    model = config.network_on("cpu")
    checkpoints.restore(model, cache / config.key / f"{record.final}.safetensors")
    crossing = record.crossings[-1]
    return Task(model.eval(), samples.images, samples.labels), {
        "network": size.network,
        "dataset": size.dataset,
        "samples": size.samples,
        "batch_size": size.batch_size,
        "loss": crossing["loss_train"],
        "epochs": crossing["epoch"],
    }


def arpack_grid(T: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Return ARPACK's products for each tolerance and basis, followed in Krylov coordinates."""
    start = np.eye(len(T))[0]
    rows = []
    for tol in TOLERANCES:
        for ncv in BASES:
            answer = peers.arpack(lambda v: T @ v, start, tol, ncv)
            # A run that takes more products than there are dimensions has left what the coordinates hold.
            known = answer.products <= len(T)
            right = known and score(answer.values, truth)["right"] == K
            rows.append({"tol": tol, "ncv": ncv, "products": answer.products if known else None, "right": right})
    return rows


def floor_of(T: np.ndarray, truth: np.ndarray) -> int | None:
    """Return the fewest products after which the Ritz values are right."""
    for size in range(K, len(T) + 1):
        if score(np.linalg.eigvalsh(T[:size, :size]), truth)["right"] == K:
            return size
    return None


def power_passes(values: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Return the passes of PyHessian's deflated power iteration on a diagonal matrix with these eigenvalues.

    Its first setting at which all values are right, the cap on its iterations (100 by default) raised.
    """
    for tol in POWER_LIMITS:
        generator, found, vectors, passes = np.random.default_rng(0), [], [], 0
        for _ in range(K):
            v, value = generator.standard_normal(len(values)), None
            for _ in range(POWER_STEPS):
                for known in vectors:
                    v = v - (known @ v) * known
                v /= np.linalg.norm(v)
                Hv, passes = values * v, passes + 1
                new = float(v @ Hv)
                v = Hv / np.linalg.norm(Hv)
                if value is not None and abs(value - new) / (abs(value) + 1e-6) < tol:
                    break
                value = new
            found.append(new)
            vectors.append(v)
        if score(np.array(found), truth)["right"] == K:
            return {"tol": tol, "passes": passes}
    return {"tol": None, "passes": None}


def entries(task: Task, size: Size, best: dict[str, Any]) -> list[Entry]:
    """Return the methods: ours, and the peers at their fastest batch size and ARPACK's best setting."""
    vector = torch.randn(task.size, generator=torch.Generator().manual_seed(0))

    def plain(batch: int) -> Callable[[], object]:
        part = costs.batches(task.images[: 2 * batch], task.labels[: 2 * batch], batch)
        return lambda: costs.double_backward(task.model, part, 2 * batch, vector)

    def fastest(product: Callable[[int], Callable[[], object]]) -> int:
        return min(size.sizes, key=lambda batch: costs.seconds(product(batch), times=2) / (2 * batch))

    batch = fastest(plain)
    tol, ncv = best["tol"], best["ncv"]
    settings = {"batch": batch, "tol": tol, "ncv": ncv}
    rows = [
        Entry("hbanalysis lanczos", peers.ours("lanczos", True)),
        Entry("hbanalysis lanczos, check=False", peers.ours("lanczos", False)),
        Entry("hbanalysis auto", peers.ours("auto", True)),
        Entry(SCREENED, peers.ours("auto", False)),
        Entry("double backward + eigsh, fewest", peers.plain_eigsh(batch, tol, ncv), settings),
    ]
    module, _ = peers.peers()["curvlinops-for-pytorch"]
    run = None if module is None else peers.curvlinops_eigsh(module, batch, tol, ncv)
    return [*rows, Entry("curvlinops + eigsh, fewest", run, settings)]


def pyhessian_pass(task: Task, batch: int) -> float | None:
    """Return the seconds of one of PyHessian's products with the full data; None if it is not installed."""
    package, _ = peers.peers()["pyhessian"]
    if package is None:
        return None
    parts = costs.batches(task.images, task.labels, batch)
    solver = package.hessian(task.model, torch.nn.CrossEntropyLoss(), dataloader=parts, cuda=False)
    directions = [torch.randn_like(p) for p in solver.params]
    return costs.seconds(lambda: solver.dataloader_hv_product(directions), times=PASSES)


def measure(name: str, repeats: int, cache: Path) -> dict[str, Any]:
    """Run everything on one task and return the results."""
    size = TASKS[name]
    task, network = task_of(size, cache)
    known = reference(task, cache / size.training().key / "reference.safetensors")
    T, truth = known.T, known.truth
    grid = arpack_grid(T, truth)
    best = min((row for row in grid if row["right"]), key=lambda row: row["products"])
    methods = entries(task, size, best)
    gradients, rounds = [], Rounds(methods, task)
    for _ in range(repeats):
        gradients.append(costs.gradient_times(lambda: copy.deepcopy(task.model), task.images, task.labels, size.sizes))
        rounds.play()
    unit = min(value for run in gradients for sizes in run.values() for value in sizes.values())
    batch = methods[-1].settings["batch"]
    one_pass, power = pyhessian_pass(task, batch), power_passes(np.linalg.eigvalsh(T), truth)
    return {
        "environment": rounds.environment(),
        "repeats": repeats,
        "network": network | {"parameters": task.size},
        "spectrum": truth.tolist(),
        "spectrum_bounds": known.bounds.tolist(),
        "krylov_residual": known.residual,
        "krylov_floor": floor_of(T, truth),
        "arpack": {"tol": best["tol"], "ncv": best["ncv"], "products": best["products"], "table": grid},
        "gradient_seconds": gradients,
        "unit_seconds": unit,
        "pyhessian": power
        | {
            "pass_gradients": None if one_pass is None else one_pass / unit,
            "gradients": None if one_pass is None or power["passes"] is None else power["passes"] * one_pass / unit,
        },
        "methods": rounds.results(unit, truth),
    }


def main() -> None:
    """Read the command line, run, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--cache", type=Path, required=True, help="keeps the trained network between runs")
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(chosen.task, chosen.repeats, chosen.cache)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in found["methods"]:
        print(json.dumps({key: value for key, value in row.items() if key != "values"}))


if __name__ == "__main__":
    main()
