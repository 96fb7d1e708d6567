"""How to cite, and the table of symbols."""

import re

import pytest
import yaml
from bs4 import BeautifulSoup

from tests.site.conftest import ROOT


def page(site, name) -> BeautifulSoup:
    return BeautifulSoup((site / "book" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")


def test_the_entries_to_cite_are_those_of_the_citation_file(site):
    text = page(site, "references").select_one("#how-to-cite pre").get_text()
    said = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert said["title"] in text and said["references"][0]["title"] in text
    assert text.count("@") == 2 and text.count("{") == text.count("}")
    for author in said["references"][0]["authors"]:
        assert f"{author['family-names']}, {author['given-names']}" in text
    edition = re.search(r"Edition ([0-9a-f]{10})", page(site, "editions").get_text())[1]
    assert f"Edition {edition} of the results" in text


def test_an_address_is_cited_where_there_is_one(extension):
    citing = extension("citing")
    with_one = citing.bibtex(ROOT / "CITATION.cff", "0123456789", "https://github.com/somebody/something")
    assert "  url = {https://github.com/somebody/something}," in with_one
    assert "url" not in citing.bibtex(ROOT / "CITATION.cff", "0123456789", "")


@pytest.mark.parametrize("symbol", [r"\\theta", r"\\lambda_1", r"\\eta", r"\\epsilon", r"H_x", r"\\rho"])
def test_symbols_have_a_line_with_a_link(site, symbol):
    lines = page(site, "notation").select("tbody tr")
    (first, *_) = [line for line in lines if re.search(symbol + r"\b", line.td.get_text())]
    assert first.find_all("td")[-1].find("a") is not None
