import subprocess
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from hbanalysis import __version__, studies
from hbanalysis.errors import InputError
from hbanalysis.publishing import book, notebooks
from hbanalysis.running import compute
from hbanalysis.store import Store
from hbanalysis.store.provenance import commit
from tests.flow_rows import PROJECT, STUDY, made_up_row


def test_the_first_seeds_of_a_preset_are_chosen():
    study = studies.get(STUDY)
    assert len(book.chosen(study, "digits", 1)) == 3
    assert {study.config(cell)["training"]["seed"] for cell in book.chosen(study, "digits", 2)} == {0, 1}
    with pytest.raises(InputError, match="has 3 seeds; given 4"):
        book.chosen(study, "digits", 4)
    with pytest.raises(InputError, match="given 0"):
        book.chosen(study, "digits", 0)


def test_a_store_of_this_code_is_kept_and_one_of_other_code_is_emptied(tmp_path: Path):
    store = Store(tmp_path)
    old, new = (made_up_row(cell) for cell in studies.get(STUDY).cells("digits")[:2])
    store.put(replace(new, provenance={**new.provenance, "hbanalysis": __version__, "commit": commit()}))
    store.checkpoint_folder("any").mkdir(parents=True)
    assert book.drop_foreign(store) == 1
    assert store.checkpoint_folder("any").exists()
    store.put(replace(old, provenance={**old.provenance, "hbanalysis": __version__, "commit": "before"}))
    assert book.drop_foreign(store) == 0
    assert store.rows() == []
    assert not store.checkpoint_folder("any").exists()


def test_sources_are_copied_without_notebooks_and_what_was_built_is_thrown_away(tmp_path: Path):
    root, live = tmp_path / "project", tmp_path / "live"
    for name in (
        "_config.yml",
        "_toc.yml",
        "pyproject.toml",
        "book/intro.md",
        "notebooks/01_a.ipynb",
        "notebooks/figure.png",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name in ("book/gone.md", "_build/html/index.html", "store/rows/kept.json"):
        (live / name).parent.mkdir(parents=True, exist_ok=True)
        (live / name).write_text("old")
    book.copy_sources(root, live)
    files = {str(path.relative_to(live)) for path in live.rglob("*") if path.is_file()}
    copied = {"_config.yml", "_toc.yml", "pyproject.toml", "book/intro.md", "notebooks/figure.png"}
    assert files == {*copied, "store/rows/kept.json"}


def test_the_report_says_what_is_inside_missing_failed_and_spent():
    study = studies.get(STUDY)
    cells = study.cells("digits")
    rows = [made_up_row(cells[0], 3.0), made_up_row(cells[1])]
    task = compute.Task.of(study, cells[2])
    live = book.Live(
        compute.Outcome(failed=[compute.Failure(task, "out of memory")], missing=[task]),
        None,
        book.comparison.compare(rows, [made_up_row(cells[0])]),
        [rows[1]],
        [book.Budget(STUDY, 2, 5.0, 300.0, 420.0), book.Budget("other", 1, 9.0, 9.0, 8.0)],
    )
    text = book.report(live)
    for part in (
        "values inside their band",
        "1 rows here have no published partner",
        f"FAILED: {STUDY}, {task.label}: out of memory",
        "1 cells are missing",
        "300 for 2 rows, within the budget of 420; 5 in this run",
        "OVER",
    ):
        assert part in text
    assert live.exit_code == 1


def test_the_banner_names_scale_device_and_date():
    row = made_up_row(studies.get(STUDY).cells("digits")[0])
    assert book.banner("digits", [row]).startswith("computed here: digits, a CPU, 20")


@pytest.mark.full
def test_a_book_computed_here_changes_no_tracked_file(tmp_path: Path):
    """The whole flow at scale tiny, sites and notebooks included."""
    before = _state()
    live = book.make(scale="tiny", folder=tmp_path / "live", show=False)
    assert live.exit_code == 0, book.report(live)
    assert live.site is not None
    assert "computed here: tiny" in (live.site / "index.html").read_text() + _linked(live.site)
    rows = Store(tmp_path / "live" / "store").rows(STUDY)
    assert len(rows) == len(studies.get(STUDY).cells("tiny"))
    for name in notebooks.names():
        run = nbformat.read(tmp_path / "live" / "notebooks" / f"{name}.ipynb", as_version=4)
        assert not [o for cell in run.cells for o in cell.get("outputs", []) if o.output_type == "error"]
    keys = {row.key[:6] for row in rows}
    assert len(keys) == len(rows)
    again = book.make(scale="tiny", folder=tmp_path / "live", show=False)
    assert again.outcome.computed == []
    assert _state() == before


def _linked(site: Path) -> str:
    """The text of the page that the first page leads to, where that is a redirect."""
    return (site / "book" / "intro.html").read_text()


def _state() -> str:
    words = ["git", "-C", str(PROJECT), "diff", "HEAD", "--stat"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout
