import inspect
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup, Tag

import hbanalysis
from hbanalysis import attacks, distributed, inputs, studies

PAGES = ("api", "api_weights", "api_inputs", "api_attacks", "api_studies")
LARGEST = 1_500_000  # bytes of a page


@pytest.fixture(scope="module")
def entries(site: Path) -> dict[str, Tag]:
    """The heads of all entries of the reference, by name."""
    found = {}
    for page in PAGES:
        text = (site / "book" / f"{page}.html").read_text(encoding="utf-8")
        assert len(text) < LARGEST
        for head in BeautifulSoup(text, "html.parser").find_all("dt", id=True):
            assert head["id"] not in found, f"{head['id']} has two entries"
            found[head["id"]] = head
    return found


@pytest.fixture(scope="module")
def modules(site: Path) -> set[str]:
    texts = [(site / "book" / f"{page}.html").read_text(encoding="utf-8") for page in PAGES]
    found = [tag["id"] for text in texts for tag in BeautifulSoup(text, "html.parser").select("[id^='module-']")]
    return {name.removeprefix("module-") for name in found}


def public() -> list[str]:
    whole = [f"hbanalysis.{name}" for name in hbanalysis.__all__ if not inspect.ismodule(getattr(hbanalysis, name))]
    mine = [
        f"hbanalysis.distributed.{name}"
        for name, thing in vars(distributed).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == distributed.__name__
    ]
    inner = [f"hbanalysis.inputs.{name}" for name in inputs.__all__ if name not in hbanalysis.__all__]
    return [*whole, *(f"hbanalysis.attacks.{name}" for name in attacks.__all__), *mine, *inner]


def the(name: str) -> object:
    found: object = hbanalysis
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", public())
def test_every_public_name_has_an_entry_with_its_signature(entries, name):
    assert name in entries, f"{name} is public and has no entry in book/api*.md"
    thing = the(name)
    if inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, Exception)):
        names = inspect.signature(thing).parameters
        _, _, shown = entries[name].get_text().partition("(")
        assert re.search(".*?".join(rf"\b{one}\b" for one in names), shown, re.DOTALL)


def test_the_public_modules_are_there(modules):
    assert {"hbanalysis.attacks", "hbanalysis.distributed", "hbanalysis.inputs"} <= modules


def test_entries_have_text_and_examples_are_shown(entries, site):
    for name in public():
        body = entries[name].find_next_sibling("dd")
        assert len(body.get_text(strip=True)) > 20, f"{name} has no text"
    eigsh = entries["hbanalysis.eigsh"].find_next_sibling("dd")
    assert ">>> pairs = eigsh(" in eigsh.get_text()
    assert eigsh.select("a[href$='#hbanalysis.Eigenpairs']")
    assert eigsh.select(".math")


def test_the_configuration_and_the_parameters_of_every_study_are_there(entries, site):
    page = BeautifulSoup((site / "book" / "api_studies.html").read_text(encoding="utf-8"), "html.parser")
    for name in studies.names():
        study = studies.get(name)
        section = page.find(id=f"study-{name.replace('_', '-')}")
        assert section is not None, name
        named = [code.get_text() for code in section.select("table tr td:first-child code")]
        assert named == sorted(study.parameters)
        kind = study.cell_type
        assert f"{kind.__module__}.{kind.__qualname__}" in entries
