"""Data sets: shapes, ranges, the fixed split, and the error for a set that is not there."""

import pytest
import torch

from hbanalysis import data
from hbanalysis.errors import InputError, MissingDataError


def test_digits_are_embedded_and_split_for_good():
    train, test = data.load("digits"), data.load("digits", "test")
    assert (train.images.shape, test.images.shape) == ((1433, 1, 28, 28), (364, 1, 28, 28))
    assert train.images.dtype == torch.float32 and train.labels.dtype == torch.int64
    assert train.images.min() == 0.0 and train.images.max() == 1.0
    assert torch.bincount(test.labels).min() >= 35  # every class in its share
    assert test.labels[:12].tolist() == [*range(10), 5, 9]
    overlap = torch.cdist(train.images.flatten(1), test.images.flatten(1)).min()
    assert overlap > 0


def test_first_n_samples():
    whole, part = data.load("digits"), data.load("digits", samples=10)
    assert len(part) == 10 and torch.equal(part.images, whole.images[:10])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.needs_dataset(n)) for n in ("mnist", "cifar10", "cifar100")]
)
def test_sizes_stated_are_the_sizes_loaded(name):
    for split, size in data.describe(name).splits.items():
        samples = data.load(name, split)
        assert samples.images.shape == (size, *data.describe(name).shape)
        assert samples.images.min() >= 0 and samples.images.max() == 1.0
        assert samples.labels.max() + 1 == data.describe(name).classes == samples.classes


@pytest.mark.parametrize("name", [n for n in data.names() if n != "digits"])
def test_a_missing_set_names_folder_and_command(name, tmp_path):
    with pytest.raises(MissingDataError, match=f"not in {tmp_path}.*hbanalysis data fetch {name}"):
        data.load(name, folder=tmp_path)
    assert not any(tmp_path.iterdir())  # nothing was downloaded
    assert not data.available(name, tmp_path)


def test_root_goes_by_argument_then_variable_then_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(data.ROOT_VARIABLE, raising=False)
    assert data.root() == tmp_path / "hbanalysis" / "data"
    monkeypatch.setenv(data.ROOT_VARIABLE, "/somewhere")
    assert str(data.root()) == "/somewhere"
    assert str(data.root("/else")) == "/else"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.load("minst"), "Did you mean 'mnist'"),
        (lambda: data.load("digits", "extra"), "Unknown split of digits"),
        (lambda: data.load("digits", samples=0), "Use 1 to 1433"),
        (lambda: data.load("digits", samples=2000), "given samples=2000"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_fetch_of_the_embedded_set_does_nothing(tmp_path):
    assert data.fetch("digits", tmp_path) == tmp_path
    assert not any(tmp_path.iterdir())
