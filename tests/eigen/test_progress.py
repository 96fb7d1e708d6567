"""The line on a terminal, and silence elsewhere."""

import io
import math
import sys

import pytest
import torch

from hbanalysis.eigen import eigsh
from hbanalysis.eigen.progress import Line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_products_bounds_and_the_check(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    eigsh(torch.diag(torch.linspace(0, 1, 200) ** 4), 3)
    text = screen.getvalue()
    assert "products, worst bound" in text
    assert "times its tolerance" in text
    assert "looking for missing eigenvalues" in text
    assert "\n" not in text
    assert all(len(part) <= 78 for part in text.split("\r"))
    assert text.endswith(" \r")


def test_nothing_is_written_elsewhere(monkeypatch):
    page = io.StringIO()
    monkeypatch.setattr(sys, "stderr", page)
    eigsh(torch.diag(torch.linspace(0, 1, 200) ** 4), 3)
    assert page.getvalue() == ""


def test_the_line_says_what_is_known(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    line = Line()
    line(7, math.inf)
    line(8.5, 3.14159)
    line(9, math.nan)
    line.close()
    said = ["7 products, not all values found yet", "8.5 products, worst bound 3.14 times its tolerance"]
    said += ["9 products, looking for missing eigenvalues", "", ""]
    assert [part.rstrip(" ") for part in screen.getvalue().split("\r")[1:]] == said


@pytest.mark.parametrize(("pace", "expected"), [(1.0, "about 12 s left"), (60.0, "about 12 min left")])
def test_forecast_extends_the_fall_of_the_bound(monkeypatch, pace, expected):
    """The bound falls tenfold every 4 steps; 1,000 times the tolerance needs 12 more."""
    clock = iter(range(100))
    monkeypatch.setattr("hbanalysis.eigen.progress.time.monotonic", lambda: pace * next(clock))
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    line = Line()
    for step in range(9):
        line(step, 1e3 * 10 ** (2 - step / 4))
    assert expected in screen.getvalue().split("\r")[-1]
