"""An interrupted run goes on from its file, and only with the operator that it belongs to."""

import numpy as np
import pytest
import torch
from torch import nn

from hbanalysis.eigen import eigsh, resume
from hbanalysis.errors import InputError, StoreError
from hbanalysis.operators import WeightHessian


class Operator:
    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, diagonal, stop=None):
        self.diagonal, self.stop, self.calls = torch.as_tensor(diagonal), stop, 0
        self.shape = (len(diagonal), len(diagonal))

    def __matmul__(self, v):
        self.calls += 1
        if self.calls == self.stop:
            raise KeyboardInterrupt
        return self.diagonal * v


SPECTRUM = np.concatenate([10.0 ** np.linspace(1, 0, 10), np.linspace(-0.5, 0.5, 200)])


@pytest.mark.parametrize("stop", [5, 20, 70])
def test_goes_on_where_it_stopped(tmp_path, stop):
    file = tmp_path / "run.safetensors"
    whole = eigsh(Operator(SPECTRUM), 20, tol=1e-6)
    with pytest.raises(KeyboardInterrupt):
        eigsh(Operator(SPECTRUM, stop), 20, tol=1e-6, checkpoint=file)
    assert file.exists()
    second = Operator(SPECTRUM)
    pairs = eigsh(second, 20, tol=1e-6, checkpoint=file)
    assert not file.exists()
    assert torch.allclose(pairs.values, whole.values, rtol=1e-6, atol=0)
    assert second.calls < whole.products - stop / 2
    assert pairs.converged


def test_state_is_kept_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "INTERVAL", 0.0)
    file, seen = tmp_path / "run.safetensors", []
    eigsh(Operator(SPECTRUM), 5, checkpoint=file, show=lambda done, worst: seen.append(file.exists()))
    assert any(seen)
    assert not file.exists()


@pytest.mark.survives("Input that nobody chose")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_on_slightly_other_weights_is_not_gone_on_with(tmp_path, dtype):
    """A step of training between two runs is a new operator: the old basis would make bounds that enclose nothing."""
    file = tmp_path / "run.safetensors"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    x, y = torch.randn(40, 6, dtype=dtype), torch.randint(3, (40,))

    def interrupt(done, worst):
        if done > 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        eigsh(WeightHessian(model, x, y), 3, tol=1e-6, checkpoint=file, show=interrupt)
    with torch.no_grad():
        model[0].weight.mul_(1 + 1e-5)
    with pytest.raises(InputError, match="another operator"):
        eigsh(WeightHessian(model, x, y), 3, tol=1e-6, checkpoint=file)


def test_a_run_needs_the_room_it_had(tmp_path):
    file = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        eigsh(Operator(SPECTRUM, 35), 20, checkpoint=file)
    with pytest.raises(InputError, match="go on with subspace=3"):
        eigsh(Operator(SPECTRUM), 20, checkpoint=file, subspace=25)


def test_another_operator_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        eigsh(Operator(SPECTRUM, 10), 5, checkpoint=file)
    for other in (Operator(SPECTRUM[::-1].copy()), Operator(SPECTRUM[:100])):
        with pytest.raises(InputError, match="another operator"):
            eigsh(other, 5, checkpoint=file)
    assert file.exists()
    file.write_bytes(b"broken")
    with pytest.raises(StoreError, match=r"run\.safetensors"):
        eigsh(Operator(SPECTRUM), 5, checkpoint=file)
