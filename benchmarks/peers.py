"""The methods compared: each takes the network and the data and returns 20 eigenvalues, with what it reported.

A peer that is not installed is shown as such. Every method starts from nothing, so its time holds all that it does.
"""

import copy
import importlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hbanalysis as hb
from benchmarks.costs import batches, double_backward, seconds

K = 20
BATCHES = (100, 200, 599, 1797)
EQUAL = (599, 1797)  # batches of one size: hessian-eigenthings averages batches, not samples
RAGGED = 256  # seven batches and a last one of 5
TOLERANCES = (0.0, 1e-4, 1e-3, 1e-2, 1e-1)
BASES = (30, 35, 38, 41, 44, 47, 50, 60)


@dataclass(frozen=True)
class Task:
    """A trained network in eval mode and the whole data set."""

    model: nn.Module
    images: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(weight.numel() for weight in self.model.parameters())

    def start(self, seed: int) -> np.ndarray:
        """Return a random start vector."""
        return np.random.default_rng(seed).standard_normal(self.size)


@dataclass(frozen=True)
class Answer:
    """What a method returned: its values, the products it took, and its own word on whether they are right."""

    values: np.ndarray
    products: float
    report: str


Method = Callable[[Task, int], Answer]


@dataclass(frozen=True)
class Entry:
    """A method under a name; ``run`` is None for one that is not installed."""

    name: str
    run: Method | None
    settings: dict[str, Any] = field(default_factory=dict)


def installed(module: str, package: str) -> tuple[ModuleType | None, str]:
    """Return a peer's module and version, or None and ``"not installed"``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(module), version(package)
        except (ImportError, PackageNotFoundError):
            return None, "not installed"


def peers() -> dict[str, tuple[ModuleType | None, str]]:
    """Return the optional peers by package name."""
    return {
        "curvlinops-for-pytorch": installed("curvlinops", "curvlinops-for-pytorch"),
        "hessian-eigenthings": installed("hessian_eigenthings", "hessian-eigenthings"),
        "pyhessian": installed("pyhessian", "pyhessian"),
    }


def ours(method: str, check: bool, chunk_size: int | None = None) -> Method:
    """Return `hbanalysis.eigsh` at its defaults but for ``method``, ``check`` and ``chunk_size``."""

    def run(task: Task, seed: int) -> Answer:
        H = hb.WeightHessian(task.model, task.images, task.labels, chunk_size=chunk_size)
        pairs = hb.eigsh(H, K, which="LM", method=method, check=check, seed=seed)
        report = ("converged" if pairs.converged else "not converged") + (", complete" if pairs.complete else "")
        return Answer(pairs.values.numpy(), pairs.products, f"{report} ({pairs.method})")

    return run


def arpack(multiply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, tol: float, ncv: int) -> Answer:
    """Return what SciPy's ``eigsh`` finds, in float64 whatever the products are."""
    products = 0

    def counted(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        return multiply(vector.reshape(-1))

    operator = LinearOperator((len(start), len(start)), matvec=counted, dtype=np.float64)
    try:
        values = eigsh(operator, K, which="LM", tol=tol, ncv=ncv, v0=start, return_eigenvectors=False)
        report = "no error"
    except ArpackNoConvergence as error:
        values, report = error.eigenvalues, f"{len(error.eigenvalues)}/{K} converged"
    except ArpackError as error:
        values, report = np.empty(0), str(error)
    return Answer(np.asarray(values), products, report)


def plain_eigsh(batch: int, tol: float, ncv: int) -> Method:
    """Return ARPACK on double backward, the recipe of the edge-of-stability papers."""

    def run(task: Task, seed: int) -> Answer:
        parts = batches(task.images, task.labels, batch)

        def multiply(vector: np.ndarray) -> np.ndarray:
            column = torch.from_numpy(vector).float()
            return double_backward(task.model, parts, len(task.labels), column).double().numpy()

        return arpack(multiply, task.start(seed), tol, ncv)

    return run


def curvlinops_operator(curvlinops: ModuleType, task: Task, batch: int) -> Any:
    """Return curvlinops' Hessian without its own check of determinism, which costs passes."""
    parts = batches(task.images, task.labels, batch)
    weights = [weight for weight in task.model.parameters() if weight.requires_grad]
    return curvlinops.HessianLinearOperator(
        task.model, nn.CrossEntropyLoss(), weights, parts, check_deterministic=False, num_data=len(task.labels)
    )


def curvlinops_eigsh(curvlinops: ModuleType, batch: int, tol: float, ncv: int) -> Method:
    """Return ARPACK on curvlinops' Hessian."""

    def run(task: Task, seed: int) -> Answer:
        operator = curvlinops_operator(curvlinops, task, batch).to_scipy()
        return arpack(operator.matvec, task.start(seed), tol, ncv)

    return run


def eigenthings_operator(package: ModuleType, task: Task, batch: int) -> Any:
    """Return hessian-eigenthings' Hessian over batches of ``batch``."""
    parts = batches(task.images, task.labels, batch)
    return package.HessianOperator(task.model, parts, package.supervised_loss(cross_entropy))


def eigenthings(package: ModuleType, batch: int, **settings: Any) -> Method:
    """Return hessian-eigenthings' Lanczos at its defaults but for ``settings``."""

    def run(task: Task, seed: int) -> Answer:
        operator = eigenthings_operator(package, task, batch)
        found = package.lanczos(operator, k=K, which="LM", seed=seed, **settings)
        report = f"{int(found.converged.sum())}/{K} converged"
        return Answer(found.eigenvalues.double().numpy(), found.iterations, report)

    return run


class _Counted(list):
    """Batches that count how often they are walked through."""

    passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return super().__iter__()


def pyhessian(package: ModuleType, batch: int) -> Method:
    """Return PyHessian's deflated power iteration at its defaults (tol 1e-3, 100 iterations a value)."""

    def run(task: Task, seed: int) -> Answer:
        torch.manual_seed(seed)
        parts = _Counted(batches(task.images, task.labels, batch))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            solver = package.hessian(copy.deepcopy(task.model), nn.CrossEntropyLoss(), dataloader=parts, cuda=False)
            values, _ = solver.eigenvalues(top_n=K)
        return Answer(np.array(values), parts.passes, "nothing")

    return run


def fastest_batch(product: Callable[[int], Callable[[], object]], sizes: tuple[int, ...] = BATCHES) -> int:
    """Return the batch size with the fastest product."""
    return min(sizes, key=lambda size: seconds(product(size), times=3))


def entries(task: Task, usual: tuple[float, int], fewest: tuple[float, int]) -> list[Entry]:
    """Return all methods, each peer at its fastest batch size.

    Args:
        task: What is measured.
        usual: ARPACK's tolerance and basis size that are right from every start.
        fewest: Those with the fewest products that are right from the start that is timed.
    """
    ways = {"": usual, ", fewest": fewest, ", defaults": (0.0, 2 * K + 1)}
    found = peers()
    vector, total = torch.randn(task.size, generator=torch.Generator().manual_seed(0)), len(task.labels)

    def plain(size: int) -> Callable[[], object]:
        parts = batches(task.images, task.labels, size)
        return lambda: double_backward(task.model, parts, total, vector)

    batch = fastest_batch(plain)
    rows = [
        Entry("hbanalysis lanczos", ours("lanczos", True)),
        Entry("hbanalysis lanczos, check=False", ours("lanczos", False)),
        Entry("hbanalysis auto", ours("auto", True)),
        Entry("hbanalysis lanczos, one chunk", ours("lanczos", True, total), {"chunk_size": total}),
        Entry("same, check=False", ours("lanczos", False, total), {"chunk_size": total}),
    ]
    for name, (tol, ncv) in ways.items():
        settings = {"batch": batch, "tol": tol, "ncv": ncv}
        rows.append(Entry(f"double backward + eigsh{name}", plain_eigsh(batch, tol, ncv), settings))
    module, _ = found["curvlinops-for-pytorch"]
    names = tuple(f"curvlinops + eigsh{name}" for name in ways)
    if module is None:
        rows += [Entry(name, None) for name in names]
    else:
        size = fastest_batch(lambda size: partial_product(curvlinops_operator(module, task, size), vector))
        for name, how in zip(names, ways.values(), strict=True):
            settings = {"batch": size, "tol": how[0], "ncv": how[1]}
            rows.append(Entry(name, curvlinops_eigsh(module, size, *how), settings))
    module, _ = found["hessian-eigenthings"]
    names = ("hessian-eigenthings", "hessian-eigenthings, 200 steps", "hessian-eigenthings, ragged batch")
    if module is None:
        rows += [Entry(name, None) for name in names]
    else:

        def product(size: int) -> Callable[[], object]:
            operator = eigenthings_operator(module, task, size)
            return lambda: operator.matvec(vector)

        size = fastest_batch(product, EQUAL)
        rows.append(Entry(names[0], eigenthings(module, size), {"batch": size}))
        rows.append(Entry(names[1], eigenthings(module, size, max_iter=200), {"batch": size, "max_iter": 200}))
        rows.append(Entry(names[2], eigenthings(module, RAGGED), {"batch": RAGGED}))
    module, _ = found["pyhessian"]
    rows.append(Entry("PyHessian", None if module is None else pyhessian(module, batch), {"batch": batch}))
    return rows


def partial_product(operator: Any, vector: Tensor) -> Callable[[], object]:
    """Return a call of ``operator @ vector``."""
    return lambda: operator @ vector
