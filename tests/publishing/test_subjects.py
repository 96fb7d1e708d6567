"""Which rows of a study stand on which page."""

import nbformat
import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.publishing import notebooks, pages, replay
from hbanalysis.publishing.subjects import Subject
from tests.flow_rows import STUDY, made_up_row, publish_into

CIFAR100 = ("cifar100",)


def subjects_of(name: str) -> dict[str, Subject]:
    return replay.subjects(nbformat.read(notebooks.find(name), as_version=4))


@pytest.mark.parametrize("name", studies.names())
def test_every_cell_stands_on_the_page_that_its_study_names_and_on_no_other_of_its_pages(name):
    study = studies.get(name)
    own = {study.notebook, *study.elsewhere.values()}
    takes = {page: [subject.takes for subject in subjects_of(page).values() if subject.study == name] for page in own}
    for cell in (cell for scale in study.scales for cell in study.cells(scale)):
        assert {page for page, ones in takes.items() if any(take(cell.training.dataset) for take in ones)} == {
            study.page(cell)
        }


@pytest.fixture
def published(tmp_path, monkeypatch):
    """One row of each network at scale small."""
    study = studies.get(STUDY)
    cells = {cell.training.network: cell for cell in study.cells("small")}
    publish_into(tmp_path / "published", [made_up_row(cell) for cell in cells.values()])
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("HBANALYSIS_STORE", str(tmp_path / "local"))
    return cells


def networks_on(page: pages.Page) -> list[str]:
    return [row.config["training"]["network"] for row in page.rows]


def test_a_page_shows_and_misses_cells_on_its_data_sets_alone(published):
    here = pages.start(STUDY, {"scale": "published"}, only=CIFAR100)
    there = pages.start(STUDY, {"scale": "published"}, without=CIFAR100)
    assert networks_on(here) == ["CR"] and set(networks_on(there)) == {"C1", "C2"}
    assert {cell.training.dataset for cell in here.missing} == {"cifar100"}
    assert "cifar100" not in {cell.training.dataset for cell in there.missing}
    everything = pages.start(STUDY, {"scale": "published"})
    assert len(everything.missing) == len(here.missing) + len(there.missing)


def test_a_scale_is_computed_on_the_pages_data_sets_alone(published, monkeypatch):
    asked = []
    monkeypatch.setattr(
        pages, "compute_cell", lambda study, cell, *_, **__: (asked.append(cell) or made_up_row(cell), True)
    )
    page = pages.start(STUDY, {"scale": "small", "use_published": False}, only=CIFAR100)
    assert set(networks_on(page)) == {"CR"} and {cell.training.dataset for cell in asked} == {"cifar100"}


@pytest.mark.parametrize(
    ("narrowed", "given"), [({"only": CIFAR100}, {}), ({"without": ("digits",)}, {"dataset": "digits"})]
)
def test_a_scale_without_the_data_sets_and_one_asked_for_by_name_are_shown_as_they_are(
    published, narrowed, given, monkeypatch
):
    monkeypatch.setattr(pages, "compute_cell", lambda study, cell, *_, **__: (made_up_row(cell), True))
    page = pages.start(STUDY, {"scale": "digits", "seeds": [0], **given}, **narrowed)
    assert networks_on(page) == ["M1"] * 3


def test_unknown_data_sets_and_both_lists_are_refused():
    with pytest.raises(InputError, match="Did you mean 'cifar100'"):
        Subject(STUDY, only=("cifar-100",))
    with pytest.raises(InputError, match="not both"):
        Subject(STUDY, only=CIFAR100, without=("mnist",))
