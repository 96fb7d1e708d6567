import contextlib
import io
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.publishing import pages, replay
from hbanalysis.publishing.subjects import Subject
from tests.flow_rows import STUDY, made_up_row, publish_into

CELLS = {
    "parameters": 'scale: str = "published"\nseeds: list = None',
    "start": f'from hbanalysis.publishing import pages\n\npage = pages.start("{STUDY}", globals())\n'
    "print(page.summary())",
    "imports": "from hbanalysis import plots\nfrom hbanalysis.tables import frames\n\n"
    "raise RuntimeError('a table, which is not made again')",
    "figure": "fig_a, data_a = plots.lambda1_vs_batch(page.rows)",
    "plain": "table = frames.measured(page.rows)",
    "digest": 'page.digest({"a": data_a})',
}


def notebook(said: str = "", **changed: str) -> nbformat.NotebookNode:
    cells = {name: nbformat.v4.new_code_cell(text) for name, text in (CELLS | changed).items()}
    cells["parameters"].metadata["tags"] = ["parameters"]
    cells["figure"].metadata["mystnb"] = {"figure": {"name": "fig-a", "caption": "A."}}
    cells["digest"].outputs = [nbformat.v4.new_output("stream", name="stdout", text=said)]
    return nbformat.v4.new_notebook(cells=list(cells.values()))


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    found = [made_up_row(cell) for cell in studies.get(STUDY).cells("digits")[:2]]
    publish_into(tmp_path, found)
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path))
    return found


def digest(rows: list, **data) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        pages.Page(studies.get(STUDY), "published", rows, rows).digest(data)
    return said.getvalue()


def test_the_frame_is_the_one_that_the_figure_is_drawn_from(rows):
    from hbanalysis import plots

    _, data = plots.lambda1_vs_batch(rows)
    before = matplotlib.get_backend(), dict(matplotlib.rcParams)
    again = replay.replay(notebook(digest(rows, a=data)))
    assert again.frames["fig-a"].equals(data)
    assert list(again.frames) == ["fig-a"]
    assert again.stale == []
    assert (matplotlib.get_backend(), dict(matplotlib.rcParams)) == before
    assert plt.get_fignums() == []


def test_a_notebook_of_other_rows_is_stale(rows):
    from hbanalysis import plots

    _, data = plots.lambda1_vs_batch(rows)
    again = replay.replay(notebook(digest(rows, a=data.assign(value=data["value"] * 1.001))))
    assert len(again.stale) == 1
    assert again.stale[0].startswith("figure   a")


def test_a_figure_that_leaves_no_frame_has_no_data(rows):
    again = replay.replay(notebook(figure="fig_a, other = plots.lambda1_vs_batch(page.rows)\ndata_a = []"))
    assert again.frames == {}


def test_a_figure_that_needs_what_another_cell_computes_is_refused(rows):
    with pytest.raises(InputError, match="name 'table' is not defined"):
        replay.replay(notebook(figure="data_a = table"))


def test_studies_and_figures_are_read_from_the_cells():
    plain = 'other = pages.start("loss_landscape", {}, without=("mnist",))\nx = pages.start(name, {})'
    found = notebook(plain=plain)
    assert replay.subjects(found) == {"page": Subject(STUDY), "other": Subject("loss_landscape", without=("mnist",))}
    assert replay.studies_shown(found) == [STUDY, "loss_landscape"]
    assert replay.figure_names(found) == ["fig-a"]
