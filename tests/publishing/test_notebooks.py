import json
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from hbanalysis.errors import InputError
from hbanalysis.publishing import notebooks

PARAMETERS = """# what to compute
scale: str = "published"  # preset
seeds: list[int] = None  # seeds
rate: float = 0.1
"""


def make(folder: Path, *cells: str, parameters: str = PARAMETERS, name: str = "10_probe") -> Path:
    """Write a notebook with a heading, a parameters cell and code cells, as an editor would."""
    book = nbformat.v4.new_notebook()
    head = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    book.cells = [nbformat.v4.new_markdown_cell("# Probe"), head, *map(nbformat.v4.new_code_cell, cells)]
    book.metadata["kernelspec"] = {"display_name": "some other", "language": "python", "name": "no-such-kernel"}
    path = folder / f"{name}.ipynb"
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(notebooks, "PROJECT", tmp_path)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def outputs(run: Any) -> str:
    return "".join(output.get("text", "") for cell in run.cells for output in cell.get("outputs", []))


def test_a_run_shows_its_parameters_and_nothing_that_changes(tmp_path: Path):
    path = make(
        tmp_path,
        "import sys\nprint(scale, seeds, rate)\nprint(sys.executable)",
        "for i in range(50):\n    print(i, flush=True)",
        "1 + 1",
    )
    before = path.read_text()
    first, second = (notebooks.execute(path, {"scale": "digits", "seeds": [7]}) for _ in range(2))
    assert path.read_text() == before
    assert f"digits [7] 0.1\n{sys.executable}\n" in outputs(first)
    assert notebooks._without_block(first) == notebooks._without_block(second)
    assert "scale: str = 'digits'  # preset" in first.cells[1].source
    assert "seeds: list[int] = [7]  # seeds" in first.cells[1].source
    assert [cell.get("execution_count") for cell in first.cells] == [None, 1, 2, 3, 4]
    assert len(first.cells[3].outputs) == 1
    assert first.cells[4].outputs[0].execution_count == 4
    assert set(first.metadata) == {"kernelspec", "language_info", "hbanalysis"}
    known = {"date", "seconds", "device", "parameters", "version", "torch", "python", "commit"}
    assert set(first.metadata.hbanalysis) == known
    assert first.metadata.hbanalysis.parameters == {"scale": "digits", "seeds": [7]}
    text = nbformat.writes(first)
    assert "papermill" not in text
    assert "injected" not in text
    assert "start_time" not in text


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"scael": "digits"}, "Did you mean 'scale'"),
        ({"seeds": 7}, "takes a list"),
        ({"seeds": ["a"]}, "takes a list"),
        ({"rate": "fast"}, "takes a float"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(tmp_path: Path, wrong: dict, hint: str):
    path = make(tmp_path, "raise RuntimeError('it ran')")
    with pytest.raises(InputError, match=hint):
        notebooks.execute(path, wrong)


def test_parameters_of_a_notebook_that_takes_none_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match="takes no parameters"):
        notebooks.check(make(tmp_path, parameters="# none"), {"scale": "digits"})


def test_a_failing_cell_is_named_and_leaves_the_notebook_as_it_was(project: Path):
    path = make(project / "notebooks", "x = 1", "raise ValueError('broken')")
    before = path.read_bytes()
    with pytest.raises(notebooks.NotebookError, match=r"10_probe\.ipynb, cell 3: ValueError: broken"):
        notebooks.publish()
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_bad_input_found_by_a_cell_is_bad_input(tmp_path: Path):
    path = make(tmp_path, "from hbanalysis.errors import InputError\nraise InputError('no such scale')")
    with pytest.raises(InputError, match=r"10_probe\.ipynb: no such scale"):
        notebooks.execute(path)


def test_publishing_twice_changes_nothing_the_second_time(project: Path):
    path = make(project / "notebooks", "print(6 * 7)")
    assert notebooks.publish() == [path]
    text = path.read_text()
    block = json.loads(text)["metadata"]["hbanalysis"]
    assert block["parameters"] == {}
    assert notebooks.publish(["10"]) == []
    assert path.read_text() == text


def test_a_notebook_that_writes_to_standard_error_is_not_published(project: Path):
    path = make(project / "notebooks", "import sys\nprint('a warning', file=sys.stderr)")
    before = path.read_bytes()
    with pytest.raises(notebooks.NotebookError, match="a warning"):
        notebooks.publish()
    assert path.read_bytes() == before


def test_notebooks_are_found_by_path_name_and_number(project: Path):
    path = make(project / "notebooks", name="01_spectrum")
    assert notebooks.find(str(path)) == notebooks.find("01_spectrum") == notebooks.find("01") == path
    assert notebooks.names() == ["01_spectrum"]
    with pytest.raises(InputError, match="Did you mean '01_spectrum'"):
        notebooks.find("01_spektrum")


def test_declared_parameters_have_types_defaults_and_help(tmp_path: Path):
    found = notebooks.declared(make(tmp_path, parameters=PARAMETERS + "count = 3\n"))
    assert found["seeds"] == notebooks.Declared("list[int]", None, "seeds")
    assert found["scale"] == notebooks.Declared("str", "published", "preset")
    assert found["count"].kind == "int"


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="/dev/null/x"):
        notebooks.write(nbformat.v4.new_notebook(), Path("/dev/null/x/out.ipynb"))
