"""The form of a figure for narrow screens: panels below one another, the same data, no name lost."""

import io

import pandas as pd
import pytest
from PIL import Image

from hbanalysis import plots, store
from hbanalysis.plots import narrow
from hbanalysis.plots.style import STACKED_WIDTH, stacked


def both_forms(draw, study):
    """Return a figure as it is and its form for narrow screens, of the same data."""
    rows = store.published().rows(study)
    wide, data = draw(rows)
    with stacked():
        figure, again = draw(rows)
    pd.testing.assert_frame_equal(data, again)
    assert narrow.picture(wide) is None
    return wide, figure


def columns_of(figure) -> int:
    figure.canvas.draw()
    return len({round(panel.get_position().x0, 2) for part in figure.subfigs for panel in part.axes})


@pytest.mark.parametrize(
    ("draw", "study"),
    [
        (plots.curvature_course, "training_dynamics"),
        (plots.spectra, "spectrum_vs_batch"),
        (plots.rate_over_batch, "learning_rate_factorial"),
    ],
)
def test_panels_stand_below_one_another_with_the_same_data(draw, study):
    wide, figure = both_forms(draw, study)
    with Image.open(io.BytesIO(narrow.picture(figure))) as opened:
        assert opened.width < opened.height
        assert opened.width == pytest.approx(144 * STACKED_WIDTH, abs=1)
    panels = [panel for part in figure.subfigs for panel in part.axes]
    assert len(panels) == len([panel for part in wide.subfigs for panel in part.axes])
    assert columns_of(figure) < columns_of(wide)
    assert all(panel.get_ylabel() for panel in panels)
    shown = {panel.get_xlabel() for panel in panels}
    assert shown == {panel.get_xlabel() for part in wide.subfigs for panel in part.axes}


def test_a_figure_of_one_panel_has_one_form():
    with stacked():
        figure, _ = plots.lambda1_vs_batch(store.published().rows("spectrum_vs_batch"))
    assert narrow.picture(figure) is None


def test_a_long_name_takes_two_lines():
    with stacked():
        figure, _ = plots.input_spectra(store.published().rows("input_curvature"))
    narrow.picture(figure)
    names = {panel.get_ylabel() for part in figure.subfigs for panel in part.axes}
    assert names == {"eigenvalue, median\nover samples"}


@pytest.mark.parametrize(
    ("draw", "study"),
    [
        (lambda rows: plots.examples(rows[0]), "attack_readings"),
        (
            lambda rows: plots.input_directions(next(row for row in rows if row.values.get("pictures"))),
            "input_curvature",
        ),
        (plots.accuracy_matrices, "adversarial_training"),
    ],
)
def test_pictures_and_matrices_are_as_wide_as_a_phone(draw, study):
    wide, figure = both_forms(draw, study)
    with Image.open(io.BytesIO(narrow.picture(figure))) as opened:
        assert opened.width == pytest.approx(144 * STACKED_WIDTH, abs=1)
    assert words(figure) == words(wide)
    assert len([panel for panel in figure.axes if panel.images]) == len([panel for panel in wide.axes if panel.images])


def words(figure) -> list[str]:
    titles = (panel.get_title(loc) for panel in figure.axes for loc in ("left", "center"))
    return sorted(word.strip(",") for title in titles for word in title.split())
