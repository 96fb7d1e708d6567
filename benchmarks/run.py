"""Run all methods in turn on the digits net and write what they took and how right they are.

``python -m benchmarks.run --repeats 3 --out benchmarks/results/digits_net.json``
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

import hbanalysis as hb
from benchmarks import costs, digits_net, peers
from benchmarks.peers import BASES, TOLERANCES, K, Task
from benchmarks.rounds import Rounds, by_modulus, score

SEEDS = 10
PRODUCTS = 12  # products timed after the first, of which the fastest counts


def krylov_floor(H: Tensor, truth: np.ndarray, task: Task) -> list[int]:
    """Return, for each start, the fewest products after which the Ritz values of the Krylov space are right."""
    found = []
    for seed in range(SEEDS):
        columns = [torch.from_numpy(task.start(seed))]
        columns[0] /= columns[0].norm()
        while True:
            basis = torch.stack(columns)
            if len(columns) >= K:
                ritz = torch.linalg.eigvalsh(basis @ H @ basis.T).numpy()
                if score(ritz, truth)["right"] == K:
                    break
            column = H @ columns[-1]
            for _ in range(2):
                column = column - basis.T @ (basis @ column)
            columns.append(column / column.norm())
        found.append(len(columns))
    return found


def arpack_choice(H: np.ndarray, truth: np.ndarray, task: Task) -> dict[str, Any]:
    """Return ARPACK's products for each tolerance and basis, and the pair with the fewest that is always right."""
    table = []
    for tol in TOLERANCES:
        for ncv in BASES:
            runs = [peers.arpack(lambda v: H @ v, task.start(seed), tol, ncv) for seed in range(SEEDS)]
            right = [score(run.values, truth)["right"] == K for run in runs]
            table.append({"tol": tol, "ncv": ncv, "products": [run.products for run in runs], "right": right})
    best = min((row for row in table if all(row["right"])), key=lambda row: (median(row["products"]), row["tol"]))
    own = [
        min((row for row in table if row["right"][seed]), key=lambda row: row["products"][seed])
        for seed in range(SEEDS)
    ]  # each start at its own best setting, which nobody knows beforehand
    return {
        "tol": best["tol"],
        "ncv": best["ncv"],
        "products": best["products"],
        "fewest": [row["products"][seed] for seed, row in enumerate(own)],
        "fewest_settings": [(row["tol"], row["ncv"]) for row in own],
        "table": table,
    }


def product_seconds(task: Task) -> dict[str, Callable[[], float]]:
    """Return for each way to multiply a function that times one product at its fastest batch size."""
    vector = torch.randn(task.size, generator=torch.Generator().manual_seed(0))
    found: dict[str, Callable[[], object]] = {}
    total = len(task.labels)
    for name, settings in (
        ("hbanalysis, retained", {}),
        ("hbanalysis, recomputed", {"memory_budget": 0}),
        ("hbanalysis, retained, one chunk", {"chunk_size": total}),
        ("hbanalysis, recomputed, one chunk", {"chunk_size": total, "memory_budget": 0}),
    ):
        H = hb.WeightHessian(task.model, task.images, task.labels, **settings)
        found[name] = peers.partial_product(H, vector)

    def plain(size: int) -> Callable[[], object]:
        parts = costs.batches(task.images, task.labels, size)
        return lambda: costs.double_backward(task.model, parts, total, vector)

    found["double backward"] = plain(peers.fastest_batch(plain))
    module, _ = peers.peers()["curvlinops-for-pytorch"]
    if module is not None:

        def jvp(size: int) -> Callable[[], object]:
            return peers.partial_product(peers.curvlinops_operator(module, task, size), vector)

        found["curvlinops"] = jvp(peers.fastest_batch(jvp))
    return {name: (lambda call=call: costs.seconds(call, PRODUCTS)) for name, call in found.items()}


def ten_seeds(task: Task, truth: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Return what ours takes from each of ten seeds, with and without the check, in turn."""
    found: dict[str, list[dict[str, Any]]] = {"check": [], "no check": []}
    for seed in range(SEEDS):
        for name, check in (("check", True), ("no check", False)):
            started = time.perf_counter()
            answer = peers.ours("lanczos", check)(task, seed)
            spent = time.perf_counter() - started
            marks = {key: value for key, value in score(answer.values, truth).items() if key != "values"}
            found[name].append(
                {"seed": seed, "products": answer.products, "seconds": spent, "report": answer.report, **marks}
            )
    return found


def measure(repeats: int, matrix: Path | None) -> dict[str, Any]:
    """Run everything and return the results."""
    images, labels = digits_net.data()
    task = Task(digits_net.trained(), images, labels)
    H = _dense(task, matrix)
    spectrum = by_modulus(torch.linalg.eigvalsh(H).tolist(), 40)
    truth = spectrum[:K]
    choice = arpack_choice(H.numpy(), truth, task)
    floor = krylov_floor(H, truth, task)
    methods = peers.entries(task, (choice["tol"], choice["ncv"]), choice["fewest_settings"][0])
    rounds, timed = Rounds(methods, task), product_seconds(task)
    gradients: list[dict[str, Any]] = []
    single: dict[str, list[float]] = {name: [] for name in timed}
    for row in methods:  # a first run of ours loads what is loaded once
        if row.run is not None and row.name.startswith("hbanalysis"):
            row.run(task, 0)
    for _ in range(repeats):
        gradients.append(costs.gradient_times(digits_net.trained, images, labels))
        for name, call in timed.items():
            single[name].append(call())
        rounds.play()
    unit = min(value for run in gradients for sizes in run.values() for value in sizes.values())
    seeds = ten_seeds(task, truth)
    return {
        "environment": rounds.environment(),
        "repeats": repeats,
        "network": {"parameters": task.size, "samples": len(labels), **digits_net.quality(task.model)},
        "spectrum": spectrum.tolist(),
        "krylov_floor": floor,
        "arpack": choice,
        "gradient_seconds": gradients,
        "unit_seconds": unit,
        "product_gradients": {name: [value / unit for value in values] for name, values in single.items()},
        "methods": rounds.results(unit, truth),
        "seeds": {
            name: {
                "median_products": median(row["products"] for row in rows),
                "worst_products": max(row["products"] for row in rows),
                "median_gradients": median(row["seconds"] for row in rows) / unit,
                "worst_gradients": max(row["seconds"] for row in rows) / unit,
                "all_converged": all(row["report"].startswith("converged") for row in rows),
                "all_complete": all(", complete" in row["report"] for row in rows),
                "all_right": all(row["right"] == K for row in rows),
                "runs": rows,
            }
            for name, rows in seeds.items()
        },
    }


def _dense(task: Task, path: Path | None) -> Tensor:
    """Return the dense Hessian, from a file if it is there."""
    if path is not None and path.exists():
        return torch.load(path, weights_only=True)
    H = costs.dense_hessian(digits_net.trained(), task.images, task.labels)
    H = (H + H.T) / 2
    if path is not None:
        torch.save(H, path)
    return H


def table(found: dict[str, Any]) -> str:
    """Return the results as plain text."""
    lines = [
        f"{'method':36}{'products':>9}{'gradients':>10}{'most':>7}{'max error':>11}{'right':>6}{'missing':>8}  report"
    ]
    for row in found["methods"]:
        if row["status"] != "run":
            lines.append(f"{row['name']:36}{row['status']:>9}")
            continue
        error = row["max_relative_error"]
        lines.append(
            f"{row['name']:36}{row['products']:>9g}{row['gradients']:>10.0f}{row['gradients_most']:>7.0f}"
            f"{'' if error is None else f'{error:.1e}':>11}{row['right']:>6}{row['missing']:>8}  {row['report']}"
        )
    lines.append("")
    for name, values in found["product_gradients"].items():
        lines.append(f"one product, {name}: {min(values):.2f} gradients (up to {max(values):.2f})")
    for name, row in found["seeds"].items():
        lines.append(
            f"ten seeds, {name}: products median {row['median_products']:g}, worst {row['worst_products']:g}; "
            f"gradients median {row['median_gradients']:.0f}, worst {row['worst_gradients']:.0f}; all converged "
            f"{row['all_converged']}, complete {row['all_complete']}, right {row['all_right']}"
        )
    floor, fewest = found["krylov_floor"], found["arpack"]["fewest"]
    lines.append(f"Krylov floor: median {median(floor):g}, worst {max(floor)}")
    lines.append(f"ARPACK, each start at its own best setting: median {median(fewest):g}, worst {max(fewest)}")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, run, print the table and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/digits_net.json"))
    parser.add_argument("--hessian", type=Path, help="keeps the dense Hessian, which takes minutes, between runs")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(chosen.repeats, chosen.hessian)
    print(table(found))
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
