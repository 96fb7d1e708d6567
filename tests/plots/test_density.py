"""The density plot draws what it is given, clips nothing silently and says what its band covers."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")


from hbanalysis import plots
from hbanalysis.errors import InputError

X = np.linspace(-1.0, 9.0, 201)
Y = np.exp(-(X**2) / 0.02) + 1e-3 * np.exp(-((X - 7.0) ** 2) / 0.02)


def texts(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_data_are_what_was_given_with_two_standard_errors_either_side():
    figure, data = plots.spectral_density(X, Y, 0.1 * Y, label="trained")
    assert data["curve"].unique().tolist() == ["trained"]
    assert np.array_equal(data["eigenvalue"], X) and np.array_equal(data["density"], Y)
    assert np.allclose(data["low"], 0.8 * Y) and np.allclose(data["high"], 1.2 * Y)
    (line,) = figure.axes[0].lines
    assert np.array_equal(line.get_ydata(), Y)
    assert texts(figure) == ["trained", "± 2 standard errors over probe vectors only"]


def test_axis_is_logarithmic_from_floor_to_above_the_band():
    figure, _ = plots.spectral_density(X, Y, np.full_like(X, 2.0), floor=1e-4)
    (axes,) = figure.axes
    low, high = axes.get_ylim()
    assert axes.get_yscale() == "log"
    assert low == pytest.approx(1e-4 * Y.max())
    assert high > Y.max() + 4.0
    # A band that reaches below 0 is drawn down to the end of the axis.
    (band,) = axes.collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(low)


def test_comparisons_have_curves_of_their_own_and_no_band():
    figure, data = plots.spectral_density(X, Y, comparisons={"before": (X, 2 * Y), "law": (X[:50], 0.5 * Y[:50])})
    assert data.groupby("curve", sort=False).size().to_dict() == {"Hessian": 201, "before": 201, "law": 50}
    assert data[["low", "high"]].isna().all().all()
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == len({line.get_linestyle() for line in lines}) == 3
    assert texts(figure) == ["Hessian", "before", "law"]


def test_marks_stand_at_the_eigenvalues():
    figure, _ = plots.spectral_density(X, Y, marks=[7.0, 6.5])
    (marks,) = figure.axes[0].collections
    assert [segment[0, 0] for segment in marks.get_segments()] == [7.0, 6.5]
    assert texts(figure)[-1] == "single eigenvalues"


def test_logarithmic_eigenvalue_axis_beyond_a_linear_part():
    figure, _ = plots.spectral_density(X, Y, linear_within=0.1)
    assert figure.axes[0].get_xscale() == "symlog"
    figure.canvas.draw()


def test_the_legend_lies_inside_the_figure():
    figure, _ = plots.spectral_density(X, Y, 0.1 * Y, comparisons={"before": (X, Y), "law": (X, Y)}, marks=[7.0])
    figure.canvas.draw()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 - 1 and box.x1 <= whole.x1 + 1 and box.y0 >= whole.y0 - 1
    assert figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": Y[:-1]}, r"'Hessian' needs vectors of one length; given shapes (201,), (200,)"),
        ({"standard_error": Y[:-1]}, "one length"),
        ({"eigenvalue": X[::-1]}, "finite and ascending"),
        ({"density": 0 * Y}, "somewhere above 0"),
        ({"density": -Y}, "nowhere negative"),
        ({"density": Y * np.nan}, "must be finite"),
        ({"comparisons": {"law": (X, Y[:3])}}, "'law' needs"),
        ({"floor": 1.5}, "given 1.5"),
        ({"linear_within": 0.0}, "given 0.0"),
    ],
)
def test_bad_input_is_said(arguments, message):
    given = {"eigenvalue": X, "density": Y} | arguments
    with pytest.raises(InputError) as caught:
        plots.spectral_density(given.pop("eigenvalue"), given.pop("density"), **given)
    assert message in str(caught.value)
