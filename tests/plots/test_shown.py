import base64
import io

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from PIL import Image

from hbanalysis.errors import InputError
from hbanalysis.plots import shown
from hbanalysis.publishing import notebooks


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> list:
    from IPython import display

    found: list = []
    monkeypatch.setattr(display, "display", found.append)
    return found


def two_panels():
    figure, (top, below) = plt.subplots(2, 1, sharex=True)
    top.plot([1, 2], [1 / 3, 0.25], label="loss")
    top.axhline(0.5, label="target")
    top.set_ylabel("loss")
    below.plot([1, 2, 3], [7, 8, 9])
    below.set(xlabel="epoch", ylabel="λ₁")
    return figure


def test_the_lines_drawn_are_the_data_without_marks_across_a_panel():
    data = shown.drawn(two_panels())
    assert data.to_numpy().tolist() == [
        ["epoch", "loss", "loss", 1.0, 1 / 3],
        ["epoch", "loss", "loss", 2.0, 0.25],
        ["epoch", "λ₁", "line 1", 1.0, 7.0],
        ["epoch", "λ₁", "line 1", 2.0, 8.0],
        ["epoch", "λ₁", "line 1", 3.0, 9.0],
    ]


def test_a_figure_without_lines_needs_its_frame(displayed: list):
    figure, axes = plt.subplots()
    axes.axhline(0.5)
    with pytest.raises(InputError, match="Give the frame"):
        shown.show(figure)
    shown.show(figure, pd.DataFrame({"x": [0.5]}))
    assert shown.carried(base64.b64encode(displayed[0].data).decode()) == "x\n0.5\n"


def test_data_stay_in_the_picture_when_a_notebook_is_brought_into_normal_form(displayed: list):
    figure = two_panels()
    shown.show(figure)
    assert not plt.fignum_exists(figure.number)
    png = base64.b64encode(displayed[0].data).decode()
    output = nbformat.v4.new_output("display_data", {"image/png": png})
    cell = nbformat.v4.new_code_cell("plots.show(fig)", outputs=[output])
    normal = notebooks.normal_form(nbformat.v4.new_notebook(cells=[cell]), {}, {})
    kept = normal.cells[0].outputs[0].data["image/png"]
    assert len(kept) < len(png)
    with Image.open(io.BytesIO(base64.b64decode(kept))) as picture:
        assert picture.mode == "P"
    data = pd.read_csv(io.StringIO(shown.carried(kept)))
    assert data["y"].tolist() == [0.33333333, 0.25, 7, 8, 9]
    assert set(data["y_label"]) == {"loss", "λ₁"}


def test_another_picture_carries_nothing():
    png = io.BytesIO()
    Image.new("RGB", (2, 2)).save(png, "PNG")
    assert shown.carried(base64.b64encode(png.getvalue()).decode()) is None
    assert shown.chunk_of(Image.open(png)) is None
