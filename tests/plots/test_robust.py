"""Figures of the robust models: dots in columns of their own, and the paper beside what is of its scale."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from hbanalysis import plots, store
from hbanalysis.lineup import MODELS


@pytest.fixture(scope="module")
def spectra():
    return store.published().rows("robust_spectrum")


def test_models_stand_beside_one_another_and_no_line_joins_the_ends(spectra) -> None:
    figure, data = plots.both_ends(spectra)
    for part in figure.subfigs:
        (panel,) = part.axes
        dots = [line for line in panel.lines if line.get_marker() != "None"]
        assert all(line.get_linestyle() == "None" for line in dots)
        columns: dict[int, set] = {}
        for line in dots:
            columns.setdefault(round(2 * line.get_xdata()[0]), set()).add(line.get_color())
        assert all(len(colours) == 1 for colours in columns.values())
    points = [line for part in figure.subfigs for line in part.axes[0].lines if line.get_marker() != "None"]
    assert sum(len(line.get_ydata()) for line in points) == len(data)


def test_seeds_of_a_model_do_not_cover_one_another(spectra) -> None:
    digits = [row for row in spectra if row.scale == "digits" and row.config["model"] == "FGSM"]
    figure, _ = plots.both_ends(digits, ["FGSM"])
    places = [line.get_xdata()[0] for line in figure.subfigs[0].axes[0].lines if line.get_marker() != "None"]
    assert len(digits) > 1 and len(set(places)) == len(places)


def test_models_are_told_apart_on_white_and_inverted(spectra) -> None:
    figure, _ = plots.model_spectra(spectra)
    colours = np.array([to_rgb(key.get_color()) for key in figure.legends[0].get_lines()])
    assert len(colours) == len(MODELS)
    for seen in (colours, inverted(colours)):
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)[np.triu_indices(len(seen), 1)]
        assert apart.min() > 0.25


def test_differences_from_the_paper_are_of_its_scale() -> None:
    rows = store.published().rows("adversarial_training")
    _, data = plots.accuracy_matrices(rows)
    of = data[data["matrix"] == "ours minus the paper's"]
    assert set(of["scale"]) == {"paper"}
    assert {"paper", "small", "digits"} <= set(data[data["matrix"] == "ours"]["scale"])


def inverted(colours: np.ndarray) -> np.ndarray:
    """Return colours as the site shows them in dark mode: inverted, hues turned back, a little brighter."""
    turn = np.array([[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]])
    turned = np.clip((0.92 - 0.84 * colours) @ turn.T, 0, 1)
    return np.clip(1.12 * turned, 0, 1)
