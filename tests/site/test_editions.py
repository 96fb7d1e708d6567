import json
from dataclasses import replace
from pathlib import Path

import pytest

from hbanalysis import store, studies


@pytest.fixture(scope="module")
def editions(extension):
    return extension("editions")


def write(folder: Path, study: str, key: str, **changes: object) -> None:
    body = {
        "study": study,
        "scale": "digits",
        "key": key,
        "revision": 1,
        "config": {"training": {"seed": 0}},
        "provenance": {"date": "2026-01-02T03:04:05Z"},
        "schema": 2,
        "sha256": "a" + key,
    }
    (folder / study).mkdir(exist_ok=True)
    (folder / study / f"{key}.json").write_text(json.dumps({**body, **changes}))


def test_the_table_has_a_line_a_study_and_scale(editions, tmp_path):
    write(tmp_path, "b", "1", scale="paper", config={"training": {"seed": 3}})
    write(tmp_path, "a", "2", config={"training": {"seed": 1}}, provenance={"date": "2026-03-01T00:00:00Z"}, schema=1)
    write(tmp_path, "a", "1")
    assert editions.table_of(editions.entries(tmp_path)) == [
        ("a", "digits", "2", "0, 1", "2026-03-01", "1", "1, 2"),
        ("b", "paper", "1", "3", "2026-01-02", "1", "2"),
    ]


def test_the_number_changes_with_every_row_and_with_nothing_else(editions, tmp_path):
    write(tmp_path, "a", "1")
    write(tmp_path, "a", "2")
    first, second = editions.entries(tmp_path)
    number = editions.number([first, second])
    assert editions.number([second, first]) == number
    assert editions.number([first]) != number
    assert editions.number([replace(first, checksum="b"), second]) != number
    assert editions.number([replace(first, key="3"), second]) != number


def test_a_row_without_a_checksum_counts_by_its_content(editions, tmp_path):
    write(tmp_path, "a", "1", sha256=None)
    (before,) = editions.entries(tmp_path)
    write(tmp_path, "a", "1", sha256=None, values={"x": 1})
    (after,) = editions.entries(tmp_path)
    assert before.checksum != after.checksum


def test_without_rows_the_page_says_so(editions, tmp_path):
    assert editions.sentence(editions.entries(tmp_path)) == "No row is published."


def test_the_page_shows_the_published_rows(editions, site):
    rows = editions.entries(store.published().row_folder)
    assert len(rows) == sum(len(store.published().rows(name)) for name in studies.names())
    page = (site / "book" / "editions.html").read_text(encoding="utf-8")
    assert editions.sentence(rows) in page
    for line in editions.table_of(rows):
        assert "".join(f"<td><p>{cell}</p></td>\n" for cell in line) in page
