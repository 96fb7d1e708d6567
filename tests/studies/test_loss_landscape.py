"""Planes of the loss, scale-free curvature, and the study of both."""

import itertools
import math

import pytest
import torch
from torch import nn

from hbanalysis import checkpoints, data, studies
from hbanalysis.eigen import eigsh
from hbanalysis.errors import InputError, OutOfTimeError
from hbanalysis.operators import Scaled, WeightHessian
from hbanalysis.store import Store
from hbanalysis.studies.loss_landscape import EIGENVECTORS, FILTERS, spaced
from hbanalysis.training.landscape import along_direction, filter_normalised, over_plane
from tests.batch_size_cells import shared_cells
from tests.oracles import dense_oracle
from tests.prescribed import matrix
from tests.small_nets import trained_on_digits
from tests.tiny_cells import compute, compute_with_stops

STUDY = studies.get("loss_landscape")
SPECTRUM = (9.0, 4.0, 1.0, 0.5, -0.25, -1.0)


class Bowl(nn.Module):
    """A model whose cross-entropy is a quadratic of its weights, whatever the images: q = x' A x / 2 + g' x + 3."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("A", matrix(SPECTRUM))
        self.register_buffer("g", torch.linspace(-0.2, 0.3, 6, dtype=torch.float64))
        self.x = nn.Parameter(torch.linspace(0.1, -0.1, 6, dtype=torch.float64))

    def value(self, x):
        return x @ self.A @ x / 2 + self.g @ x + 3

    def forward(self, images):
        # Of the logits 0 and log(e^q - 1) the first has probability e^-q.
        second = torch.log(torch.expm1(self.value(self.x))).expand(len(images))
        return torch.stack([torch.zeros_like(second), second], 1)


@pytest.fixture
def bowl():
    model = Bowl()
    return model, (torch.zeros(3, 1, dtype=torch.float64), torch.zeros(3, dtype=torch.int64))


def test_the_plane_of_a_quadratic_is_known(bowl):
    model, images = bowl
    before = model.x.detach().clone()
    d = torch.randn(6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    places, seen = [-0.3, 0.0, 0.1], []
    plane, again = over_plane(model, d, places, images, images, show=seen.append)
    known = [[float(model.value(before + a * d[:, 0] + b * d[:, 1])) for b in places] for a in places]
    assert torch.allclose(torch.tensor(plane, dtype=torch.float64), torch.tensor(known, dtype=torch.float64))
    assert again == plane and torch.equal(model.x, before)
    assert seen == pytest.approx([i / 9 for i in range(1, 10)])


def test_second_differences_of_the_plane_are_the_eigenvalues(bowl):
    model, images = bowl
    pairs = eigsh(WeightHessian(model, *images), 2, tol=1e-10, check=False)
    h = 0.1
    plane = torch.tensor(over_plane(model, pairs.vectors, [-h, 0.0, h], images)[0], dtype=torch.float64)
    first = (plane[0, 1] - 2 * plane[1, 1] + plane[2, 1]) / h**2
    second = (plane[1, 0] - 2 * plane[1, 1] + plane[1, 2]) / h**2
    mixed = (plane[2, 2] - plane[2, 0] - plane[0, 2] + plane[0, 0]) / (4 * h**2)
    assert (float(first), float(second)) == pytest.approx((9.0, 4.0), rel=1e-8)
    assert float(mixed) == pytest.approx(0.0, abs=1e-8)


def test_a_plane_goes_on_where_it_was(bowl):
    model, images = bowl
    d, kept, computed, stops = torch.eye(6, dtype=torch.float64)[:, :2], {}, [], [2]

    def keep(number, line):
        if number in stops:
            stops.remove(number)
            raise OutOfTimeError
        if number not in kept:
            kept[number] = line()
            computed.append(number)
        return kept[number]

    with pytest.raises(OutOfTimeError):
        over_plane(model, d, [-1.0, 0.0, 1.0], images, keep=keep)
    whole = over_plane(model, d, [-1.0, 0.0, 1.0], images)
    assert over_plane(model, d, [-1.0, 0.0, 1.0], images, keep=keep) == whole
    assert computed == [0, 1, 2]


def test_a_line_may_start_elsewhere(bowl):
    model, images = bowl
    e = torch.eye(6, dtype=torch.float64)
    (line,) = along_direction(model, e[0], [0.5], images, offset=2 * e[1])
    assert line == pytest.approx([float(model.value(model.x.detach() + 2 * e[1] + 0.5 * e[0]))])


@pytest.fixture(scope="module")
def small():
    return trained_on_digits(120, 8, 60)


def test_scaled_curvature_is_that_of_the_dense_matrix(small):
    model, x, y = small
    H = WeightHessian(model, x, y)
    theta = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    D = torch.diag(theta.abs())
    truth = D @ dense_oracle(model, x, y) @ D
    scaled = Scaled(H, theta.square())
    assert torch.allclose(scaled.dense(), truth, atol=1e-10 * float(truth.abs().max()))
    top = eigsh(scaled, 1, tol=1e-8, check=False).values[0].item()
    assert top == pytest.approx(torch.linalg.eigvalsh(truth)[-1].item(), rel=1e-7)


def measures(model, x, y):
    """Return lambda1, lambda1 of D H D, and the curvatures along three filter-normalised directions."""
    H = WeightHessian(model, x, y)
    d = filter_normalised(model, 3, seed=1)
    plain, scaled = (eigsh(o, 1, tol=1e-8, check=False) for o in (H, Scaled(H, H.space.vector().square())))
    return plain.values.item(), scaled.values.item(), (d * (H @ d)).sum(0).tolist()


def test_only_the_scale_free_measures_ignore_the_scale_of_the_layers(small):
    model, x, y = small
    before = measures(model, x, y)
    with torch.no_grad():  # the same function: ReLU lets a positive factor through
        model[0].weight.mul_(4)
        model[0].bias.mul_(4)
        model[2].weight.div_(4)
    after = measures(model, x, y)
    with torch.no_grad():
        model[0].weight.div_(4)
        model[0].bias.div_(4)
        model[2].weight.mul_(4)
    assert not math.isclose(after[0], before[0], rel_tol=0.3)
    assert after[1] == pytest.approx(before[1], rel=1e-6)
    assert after[2] == pytest.approx(before[2], rel=1e-6)


def test_filters_are_as_long_as_the_weights():
    model = nn.Sequential(nn.Conv2d(1, 3, 5), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 4))
    d = filter_normalised(model, 2, seed=3)
    at, lengths = 0, []
    for parameter in model.parameters():
        part = d[at : at + parameter.numel()]
        at += parameter.numel()
        if parameter.ndim < 2:
            assert not part.any()
            continue
        for number, weight in enumerate(parameter.detach()):
            filters = part.view(*parameter.shape, 2)[number].reshape(-1, 2)
            assert filters.norm(dim=0).tolist() == pytest.approx([weight.norm().item()] * 2, rel=1e-5)
            lengths.append(len(filters))
    assert at == len(d) and lengths == [25] * 3 + [12] * 4
    assert not torch.allclose(d[:, 0], d[:, 1])
    assert torch.equal(d[:, :1], filter_normalised(model, 1, seed=3))
    assert not torch.equal(d[:, :1], filter_normalised(model, 1, seed=4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: STUDY.cells("digits", points=4), "points must be odd and at least 3; given 4"),
        (lambda: STUDY.cells("digits", random_points=1), "random_points must be odd"),
        (lambda: STUDY.cells("digits", half_width=0.0), "half_width must be positive"),
        (lambda: STUDY.cells("digits", directions=1), "directions must be at least 2"),
        (lambda: STUDY.cells("digits", tolerance=1.0), "tolerance must lie in"),
        (lambda: STUDY.cells("digits", width=1.0), "half_width"),
        (lambda: filter_normalised(nn.Linear(2, 2), 0), "at least 1; given 0"),
        (lambda: filter_normalised(nn.BatchNorm1d(3), 1), "No parameter has filters"),
        (lambda: over_plane(nn.Linear(1, 1), torch.ones(2, 3), [0.0]), r"given \(2, 3\)"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_trainings_are_those_of_the_study_of_batch_sizes():
    for scale in STUDY.scales:
        cells, theirs = STUDY.cells(scale), shared_cells(scale)
        assert [c.training for c in cells] == [c.training for c in theirs]
        assert [c.measure.test_samples for c in cells] == [c.measure.test_samples for c in theirs]
        assert all(STUDY.from_config(STUDY.config(cell)) == cell for cell in cells)


def test_planes_are_measured_at_the_ends_of_every_preset():
    def with_planes(scale, **chosen):
        cells = [c for c in STUDY.cells(scale, **chosen) if c.measure.planes and c.training.activation == "relu"]
        return sorted({c.training.batch_size for c in cells})

    assert with_planes("digits") == [16, 256]
    assert with_planes("mnist") == [64, 1024]
    assert with_planes("paper", network="C1", dataset="cifar10") == [16, 512, 2048]
    # A batch size has planes in every preset or in none, so that a row of one is a row of the other.
    assert {STUDY.scale_of(cell) for cell in STUDY.cells("mnist")} == {"paper"}
    known = {STUDY.key(cell) for cell in STUDY.cells("digits")}
    more = STUDY.cells("digits", batch_sizes=[16, 64, 256, 512])
    assert {c.training.batch_size for c in more if STUDY.key(c) not in known} == {512}
    assert with_planes("digits", batch_sizes=[32, 64, 128]) == [32, 128]


def test_distances_lie_closer_together_near_the_weights():
    t = spaced(9, 0.5)
    assert t[4] == 0 and t == [-x for x in reversed(t)] and t[-1] == 0.5
    gaps = [b - a for a, b in itertools.pairwise(t[4:])]
    assert gaps == sorted(gaps) and t[5] == pytest.approx(0.5 / 64)


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return compute(STUDY, tmp_path_factory.mktemp("store"))


def test_the_row_is_of_the_kept_network(computed):
    store, cell, row, *_ = computed
    model = cell.training.network_on("cpu").eval()
    checkpoints.restore(model, store.checkpoint_folder(cell.training.key) / "loss-0.5.safetensors")
    train = data.load("digits", samples=200)
    H = WeightHessian(model, train.images, train.labels)
    found, theta = row.values["at_target"], H.space.vector().double()
    v = torch.ones_like(theta)
    for _ in range(15):  # the paper's power iteration, on |theta| H |theta|
        v = theta.abs() * (H @ (theta.abs() * v))
        size, v = float(v.norm()), v / v.norm()
    assert found["scaled_lambda1_train"] == pytest.approx(size, rel=0.1)
    assert found["weight_norm"] == pytest.approx(float(theta.norm()))
    norms = [layer["norm"] for layer in row.values["layers"]]
    assert math.hypot(*norms) == pytest.approx(found["weight_norm"])
    d = filter_normalised(model, 2, cell.training.seed)
    assert found["filter_curvatures_train"] == pytest.approx((d * (H @ d)).sum(0).tolist(), rel=1e-3)
    assert found["filter_curvature_train"] == pytest.approx(sum(found["filter_curvatures_train"]) / 2)
    for name in (EIGENVECTORS, FILTERS):
        plane = row.values["planes"][name]
        assert plane["t"][1] == 0
        assert plane["loss_train"][1][1] == pytest.approx(found["loss_train"], rel=1e-5)
        assert plane["loss_test"][1][1] == pytest.approx(found["loss_test"], rel=1e-5)
    along = row.values["planes"][FILTERS]
    assert along["slopes"] == pytest.approx((d.T @ H.gradient()).tolist(), rel=1e-3)
    walk = over_plane(model, d, along["t"], (train.images, train.labels))[0]
    assert walk[0] == pytest.approx(along["loss_train"][0], rel=1e-4)
    top = row.values["planes"][EIGENVECTORS]
    assert top["curvatures"] == [[found["spectrum_train"][0], 0.0], [0.0, found["spectrum_train"][1]]]
    assert min(top["slopes"]) >= 0
    assert math.hypot(*top["slopes"]) <= found["gradient_norm_train"] * (1 + 1e-6)


def test_an_interrupted_cell_gives_the_same_row(computed, tmp_path):
    row = compute_with_stops(
        STUDY, computed.cell, Store(tmp_path), ["training", "scaled spectrum", "plane, eigenvectors", "plane, filters"]
    )
    assert row.values == computed.row.values


def test_a_diverged_cell_is_a_row(tmp_path):
    (cell,) = STUDY.cells("tiny", batch_sizes=[50], learning_rate=1e4)
    row = STUDY.compute(cell, Store(tmp_path), "cpu")
    assert (row.values["status"], row.values["at_target"], row.values["planes"]) == ("diverged", None, None)
