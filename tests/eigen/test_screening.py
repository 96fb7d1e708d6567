"""Screened spectra against the dense Hessian of the whole set, with every bound that they give."""

import numpy as np
import pytest
import torch
from torch import nn

from hbanalysis.eigen import eigsh, gauges, screening
from hbanalysis.eigen.ritz import Ritz, Wanted
from hbanalysis.errors import InputError
from hbanalysis.operators import WeightHessian
from tests.small_nets import trained_on_digits


@pytest.fixture(scope="module")
def trained():
    return trained_on_digits(samples=600, hidden=24, steps=1500)


@pytest.fixture(scope="module")
def truth(trained):
    return torch.linalg.eigvalsh(WeightHessian(*trained).dense())


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("which", "k"), [("LA", 8), ("LM", 8), ("LA", 3), ("LA", 20)])
def test_values_lie_within_their_bounds_of_the_whole_sets(trained, truth, which, k, check):
    order = truth.flip(0) if which == "LA" else truth[truth.abs().argsort(descending=True)]
    pairs = eigsh(WeightHessian(*trained), k, which=which, method="screened", check=check)
    assert pairs.converged
    assert bool(((pairs.values - order[:k]).abs() <= 1e-4 * order[:k].abs()).all())
    assert bool(((pairs.values - order[:k]).abs() <= pairs.bounds + 1e-12).all())
    assert pairs.complete.method == ("probe" if check else "none")
    assert bool(pairs.complete) == check


@pytest.mark.parametrize("k", [3, 6, 10, 14, 20])
def test_it_costs_less_than_lanczos_and_says_what_it_used(trained, k):
    H = WeightHessian(*trained)
    plain = eigsh(H, k, check=False)
    pairs = eigsh(H, k, method="screened", check=False)
    assert pairs.method == "screened"
    assert pairs.products < plain.products
    assert 0 < pairs.notes["heavy"] < pairs.notes["used"] <= 1


@pytest.mark.parametrize("tol", [1e-1, 1e-2, 1e-4])
def test_it_costs_no_more_than_lanczos_where_weights_are_flatter(tol):
    """After 50 steps, 20 values: heavy samples that would do for a loose tolerance leave too much to refinement."""
    H = WeightHessian(*trained_on_digits(samples=600, hidden=24, steps=50))
    pairs, plain = (eigsh(H, 20, tol=tol, method=name, check=False) for name in ("auto", "lanczos"))
    truth = torch.linalg.eigvalsh(H.dense()).flip(0)[:20]
    assert pairs.method == "screened" and pairs.converged
    assert bool(((pairs.values - truth).abs() <= pairs.bounds + 1e-12).all())
    assert pairs.products <= 1.05 * plain.products


@pytest.mark.parametrize(("near", "patience"), [(1e9, 0), (1e9, 2), (0, 3)])
def test_a_guess_that_does_not_do_is_looked_at_once(trained, truth, monkeypatch, near, patience):
    """Guessed and looked at after so many products, or looked at beforehand: the same values, within their bounds."""
    looked = []
    original = screening._Stages._look_at
    monkeypatch.setattr(screening._Stages, "_look_at", lambda self, part: looked.append(1) or original(self, part))
    monkeypatch.setattr(screening, "NEAR", near)
    monkeypatch.setattr(screening, "PATIENCE", patience)
    monkeypatch.setattr(screening, "directions", lambda *_: 0)
    values = truth.flip(0)[:20]
    pairs = eigsh(WeightHessian(*trained), 20, method="screened", check=False)
    assert pairs.converged
    assert len(looked) == 1
    assert bool(((pairs.values - values).abs() <= pairs.bounds + 1e-12).all())
    assert bool((pairs.bounds <= 1e-4 * values).all())


def test_the_krylov_part_goes_on_until_its_guards_are_found():
    """The wanted value is found, a guard is a blur of residual 0.75: what lies beyond it may reach up to the wanted."""
    wanted = Wanted(1, "LA", 1e-2)
    theta, found = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 1.0]), np.full(6, 1e-6)
    blurred = np.array([1e-6, 0.75, 1e-6, 1e-6, 1e-6, 1e-6])

    def ratio(residuals):
        return gauges.coarse_gauge(wanted, 5)(Ritz(theta, np.eye(6), np.diag(residuals), 1e-16))

    assert ratio(found) <= 1
    assert ratio(blurred) > 1
    assert ratio(np.where(blurred > 0.1, 0.6, found)) <= 1  # 0.2 + 0.6 stays away from the wanted by more than 0.15


@pytest.mark.parametrize("check", [False, True])
def test_products_are_passes_over_the_full_data(trained, monkeypatch, check):
    """Counted independently, a look at the medium samples included: samples in each operator times its columns, over
    all samples."""
    H, seen = WeightHessian(*trained), []
    monkeypatch.setattr(screening, "NEAR", 0)
    original = WeightHessian._multiply

    def counted(self, columns):
        seen.append(self.samples * columns.shape[1])
        return original(self, columns)

    monkeypatch.setattr(WeightHessian, "_multiply", counted)
    pairs = eigsh(H, 10, method="screened", check=check)
    assert sum(seen) / H.samples == pytest.approx(pairs.products, rel=1e-9)


def test_a_look_bounds_the_complement_at_both_ends(trained):
    """What the medium samples' Hessian has on the complement of the kept vectors lies within what a look adds."""
    H = WeightHessian(*trained)
    stages = screening._Stages(H, Wanted(8, "LA", 1e-4), False, 500, 0, lambda *_: None, H.doubts(), 100)
    stages.heavy(40, lambda space: None)
    stages.light()
    V = stages.space.basis.leading(stages.space.size).clone()
    medium = stages._medium()
    before = stages.count.spent
    stages._look_at(medium)
    assert stages.count.spent - before <= 6 * medium.samples / H.samples
    outside = torch.eye(len(V), dtype=torch.float64) - V @ V.T
    found = torch.linalg.eigvalsh(outside @ medium.dense() @ outside)
    low, high = (likely - alone for likely, alone in zip(stages.likely, stages.beyond, strict=True))
    assert low <= found[0].item() and found[-1].item() <= high
    assert low < 0 < high


def test_what_is_left_out_has_no_larger_norm_than_noted(trained):
    model, x, y = trained
    H = WeightHessian(*trained)
    pairs = eigsh(H, 3, method="screened")
    order = H.doubts().argsort(descending=True)
    rest = order[round(pairs.notes["used"] * len(y)) :]
    assert len(rest) > 0
    R = WeightHessian(model, x[rest], y[rest], total=len(y)).dense()
    assert 0 < torch.linalg.eigvalsh(R).abs().max().item() <= pairs.notes["left_out_norm"]


def test_flat_weights_fall_back_to_lanczos():
    torch.manual_seed(0)
    model, x, y = nn.Linear(10, 4).double(), torch.randn(60, 10).double(), torch.arange(60) % 4
    assert eigsh(WeightHessian(model, x, y), 3, method="auto").method == "lanczos"
    assert eigsh(WeightHessian(model, x, y), 3, method="screened").method == "lanczos"


def test_auto_screens_a_trained_network_and_nothing_else(trained):
    model, x, y = trained
    assert eigsh(WeightHessian(*trained), 10, method="auto").method == "screened"
    for which in ("SA", "BE"):  # where screening costs as many products or more
        assert eigsh(WeightHessian(*trained), 2, which=which, tol=1e-2, method="auto", check=False).method == "lanczos"
    assert eigsh(WeightHessian(model, x, y, loss="squared_error"), 2, method="auto").method == "lanczos"
    assert eigsh(torch.eye(30), 2, method="auto").method == "lanczos"
    with pytest.raises(InputError, match="method='lanczos'"):
        eigsh(torch.eye(30), 2, method="screened")


def test_weight_decay_shifts_the_spectrum(trained, truth):
    pairs = eigsh(WeightHessian(*trained, weight_decay=0.5), 5, method="screened")
    assert torch.allclose(pairs.values, truth.flip(0)[:5] + 0.5, rtol=2e-4)


def test_plan_takes_fewer_samples_the_faster_the_weights_fall():
    steep, gentle = (torch.tensor(10.0 ** (-np.arange(1000) / step)) for step in (50, 150))
    first, second = screening.plan(steep, 20, 1e-4), screening.plan(gentle, 20, 1e-4)
    assert first.heavy < second.heavy
    assert first.cost < second.cost < first.plain
    flat = screening.plan(torch.ones(1000), 20, 1e-4)
    assert not flat.worthwhile
    assert screening.plan(torch.zeros(10), 2, 1e-4).heavy >= 0


def test_a_state_is_kept_by_lanczos_only(trained, tmp_path):
    H = WeightHessian(*trained)
    for method, which in (("screened", "LA"), ("power", "LM")):
        with pytest.raises(InputError, match=f"method='{method}' keeps no state"):
            eigsh(H, 3, which=which, method=method, checkpoint=tmp_path / "state")
    assert eigsh(H, 3, method="auto", check=False, checkpoint=tmp_path / "state").method == "lanczos"
