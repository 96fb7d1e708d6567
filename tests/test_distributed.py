"""Two processes under torchrun against one: products, gradients, parts, and errors that reach every process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hbanalysis import distributed
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.operators import GaussNewton, WeightHessian
from tests.small_nets import trained_on_digits


def problem():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        return model, torch.randn(23, 4, dtype=torch.float64), torch.randint(0, 3, (23,))


def quantities():
    """Everything that the processes share the work of; 23 samples make unequal shares."""
    model, x, y = problem()
    H = WeightHessian(model, x, y, chunk_size=4, weights=torch.arange(23) % 4)
    v = torch.linspace(-1, 1, 2 * H.shape[0], dtype=torch.float64).reshape(-1, 2)
    loader = DataLoader(TensorDataset(x, y), batch_size=5)
    shuffled = DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True, generator=torch.Generator().manual_seed(1))
    return {
        "product": H @ v,
        "gradient": H.gradient(),
        "loss": torch.tensor([H.loss(), H.total, H.samples]).double(),
        "doubts": H.doubts(),
        "one": H.part([22]) @ v,
        "loader": WeightHessian(model, loader, chunk_size=3, memory_budget=0) @ v,
        "part": WeightHessian(model, loader).part([3, 4, 20], total=23) @ v,
        "shuffled": WeightHessian(model, shuffled) @ v,
        "gauss_newton": GaussNewton(model, x, y) @ v,
        **spectra(),
    }


def spectra():
    """Eigenvalues by Lanczos and from the heavy samples, with what their checks say."""
    net = trained_on_digits(samples=201, hidden=8, steps=600)
    H = WeightHessian(*net)
    found = {name: eigsh(H, 6, method=name) for name in ("lanczos", "screened")}
    values = {name: pairs.values for name, pairs in found.items()}
    said = [[pairs.products, pairs.converged, bool(pairs.complete)] for pairs in found.values()]
    return {**values, "said": torch.tensor(said, dtype=torch.float64)}


def raises(kind, compute):
    try:
        compute()
    except kind as error:
        return str(error)
    return ""


def errors():
    """What each process says if one of them fails, or if they differ."""
    model, x, y = problem()
    H = WeightHessian(model, x, y)
    rank = distributed.rank()
    holed = x.clone()
    holed[1] = torch.nan  # a sample of rank 1
    broken = WeightHessian(model, holed, y)
    vector = torch.ones(H.shape[0])
    with distributed.alone():
        world_alone = distributed.world()
    return {
        "rank": (rank, distributed.world(), world_alone),
        "agree": distributed.agree(rank == 0),
        "nan": raises(NumericalError, lambda: broken @ vector),
        "vectors": raises(InputError, lambda: H @ (vector * (rank + 1))),
    }


@pytest.mark.survives("Determinism")
def test_two_processes_equal_one(tmp_path):
    """Two processes that share the samples give the same numbers as one to 1e-12, and bit for bit the same as each
    other."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", __file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "ignore"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    run = subprocess.run(
        [*command, str(tmp_path)], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr[-3000:]
    alone = quantities()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, truth in alone.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - truth).abs().max() <= 1e-12 * truth.abs().max(), name
    assert (first["rank"], second["rank"]) == ((0, 2, 1), (1, 2, 1))
    assert first["agree"] is second["agree"] is True
    assert "1 of 2 processes failed" in first["nan"] and "The loss of chunk 0 (samples 1 on) is nan" in second["nan"]
    assert "multiply different vectors" in first["vectors"] and first["vectors"] == second["vectors"]


def test_one_process_needs_no_group():
    t = torch.ones(2)
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.all_reduce(t) is t and distributed.broadcast(t) is t
    assert distributed.agree(True) and not distributed.agree(False)
    with pytest.raises(InputError, match="several processes"):
        distributed.together(lambda: t, t)


if __name__ == "__main__":
    results = {**quantities(), **errors()}
    torch.save(results, Path(sys.argv[1]) / f"{distributed.rank()}.pt")
