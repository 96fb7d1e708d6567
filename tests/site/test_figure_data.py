import copy
import io
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from docutils import nodes
from PIL import Image

from hbanalysis import store
from hbanalysis.publishing import notebooks, replay

SITE_LIMIT, PAGE_LIMIT = 25e6, 1.5e6
BESIDE = re.compile(r"\((left|right)\b|on the (left|right)\b|\b[Ll]eft,|\b[Rr]ight,|side by side")
WIDEST = 640  # pixels of a picture that phones show 342 wide
STUDY, PAGE = "learning_rate_factorial", "13_learning_rate_or_batch_size"


@pytest.fixture(scope="module")
def figure_data(extension):
    return extension("figure_data")


@pytest.fixture
def warnings(figure_data, monkeypatch) -> list[str]:
    found: list[str] = []
    heard = SimpleNamespace(warning=lambda text, *values, **place: found.append(text % values))
    monkeypatch.setattr(figure_data, "_logger", heard)
    return found


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


@pytest.mark.parametrize("name", notebooks.names())
def test_a_figure_is_legible_on_a_phone(site, name):
    """It has a form for narrow screens, or is not much wider than one: type of 12 points stays above 9 pixels."""
    page = BeautifulSoup((site / "notebooks" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    for figure in page.select(".cell_output figure[id]:not(.loss-surface)"):
        narrow = figure.select_one("picture > source[media]")
        address = narrow["srcset"] if narrow else figure.select_one("img")["src"]
        with Image.open((site / "notebooks" / address).resolve()) as picture:
            assert picture.width <= WIDEST, figure["id"]


@pytest.mark.parametrize("name", notebooks.names())
def test_a_caption_holds_whether_panels_stand_beside_or_below_one_another(name):
    for cell in nbformat.read(notebooks.find(name), as_version=4).cells:
        words = " ".join(str(part) for part in cell.metadata.get("mystnb", {}).values())
        assert not BESIDE.search(words), words


def has_figure(cell) -> bool:
    pictures = [output for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    return bool(pictures) and bool(replay.figure_name(cell))


def test_the_data_of_a_figure_are_the_rows_values(site):
    data = pd.read_csv(site / "data" / "01_spectrum_vs_batch" / "fig-lambda1.csv")
    seeds = data[(data["kind"] == "seed") & (data["split"] == "test")]
    rows = [row for row in store.published().rows("spectrum_vs_batch") if row.values.get("at_target")]
    assert sorted(seeds["value"]) == pytest.approx(sorted(row.values["at_target"]["lambda1_test"] for row in rows))


def test_a_page_that_does_not_agree_with_its_rows_is_warned_of(figure_data, warnings, tmp_path, monkeypatch):
    path = notebooks.find(PAGE)
    published = figure_data.csv_of_figures(path)
    assert warnings == []
    shutil.copytree(store.published().root / STUDY, tmp_path / STUDY)
    row = next(row for row in store.published().rows(STUDY) if row.values.get("at_target"))
    values = copy.deepcopy(row.values)
    values["at_target"]["lambda1_train"] *= 1.01
    (tmp_path / STUDY / f"{row.key}.json").write_text(replace(row, values=values).to_json())
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path))
    changed = figure_data.csv_of_figures(path)
    assert changed.keys() == published.keys()
    assert changed != published
    assert any("figure   ratio" in line for line in warnings)


def test_a_figure_without_data_is_warned_of(figure_data, warnings, tmp_path):
    path = tmp_path / "00_probe.ipynb"
    cell = nbformat.v4.new_code_cell("fig", metadata={"mystnb": {"figure": {"name": "fig-probe"}}})
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    environment = SimpleNamespace(docname="00_probe", doc2path=lambda name: str(path), note_dependency=print)
    app = SimpleNamespace(env=environment, builder=SimpleNamespace(name="html"), outdir=str(tmp_path / "html"))
    page = nodes.container("", nodes.figure(ids=["fig-probe"], names=["fig-probe"]))
    figure_data.add_links(app, page)
    (line,) = warnings
    assert "fig-probe" in line and "plots.show" in line
    assert not (tmp_path / "html").exists()


def test_the_site_stays_small(site):
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < SITE_LIMIT


def test_no_page_is_heavy(site):
    """What a page loads beside the style sheets and scripts that all pages share; of two forms of a picture, both."""
    weights = {}
    for path in site.rglob("*.html"):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        addresses = [image["src"] for image in page.select("img[src]")]
        addresses += [source["srcset"] for source in page.select("source[srcset]")]
        files = {(path.parent / address).resolve() for address in addresses if "://" not in address}
        weights[path.name] = path.stat().st_size + sum(file.stat().st_size for file in files if file.is_file())
    assert {name: weight for name, weight in weights.items() if weight > PAGE_LIMIT} == {}
    assert max(weights.values()) > 2e5  # so that something was counted


def test_the_numbers_of_the_front_pages_spectra_are_there_to_load(site):
    page = BeautifulSoup((site / "book" / "intro.html").read_text(encoding="utf-8"), "html.parser")
    figure = page.select_one("figure.spectrum-explorer")
    (link,) = figure.select("figcaption .figure-data a")
    data = pd.read_csv(site / "book" / link["href"])
    spectra = [
        row.values["at_target"]["spectrum_train"]
        for row in store.published().rows("spectrum_vs_batch")
        if (row.config["training"]["batch_size"], row.config["training"]["dataset"]) == (1024, "mnist")
    ]
    spectrum = data[(data["batch_size"] == 1024) & (data["set"] == "train")]
    assert spectrum["mean"].tolist() == pytest.approx(np.exp(np.log(spectra).mean(axis=0)), rel=1e-4)
    assert "hbanalysis run spectrum_vs_batch --scale digits" in figure.get_text()
