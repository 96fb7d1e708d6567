"""What to compute next where there is no time for everything: the paper's cells by what the book lacks most."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.nn import functional as F

from hbanalysis import data, studies
from hbanalysis.running.display import duration
from hbanalysis.store import Store
from hbanalysis.studies.costs import GRADIENT_SECONDS
from hbanalysis.training import TrainingConfig

Work = tuple[str, Any]  # name of a study, one of its cells
_TIMED_SAMPLES = 256
_TIMED_SECONDS = 1.0


@dataclass(frozen=True)
class Group:
    """Cells that belong together.

    Attributes:
        title: What they are, for the plan.
        network: ``M1``, ``C1``, ...; None takes any.
        study: Name of the study; None takes every one.
        batch_sizes: Those of the training; empty takes any.
        seeds: Those of the training; empty takes any.
        dataset: Name of the data set; None takes any.
    """

    title: str
    network: str | None = None
    study: str | None = None
    batch_sizes: tuple[int, ...] = ()
    seeds: tuple[int, ...] = ()
    dataset: str | None = None

    def takes(self, study: str, training: TrainingConfig) -> bool:
        """Tell whether a cell belongs here."""
        return (
            self.network in (None, training.network)
            and self.study in (None, study)
            and (not self.batch_sizes or training.batch_size in self.batch_sizes)
            and (not self.seeds or training.seed in self.seeds)
            and self.dataset in (None, training.dataset)
        )


_FACTORIAL, _CIFAR = "learning_rate_factorial", "cifar10"
ORDER = (
    Group("M1 on MNIST: every study, first seed", "M1", seeds=(0,)),
    Group("M1 on MNIST: every study, all seeds", "M1"),
    Group("C1: batch sizes 32 to 2048", "C1", "spectrum_vs_batch", (32, 128, 512, 2048), dataset=_CIFAR),
    Group("C1: input curvature and robustness", "C1", "input_curvature", (32, 128, 512, 2048)),
    Group("C1: robustness by batch size", "C1", "robustness_vs_batch", (32, 128, 512, 2048), dataset=_CIFAR),
    Group("C1: learning rate by batch size", "C1", _FACTORIAL),
    Group("C3: adversarial training, first seed", "C3", seeds=(0,)),
    Group("CR: two batch sizes", "CR", batch_sizes=(64, 512)),
    Group("C1: batch normalisation in train mode", "C1", "batch_statistics"),
    Group("C1: the other batch sizes", "C1", "spectrum_vs_batch", dataset=_CIFAR),
    Group("C2", "C2"),
    Group("C1 with Softplus and ELU", "C1", "smooth_activations"),
    Group("C1 on SVHN", "C1", dataset="svhn_extra"),
    Group("everything else"),
)


@dataclass(frozen=True)
class Plan:
    """Missing cells in the order in which they should be computed.

    Attributes:
        groups: Title of each group with its missing cells.
        speeds: Seconds an epoch of each network and data set takes here, over the guess that costs are made with.
        workers: Processes that share the work.
        left_out: Number of missing cells of each data set that is not on this machine.
    """

    groups: tuple[tuple[str, tuple[Work, ...]], ...]
    speeds: Mapping[tuple[str, str], float]
    workers: int
    left_out: Mapping[str, int] = field(default_factory=dict)

    @property
    def work(self) -> list[Work]:
        """All cells, in order."""
        return [item for _, cells in self.groups for item in cells]

    def __str__(self) -> str:
        """Return the plan as text: a line a network with its speed, a line a group with its estimate."""
        lines = []
        for (network, dataset), factor in self.speeds.items():
            size = data.describe(dataset).splits["train"]
            seconds = factor * GRADIENT_SECONDS[network] * size
            lines.append(f"{network}: {seconds:.3g} s an epoch of {dataset} ({size:,} samples), measured")
        for title, cells in self.groups:
            seconds = sum(self._seconds(study, cell) for study, cell in cells) / self.workers
            lines.append(f"{title}: {len(cells)} cells, about {duration(seconds)}")
        for name, count in self.left_out.items():
            lines.append(f"{name} is not here, {count} cells are left out: `hbanalysis data fetch {name}`")
        return "\n".join(lines)

    def _seconds(self, study: str, cell: Any) -> float:
        factor = self.speeds.get((cell.training.network, cell.training.dataset), 1.0)
        return factor * studies.get(study).cost(cell)


def plan(
    scale: str,
    store: Store,
    device: str,
    workers: int,
    done: Iterable[str] = (),
    available: Callable[[str], bool] = data.available,
) -> Plan:
    """Return what a scale lacks, in the order of `ORDER`, with estimates from the speed measured here.

    Args:
        scale: A preset; studies that do not have it are left out.
        store: Its rows are not computed again.
        device: Where the speed is measured.
        workers: Processes that will share the work.
        done: Keys of rows that are there already elsewhere, such as the published ones.
        available: Whether a data set is on this machine; cells of others are left out.
    """
    there = set(done)
    missing: list[Work] = []
    for name in studies.names():
        study = studies.get(name)
        if scale in study.scales:
            cells = [cell for cell in study.cells(scale) if study.key(cell) not in there]
            missing += [(name, cell) for cell in cells if not store.has(name, study.key(cell))]
    lacking = Counter(cell.training.dataset for _, cell in missing)
    lacking = Counter({name: count for name, count in lacking.items() if not available(name)})
    missing = [(name, cell) for name, cell in missing if cell.training.dataset not in lacking]
    groups = []
    for group in ORDER:
        chosen = tuple(item for item in missing if group.takes(item[0], item[1].training))
        missing = [item for item in missing if item not in chosen]
        if chosen:
            groups.append((group.title, chosen))
    kinds = sorted({(cell.training.network, cell.training.dataset) for _, cells in groups for _, cell in cells})
    return Plan(tuple(groups), {kind: _speed(*kind, device) for kind in kinds}, workers, lacking)


@cache
def _speed(network: str, dataset: str, device: str) -> float:
    """Return seconds of a sample's gradient on the device over the guess; data are not needed for that."""
    config = TrainingConfig(dataset, network, 1)
    model = config.network_on(device)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_TIMED_SAMPLES, *data.describe(dataset).shape, generator=generator).to(device)
    y = torch.zeros(_TIMED_SAMPLES, dtype=torch.int64, device=device)

    def once() -> None:
        F.cross_entropy(model(x), y).backward()
        if x.is_cuda:
            torch.cuda.synchronize()

    once()
    started, times = time.perf_counter(), 0
    while times < 2 or time.perf_counter() - started < _TIMED_SECONDS:
        once()
        times += 1
    return (time.perf_counter() - started) / times / _TIMED_SAMPLES / GRADIENT_SECONDS[network]
