"""What stands at the foot of a page: its commands and parameters, and where its numbers come from."""

import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from bs4 import BeautifulSoup, Tag

from hbanalysis import store, studies
from hbanalysis.claims.again import commands
from hbanalysis.publishing import notebooks, replay
from hbanalysis.store import Row

FROM_THE_PAPER = {"fig-paper-tables"}  # figures on a study's page that are drawn from no row
NAMES = ("rerun", "origins", "row_links")


@pytest.fixture(scope="module")
def extensions(extension) -> dict[str, ModuleType]:
    return {name: extension(name) for name in NAMES}


def page(site: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((site / "notebooks" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def shown(name: str) -> list[str]:
    return replay.studies_shown(nbformat.read(notebooks.find(name), as_version=4))


def rows_shown(name: str) -> list[Row]:
    opened = replay.subjects(nbformat.read(notebooks.find(name), as_version=4)).values()
    return list({row.key: row for subject in opened for row in subject.published()}.values())


def boxes(soup: BeautifulSoup) -> dict[str, Tag]:
    return {box.summary.get_text(): box for box in soup.select("details.page-box")}


@pytest.mark.parametrize("name", notebooks.names())
def test_a_page_names_commands_that_are_accepted_as_they_stand(site, name):
    box = boxes(page(site, name))["Rerun this page"]
    first, *others = (shlex.split(line) for line in box.pre.get_text().splitlines())
    assert first[:3] == ["papermill", f"notebooks/{name}.ipynb", "out.ipynb"]
    given = dict(zip(first[4::3], first[5::3], strict=True))
    assert set(first[3::3]) <= {"-p"}
    assert given
    notebooks.check(notebooks.find(name), {key: int(text) if text.isdigit() else text for key, text in given.items()})
    assert [words[:4] for words in others] == [["hbanalysis", "run", study, "--scale"] for study in shown(name)]
    for study, words in zip(shown(name), others, strict=True):
        assert studies.get(study).cells(words[4])
    file = box.find("a", string="Download this notebook")["href"]
    assert json.loads((site / "notebooks" / file).resolve().read_text(encoding="utf-8"))["cells"]


@pytest.mark.parametrize("name", notebooks.names())
def test_a_page_lists_its_parameters_as_the_notebook_declares_them(site, name):
    lines = boxes(page(site, name))["Rerun this page"].select("tbody tr")
    said = [tuple(cell.get_text().strip() for cell in line.find_all("td")) for line in lines]
    declared = notebooks.declared(notebooks.find(name))
    assert said == [(f"{key}: {one.kind}", repr(one.default), one.help) for key, one in declared.items()]
    assert all(meaning for *_, meaning in said)


@pytest.mark.parametrize("name", notebooks.names())
def test_a_page_says_where_its_rows_come_from(site, name):
    found = boxes(page(site, name))
    lines = [line.get_text() for line in found["Where the numbers come from"].select("li")]
    rows = rows_shown(name)
    for study, scale in {(row.study, row.scale) for row in rows}:
        (line,) = [line for line in lines if line.startswith(f"{study}, {scale}: ")]
        group = [row for row in rows if (row.study, row.scale) == (study, scale)]
        for row in group:
            origin = row.provenance
            facts = (origin["device_name"], origin["commit"], origin["torch"], str(row.config["training"]["seed"]))
            assert all(fact in line for fact in facts)
        dates = sorted(row.provenance["date"][:10] for row in group)
        assert dates[0] in line and dates[-1] in line
        assert f": {len(group)} row" in line
    block = nbformat.read(notebooks.find(name), as_version=4).metadata[notebooks.BLOCK]
    assert all(block[name] in lines[-1] for name in ("date", "version", "torch", "python", "commit"))
    assert "+" not in block["commit"]
    if rows:
        links = found[f"The {len(rows)} rows of this page"].select("a.reference")
        assert sorted(link.get_text() for link in links) == sorted(row.key for row in rows)


def test_rows_of_one_study_and_scale_share_a_line(extensions):
    def row(seed: int, scale: str, **origin) -> Row:
        known = {"device": "cpu", "device_name": None, "torch": "2", "numpy": "2", "python": "3", "hbanalysis": "0.1"}
        known |= {"seconds": {"total": 40.0}, "commit": None, "date": f"2026-01-0{seed}T00:00:00"} | origin
        return Row("loss_landscape", scale, 1, "k", {"training": {"seed": seed}}, {}, known)

    rows = [row(2, "digits"), row(1, "digits", device_name="H100", commit="abc"), row(1, "paper")]
    versions = "hbanalysis 0.1, torch 2, NumPy 2, Python 3"
    assert extensions["origins"].origin_lines(rows) == [
        ("loss_landscape, paper", f"1 row, seed 1; cpu; 40 s in all; {versions}; commit unknown; 2026-01-01"),
        (
            "loss_landscape, digits",
            f"2 rows, seeds 1, 2; H100, cpu; 1 min 20 s in all; {versions}; commits abc, unknown; "
            "2026-01-01 to 2026-01-02",
        ),
    ]


def test_bands_stand_beside_the_results(extensions, monkeypatch):
    origins = extensions["origins"]
    ((head, said),) = origins.band_lines(["spectrum_vs_batch"])
    assert head == "spectrum_vs_batch, on other machines"
    assert said.startswith("computed again with 2 threads")
    for quantity, (low, high) in studies.get("spectrum_vs_batch").bands.items():
        assert re.search(rf"{re.escape(quantity)} [\d.]+( to [\d.]+)? seen, {low:g} to {high:g} allowed", said)
    nothing = origins.measured.results("portability") | {"conditions": []}
    monkeypatch.setattr(origins.measured, "results", lambda name: nothing)
    ((_, unseen),) = origins.band_lines(["robust_spectrum"])
    assert "not yet computed again elsewhere" in unseen and "clean.spectrum.0 0.4 to 2.5 allowed" in unseen


def table(heads: list[str], *lines: list[str]) -> str:
    def line(tag: str, entries: list[str]) -> str:
        return "<tr><th></th>" + "".join(f"<{tag}>{entry}</{tag}>" for entry in entries) + "</tr>"

    body = "".join(line("td", entries) for entries in lines)
    head = line("th", heads)
    return f'<div><table border="1" class="dataframe"><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def links(html: str) -> list[list[str]]:
    lines = BeautifulSoup(html, "html.parser").select("tbody tr")
    return [[link["href"].rpartition("/")[2] for link in line.select("a.row-link")] for line in lines]


def test_a_line_links_to_the_rows_that_it_names(extensions):
    rows = store.published().rows("spectrum_vs_batch")
    one = rows[0]
    training = one.config["training"]
    heads = ["source", "scale", "dataset", "B", "lambda1"]
    ours = ["here", one.scale, training["dataset"], str(training["batch_size"]), "1.5"]
    html = extensions["row_links"].linked(table(heads, ours, ["paper", *ours[1:]]), rows, "../rows")
    mine, theirs = links(html)
    same = [
        row.key
        for row in rows
        if (row.scale, row.config["training"]["dataset"]) == (one.scale, training["dataset"])
        and row.config["training"]["batch_size"] == training["batch_size"]
    ]
    assert sorted(mine) == sorted(f"{key}.json" for key in same)
    assert theirs == []
    assert links(extensions["row_links"].linked(table(["key", "x"], [one.key, "1"]), rows, ".")) == [
        [f"{one.key}.json"]
    ]


def test_a_batch_that_grows_does_not_name_another_row(extensions):
    rows = store.published().rows("absa")
    (one,) = [row for row in rows if row.config["arm"] == "ABS" and row.config["training"]["seed"] == 1]
    large = next(row for row in rows if row.config["arm"] == "large").config["training"]["batch_size"]
    heads = ["scale", "arm", "seed", "batch_size"]
    html = extensions["row_links"].linked(table(heads, ["digits", "ABS", "1", str(large)]), rows, ".")
    assert links(html) == [[f"{one.key}.json"]]


def test_lines_of_many_rows_link_to_the_list_of_the_page(extensions):
    rows = store.published().rows("spectrum_vs_batch")
    digits = [row for row in rows if row.scale == "digits"]
    html = extensions["row_links"].linked(table(["scale", "network"], ["digits", "M1"]), rows, ".")
    assert links(html) == [["#rows-of-this-page"]]
    assert f"{len(digits)} rows" in html


@pytest.mark.parametrize(
    "html",
    [
        table(["claim", "statement"], ["K1", "sharper"]),
        table(["scale", "effect"], ["digits", "1"]),
        table(["scale", "cell", "batch_size"], ["digits", "not run", "16"]),
        table(["batch_size"], ["7"]),
        table(["trained", "in", "FGSM"], ["M1 on MNIST", "table3", "60.37"]),
        "<p>no table</p>",
    ],
)
def test_a_table_that_names_no_rows_stays_as_it_is(extensions, html):
    assert extensions["row_links"].linked(html, store.published().rows("spectrum_vs_batch"), ".") == html


def test_figures_link_to_the_rows_that_they_are_drawn_from(site):
    for name, figures in (("06_adversarial_training", ("fig-static", "fig-white")), ("05_attacks", ("fig-cg-sweep",))):
        study = next(iter(shown(name)))
        rows = store.published().rows(study)
        for figure in figures:
            found = page(site, name).select(f"#{figure} figcaption .row-links a")
            assert {link["href"] for link in found} == {f"../rows/{study}/{row.key}.json" for row in rows}
            assert all(link["title"] for link in found)
            said = page(site, name).select_one(f"#{figure} figcaption .row-links").get_text()
            assert said.endswith(f"Again: {', '.join(commands(study, rows))}")
    (one,) = page(site, "05_attacks").select("#fig-attack-examples figcaption .row-links a")
    assert "paper" in one["title"]


@pytest.mark.parametrize("name", notebooks.names())
def test_every_figure_names_the_command_that_makes_it(site, name):
    for figure in page(site, name).select(".cell_output figure[id]:not(.loss-surface)"):
        said = [code.get_text() for code in figure.select("figcaption .row-links code")]
        assert said, figure["id"]
        again = ["papermill", f"notebooks/{name}.ipynb"]
        run = ["hbanalysis", "run"] if shown(name) and figure["id"] not in FROM_THE_PAPER else again
        assert all(shlex.split(command)[:2] == run for command in said)


def test_the_rows_of_a_figure_are_those_that_it_is_given(extensions):
    rows = store.published().rows("spectrum_vs_batch")
    of = extensions["row_links"].rows_of_figure
    assert of("fig, data = plots.spectra(page.rows)", {"page": rows}) == rows
    assert of("fig, data = plots.f(page.rows[1])", {"page": rows}) == rows[1:2]
    chosen = f"first = next((row for row in page.rows if row.key == {rows[2].key!r}), None)\nplots.f(first)"
    assert of(chosen, {"page": rows}) == [rows[2]]
    assert of(chosen.replace(rows[2].key, "none"), {"page": rows}) == []
    assert of("fig, data = plots.f(other.rows)", {"page": rows}) == []
    assert of("frames.table(page.rows)", {"page": rows}) == []


def test_every_row_is_on_the_site_and_pages_link_to_those_of_their_own_studies(site):
    rows = store.published().rows()
    for row in rows:
        copy = site / "rows" / row.study / f"{row.key}.json"
        assert Row.from_json(copy.read_text(encoding="utf-8")) == row
    for study in studies.names():
        found = page(site, studies.get(study).notebook).select("a.row-link")
        assert any(f"/{study}/" in link["href"] or link["href"] == "#rows-of-this-page" for link in found), study
