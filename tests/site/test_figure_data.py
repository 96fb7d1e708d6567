import io
import re

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from hbanalysis import notebooks, replay

SITE_LIMIT = 25e6


@pytest.mark.parametrize("name", notebooks.names())
def test_every_figure_of_a_page_has_its_data_below_it(site, name):
    page = BeautifulSoup((site / "notebooks" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    figures = page.select(".cell_output figure[id]:not(.loss-surface)")
    drawn = [cell for cell in nbformat.read(notebooks.find(name), as_version=4).cells if has_figure(cell)]
    assert [figure["id"] for figure in figures] == [replay.figure_name(cell) for cell in drawn]
    for figure in figures:
        (link,) = figure.select("figcaption a[href$='.csv']")
        text = (site / "notebooks" / link["href"]).resolve().read_text(encoding="utf-8")
        said = re.search(r"\(([\d,]+) lines", figure.get_text())
        data = pd.read_csv(io.StringIO(text))
        assert len(data) == int(said[1].replace(",", "")) > 0
        assert len(data.columns) > 1


def has_figure(cell) -> bool:
    pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return bool(pictures) and bool(replay.figure_name(cell))


def test_the_data_of_a_figure_are_the_rows_values(site):
    from hbanalysis import store

    data = pd.read_csv(site / "data" / "01_spectrum_vs_batch" / "fig-lambda1.csv")
    seeds = data[(data["kind"] == "seed") & (data["split"] == "test")]
    rows = [row for row in store.published().rows("spectrum_vs_batch") if row.values.get("at_target")]
    assert sorted(seeds["value"]) == pytest.approx(sorted(row.values["at_target"]["lambda1_test"] for row in rows))


def test_the_site_stays_small(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < SITE_LIMIT
