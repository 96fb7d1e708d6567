"""Committed notebooks stand for committed rows: nbval passes as they are and fails once a row, a plotted number or an
output differs; at any other scale they compute."""

import ast
import copy
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from hbanalysis import studies
from hbanalysis.publishing import notebooks
from hbanalysis.store import Row, Store, published

STUDIES = [studies.get(name) for name in studies.names()]


def validate(notebook: Path, rows: Path) -> subprocess.CompletedProcess:
    """Run nbval strictly on a notebook over a folder of published rows."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--nbval",
            "--nbval-current-env",
            str(notebook),
        ],
        cwd=notebook.parent,
        env={**os.environ, "HBANALYSIS_PUBLISHED": str(rows)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """The first study's notebook and the published rows, free to be changed."""
    rows = tmp_path / "results"
    shutil.copytree(published().root, rows)
    return Path(shutil.copy(notebooks.find(STUDIES[0].notebook), tmp_path)), rows


def change_first_row(rows: Path, change) -> None:
    path = sorted((rows / STUDIES[0].name).glob("*.json"))[0]
    row = Row.from_json(path.read_text())
    values = copy.deepcopy(row.values)
    change(values)
    path.write_text(replace(row, values=values).to_json())


def test_rows_are_published_and_every_study_has_a_notebook():
    for study in STUDIES:
        assert published().rows(study.name)
        assert notebooks.find(study.notebook).is_file()


def test_every_published_row_belongs_to_the_code():
    for study in STUDIES:
        for row in published().rows(study.name):
            cell = study.from_config(row.config)
            assert (row.key, row.scale) == (study.key(cell), study.scale_of(cell))
            assert row.provenance["commit"] and "+" not in row.provenance["commit"]


def test_committed_notebooks_are_in_normal_form_and_at_their_defaults():
    for name in notebooks.names():
        notebook = nbformat.read(notebooks.find(name), as_version=4)
        block = notebook.metadata[notebooks.BLOCK]
        assert block["parameters"] == {}
        assert notebooks.normal_form(notebook, {}, block) == notebook
        assert all(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


@pytest.mark.full
def test_nbval_passes_on_an_unchanged_copy(copies):
    run = validate(*copies)
    assert run.returncode == 0, run.stdout


@pytest.mark.full
def test_a_changed_row_turns_nbval_red(copies):
    def change(values):
        values["at_target"]["lambda1_train"] *= 1.01

    change_first_row(copies[1], change)
    assert validate(*copies).returncode == 1


@pytest.mark.full
def test_a_changed_number_that_is_only_plotted_turns_nbval_red(copies):
    def change(values):
        values["landscape"]["loss_test"][0] *= 1.001

    change_first_row(copies[1], change)
    run = validate(*copies)
    assert run.returncode == 1
    assert "figure   landscape" in run.stdout


@pytest.mark.full
def test_a_changed_output_turns_nbval_red(copies):
    notebook = nbformat.read(copies[0], as_version=4)
    first = next(o for c in notebook.cells for o in c.get("outputs", []) if o.output_type == "stream")
    first.text = first.text.replace("published", "Published", 1)
    nbformat.write(notebook, copies[0])
    assert validate(*copies).returncode == 1


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_the_compute_path_of_a_study_notebook_makes_rows(study, tmp_path):
    """With plain papermill, from another folder, at a private scale of seconds."""
    store = Store(tmp_path / "store")
    run = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"),
            *(str(notebooks.find(study.notebook)), "out.ipynb", "-p", "scale", "tiny", "-y", "seeds: [7]"),
        ],
        cwd=tmp_path,
        env={**os.environ, "HBANALYSIS_STORE": str(store.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    cells = study.cells("tiny", seeds=[7])
    assert {row.key for row in store.rows(study.name)} == {study.key(cell) for cell in cells}
    output = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert any("computed here" in o.get("text", "") for c in output.cells for o in c.get("outputs", []))


def test_a_mistyped_parameter_is_refused_by_the_notebook_itself(tmp_path):
    run = subprocess.run(
        [
            *(sys.executable, "-m", "papermill", "--no-progress-bar", "-k", "python3"),
            *(str(notebooks.find(STUDIES[0].notebook)), "out.ipynb", "-y", "batch_size: [4]"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "Did you mean 'batch_sizes'" in run.stderr


@pytest.mark.parametrize("name", notebooks.names())
def test_every_study_that_a_page_opens_takes_the_seeds_of_the_page(name):
    notebook = nbformat.read(notebooks.find(name), as_version=4)
    tree = ast.parse("\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "pages.start"]
    settings: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign):
            target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
            settings.setdefault(ast.unparse(target), []).append(node.value)
    for call in calls:
        waiting, seen = [call.args[1]], set()
        while waiting:
            given = waiting.pop()
            seen.add(ast.unparse(given))
            named = [value for node in ast.walk(given) for value in settings.get(ast.unparse(node), ())]
            waiting += [value for value in named if ast.unparse(value) not in seen]
        assert "globals()" in seen or any("seeds" in text for text in seen), ast.unparse(call)
