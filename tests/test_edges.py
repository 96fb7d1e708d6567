"""The ends of what may be given: one sample, whole batches, two classes, images without content, dead and exploding
networks; held against dense Hessians in float64, closed forms, and what a training must say."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import hbanalysis as hb
from hbanalysis import attacks, studies, training
from hbanalysis.data import Samples, load
from hbanalysis.errors import InputError, NumericalError
from hbanalysis.store import Store
from tests.attack_nets import ALL, hessians
from tests.oracles import dense_oracle, seeded

FIRST_ORDER = [attacks.fgsm, attacks.iterated_fgsm, attacks.l2_grad, attacks.pgd]
CASES = ["one sample", "two classes", "constant images", "equal labels", "equal images and labels", "black images"]


def case(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A network with batch normalisation, its images and labels, in float64."""
    classes = 2 if name == "two classes" else 3
    count = 1 if name == "one sample" else 7
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8, classes),
        ).double()
    )
    x, y = seeded(lambda: (torch.rand(count, 1, 4, 4, dtype=torch.float64), torch.randint(0, classes, (count,))), 1)
    # Running statistics of other images, so that batch normalisation does something in eval mode.
    seeded(lambda: model(torch.rand(20, 1, 4, 4, dtype=torch.float64)), 2)
    if name == "constant images":
        x = x.mean((1, 2, 3), keepdim=True).expand_as(x).contiguous()
    elif name == "black images":
        x = torch.zeros_like(x)
    elif name == "equal images and labels":
        x = x[:1].expand_as(x).contiguous()
    if name.startswith("equal"):
        y = torch.ones_like(y)
    return model.eval(), x, y


def dead() -> tuple[nn.Module, Tensor, Tensor]:
    """A network so sure of the labels that its loss and all derivatives are exactly zero, in float64."""
    model, x, _ = case("equal labels")
    with torch.no_grad():
        model[-1].bias.copy_(torch.tensor([0.0, 1e6, 0.0]))
    return model, x, torch.ones(len(x), dtype=torch.int64)


def exploded() -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose logits overflow."""
    model, x, y = case("two classes")
    with torch.no_grad():
        model[0].weight.fill_(1e200)
        model[-1].weight.fill_(1e200)
    return model, x, y


@pytest.mark.survives("Ends of the range")
@pytest.mark.parametrize("name", CASES)
def test_spectra_of_the_weights(name: str):
    """Curvature in the weights with one sample, two classes, constant, black or equal images, all labels equal, and as
    many eigenvalues as weights (k = n): the dense Hessian's eigenvalues to 1e-10 of the largest."""
    model, x, y = case(name)
    exact = torch.linalg.eigvalsh(dense_oracle(model, x, y)).flip(0)
    H = hb.WeightHessian(model, x, y)
    n = H.shape[0]
    for k, which, expected in ((n, "LA", exact), (1, "LA", exact[:1]), (n - 1, "LA", exact[:-1])):
        found = hb.eigsh(H, k, which=which, tol=1e-11)
        assert found.converged
        assert (found.values - expected).abs().max() <= 1e-10 * exact.abs().max()
    with pytest.raises(InputError, match="k"):
        hb.eigsh(H, n + 1)


@pytest.mark.survives("Ends of the range")
@pytest.mark.parametrize("name", CASES)
def test_spectra_of_the_input(name: str):
    """The same for curvature in the input, sample by sample."""
    model, x, y = case(name)
    exact = torch.linalg.eigvalsh(hessians(model, x, y)).flip(1)
    found = hb.input_spectrum(model, x, y)
    assert (found - exact[:, : found.shape[1]]).abs().max() <= 1e-10 * exact.abs().max()
    assert exact[:, found.shape[1] :].abs().max() <= 1e-10 * exact.abs().max()
    distance = hb.boundary_distance(model, x, y)
    correct = model(x).argmax(1) == y
    assert torch.equal(distance > 0, correct)


@pytest.mark.survives("Ends of the range")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("attack", ALL)
def test_attacks(attack, name: str):
    """Every attack on the same cases: finite, in its ball and box, and of no sample's neighbours: alone, a sample takes
    the same step."""
    model, x, y = case(name)
    moved = attack(model, x, y, 0.1)
    assert torch.isfinite(moved).all() and moved.min() >= 0 and moved.max() <= 1
    step = (moved - x).flatten(1)
    assert min(step.abs().max().item(), step.norm(dim=1).max().item()) <= 0.1 + 1e-12
    alone = attack(model, x[-1:], y[-1:], 0.1)
    assert torch.allclose(alone, moved[-1:], rtol=0, atol=1e-9)
    if name.startswith("equal images"):
        assert torch.allclose(moved, moved[:1].expand_as(moved), rtol=0, atol=1e-9)


@pytest.mark.survives("Ends of the range")
def test_a_dead_network():
    """A network whose loss and every derivative are exactly zero: all eigenvalues are zero and converged, and no
    first-order attack moves an image."""
    model, x, y = dead()
    H = hb.WeightHessian(model, x, y)
    assert H.loss() == 0 and H.gradient().abs().max() == 0
    assert dense_oracle(model, x, y).abs().max() == 0
    for k in (1, 5, H.shape[0]):
        found = hb.eigsh(H, k)
        assert found.converged and found.values.abs().max() == 0
    assert float(hb.trace(H, products=10).value) == 0
    assert hb.input_spectrum(model, x, y).abs().max() == 0
    for attack in FIRST_ORDER[:3]:
        assert torch.equal(attack(model, x, y, 0.1, softmax="plain"), x)
    for attack in ALL:
        assert torch.isfinite(attack(model, x, y, 0.1)).all()


@pytest.mark.survives("Ends of the range")
def test_a_network_whose_logits_overflow():
    """A loss that is not finite is an error that says so, for curvature and for attacks: no eigenvalue and no image is
    made up."""
    model, x, y = exploded()
    assert not math.isfinite(cross_entropy(model(x), y).item())
    with pytest.raises(NumericalError, match="finite|NaN|nan"):
        hb.eigsh(hb.WeightHessian(model, x, y), 1)
    with pytest.raises(NumericalError, match="finite"):
        hb.input_spectrum(model, x, y)
    for attack in ALL:
        with pytest.raises(NumericalError, match="finite"):
            attack(model, x, y, 0.1)


SINGLE = {"train_samples": 1, "batch_sizes": [1], "test_samples": 1, "max_epochs": 3}
WHOLE = {"train_samples": 30, "batch_sizes": [30], "max_epochs": 2, "target_loss": 1e-9}


@pytest.fixture(scope="module")
def digits() -> Samples:
    return load("digits", samples=40)


@pytest.mark.survives("Ends of the range")
@pytest.mark.parametrize(("samples", "batch"), [(1, 1), (40, 40), (40, 39), (40, 1)])
def test_trainings(samples: int, batch: int, digits: Samples, tmp_path: Path):
    """Trainings on a single sample, with the whole set as a batch, with a last batch of one sample, and sample by
    sample: every epoch takes each sample once, and the loss falls."""
    config = training.TrainingConfig(
        *("digits", "M1", batch), train_samples=samples, target_loss=None, max_epochs=2, learning_rate=0.005
    )
    part = Samples(digits.images[:samples], digits.labels[:samples], digits.classes)
    record = training.train(config, part, tmp_path)
    assert record.status == "finished"
    assert record.history[-1]["step"] == 2 * math.ceil(samples / batch)
    model = config.network_on("cpu").eval()
    with torch.no_grad():
        before = cross_entropy(model(part.images), part.labels).item()
    assert record.history[-1]["loss_running"] < before


@pytest.mark.survives("Ends of the range")
@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("robustness_vs_batch", SINGLE),
        ("input_curvature", SINGLE),
        pytest.param("loss_landscape", SINGLE, marks=pytest.mark.full),
        pytest.param("spectrum_vs_batch", SINGLE, marks=pytest.mark.full),
        pytest.param("spectrum_vs_batch", WHOLE, marks=pytest.mark.full),
    ],
)
def test_studies(name: str, chosen: dict, tmp_path: Path):
    """Whole cells on a single training and test sample, and on one batch of everything, are rows whose numbers are
    finite."""
    study = studies.get(name)
    (cell,) = study.cells("tiny", **chosen)
    row = study.compute(cell, Store(tmp_path), "cpu")
    assert row.values["status"] in ("reached", "cap")
    spectrum = (row.values.get("at_target") or {}).get("spectrum_train", [0.0])
    assert all(math.isfinite(value) for value in spectrum) and spectrum == sorted(spectrum, reverse=True)
