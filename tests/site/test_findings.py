"""The findings on the front page: each has its figure, its numbers as the rows give them, its page and its data."""

import io
import shlex

import pandas as pd
import pytest
from bs4 import BeautifulSoup
from PIL import Image

from hbanalysis import store
from hbanalysis.claims.findings import committed, findings


@pytest.fixture(scope="module")
def intro(site) -> BeautifulSoup:
    return BeautifulSoup((site / "book" / "intro.html").read_text(encoding="utf-8"), "html.parser")


def test_every_finding_stands_on_the_page_as_the_rows_say_it(site, intro):
    expected = findings(store.published().rows(), committed())
    figures = intro.select(".findings > figure.finding")
    assert [figure["id"] for figure in figures] == [f"finding-{one.name}" for one in expected]
    for figure, one in zip(figures, expected, strict=True):
        assert figure.select_one(".finding-title").get_text().replace("’", "'") == one.title.replace("*", "") + "."
        assert figure.img["alt"] == one.described
        assert all(one.text(line) in figure.img["alt"] for line in one.lines)
        assert figure.select_one(f"a[href='../notebooks/{one.page}.html']")
        assert tuple(figure.pre.get_text().strip().splitlines()) == one.commands
        assert all(shlex.split(command)[0] in ("hbanalysis", "python") for command in one.commands)
        with Image.open(site / "book" / figure.img["src"]) as picture:
            assert picture.width / picture.height == pytest.approx(
                int(figure.img["width"]) / int(figure.img["height"]), rel=0.02
            )
        (link,) = figure.select("a[href$='.csv']")
        data = pd.read_csv(io.StringIO((site / "book" / link["href"]).read_text(encoding="utf-8")))
        values = [value for line in one.lines for value in line.values]
        assert data[data["kind"] == one.unit]["value"].tolist() == pytest.approx(values, rel=1e-6)


def test_the_page_says_that_findings_were_chosen_afterwards(intro):
    section = intro.select_one("section#what-has-turned-up").get_text(" ", strip=True)
    assert "chosen after the rows were seen" in section
