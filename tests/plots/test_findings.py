"""Cards of findings: words lie beside one another and no line runs through them."""

import itertools

import matplotlib.pyplot as plt
import pytest
from matplotlib.collections import LineCollection

from hbanalysis.claims.finding import Finding, Line
from hbanalysis.plots.findings import finding

LONG = "M1 on MNIST, the paper's scale, B = 1024 minus 64"


@pytest.fixture
def card():
    lines = (
        Line(LONG, "screened, and searched for missing ones", (0.76,)),
        Line(LONG, r"$\lambda_1$", (0.5, 1.0, 1.5)),
        Line("M1 on the digits", "screened", (1.0, 1.01, 1.02)),
    )
    one = Finding("name", "title", "said", "axis", lines, "page", (), reference=1.0, form=".2f")
    figure, _ = finding(one)
    figure.canvas.draw()
    yield figure
    plt.close(figure)


def test_words_do_not_touch_and_stay_inside(card) -> None:
    boxes = [text.get_window_extent() for text in card.axes[0].texts]
    assert len(boxes) == 2 + 2 * 3
    assert not any(a.expanded(1.01, 1.01).overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= card.bbox.x1 for box in boxes)


def test_no_line_of_reference_runs_through_words(card) -> None:
    (panel,) = card.axes
    lines = [found.get_paths()[0] for found in panel.collections if isinstance(found, LineCollection)]
    marks = [line.get_extents(panel.transData) for line in lines]
    assert len(marks) == 3
    assert not any(text.get_window_extent().overlaps(mark) for text in panel.texts for mark in marks)
    assert not any(line.get_visible() for line in panel.get_xgridlines())
