"""Rows on disk: atomic, checked, found by key; published rows written by publish alone."""

import json
import os
from dataclasses import replace

import pytest

from hbanalysis import store
from hbanalysis.errors import InputError, StoreError
from hbanalysis.store import PublishedRows, Row, Store, publish, row_key


def row(scale="digits", seed=0, study="s", **values):
    config = {"training": {"seed": seed}}
    return Row(study, scale, 1, row_key(study, 1, config), config, {"x": 0.5, **values}, {"device": "cpu"})


def test_a_row_comes_back_as_it_was(tmp_path):
    box = Store(tmp_path)
    path = box.put(row())
    assert box.has("s", row().key)
    back = box.get("s", row().key)
    assert back == row() and back.origin == "here"
    assert json.loads(path.read_text())["schema"] == store.SCHEMA
    assert box.get("s", "0" * 20) is None


def test_rows_are_listed_by_study_and_key(tmp_path):
    box = Store(tmp_path)
    written = [row(seed=1), row(seed=2), row(study="t")]
    for r in written:
        box.put(r)
    assert [r.key for r in box.rows("s")] == sorted(r.key for r in written[:2])
    assert len(box.rows()) == 3


def test_key_depends_on_study_revision_and_configuration_not_on_scale_or_order():
    assert row_key("s", 1, {"a": 1, "b": 2}) == row_key("s", 1, {"b": 2, "a": 1})
    keys = {row_key("s", 1, {"a": 1}), row_key("t", 1, {"a": 1}), row_key("s", 2, {"a": 1}), row_key("s", 1, {"a": 2})}
    assert len(keys) == 4
    assert row(scale="digits").key == row(scale="custom").key


def test_finite_replaces_what_json_has_no_number_for():
    assert store.finite({"a": [1.0, float("nan")], "b": (float("inf"), 2)}) == {"a": [1.0, None], "b": [None, 2]}
    with pytest.raises(StoreError, match="not finite"):
        row(x=float("nan")).to_json()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a complete row"),
        (lambda text: "", "not a complete row"),
        (lambda text: text.replace('"schema": 2', '"schema": 99'), "row schema 99; this version reads schemas 1 and 2"),
        (lambda text: text.replace('"schema": 2', '"schema": true'), "row schema True"),
        (lambda text: "[1, 2]", "row schema 'list'"),
        (lambda text: text.replace('"values"', '"valves"'), "lacks values"),
        (lambda text: text.replace('"seed": 0', '"seed": 7'), "does not fit its configuration"),
        (lambda text: text.replace('"x": 0.5', '"x": 0.6'), "checksum does not fit"),
        (lambda text: text.replace('"device": "cpu"', '"device": "cuda"'), "checksum does not fit"),
        (lambda text: text.replace('"sha256"', '"sha255"'), "lacks sha256"),
        (lambda text: text.replace('"x": 0.5', '"x": NaN'), "NaN is not finite"),
        (lambda text: text.replace('"x": 0.5', '"x": 1e999'), "1e999 is not finite"),
        (lambda text: text.replace('"revision": 1', '"revision": "1"'), "revision must be int, and is str"),
        (lambda text: "[" * 100_000, "not a complete row"),
    ],
)
@pytest.mark.survives("Damaged files")
def test_damaged_rows_are_named(tmp_path, damage, message):
    """A truncated, empty, edited or foreign row, one of an unknown schema version, one whose key, configuration or
    checksum do not fit each other, one with a number that is not finite: refused with the name of its file and why."""
    box = Store(tmp_path)
    path = box.put(row())
    path.write_text(damage(path.read_text()))
    with pytest.raises(StoreError, match=message) as caught:
        box.get("s", row().key)
    assert str(path) in str(caught.value)
    with pytest.raises(StoreError):
        box.rows()


@pytest.mark.survives("Versions and dependencies")
def test_a_row_of_schema_1_is_read_and_has_the_same_key(tmp_path):
    """Rows of the first schema, which had no checksum, are still read and keep their keys."""
    box = Store(tmp_path)
    old = json.loads(row().to_json(schema=1))
    assert old["schema"] == 1 and "sha256" not in old
    box.put(row()).write_text(json.dumps(old))
    assert box.get("s", row().key) == row()


def test_a_renamed_row_is_named(tmp_path):
    box = Store(tmp_path)
    path = box.put(row())
    path.rename(path.with_name("f" * 20 + ".json"))
    with pytest.raises(StoreError, match="moved or renamed"):
        box.get("s", "f" * 20)


def test_a_failed_write_leaves_the_old_row_and_no_litter(tmp_path, monkeypatch):
    box = Store(tmp_path)
    path = box.put(row(x=1.0))
    old = path.read_text()
    monkeypatch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(StoreError, match="disk full"):
        box.put(row(x=2.0))
    assert path.read_text() == old
    assert list(path.parent.iterdir()) == [path]


def test_an_unwritable_store_says_what_to_try(tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="Choose a folder with --store or HBANALYSIS_STORE"):
        Store(tmp_path / "blocked").put(row())


def test_root_goes_by_argument_then_variable_then_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(store.STORE_VARIABLE, raising=False)
    assert Store().root == tmp_path / "hbanalysis" / "store"
    monkeypatch.setenv(store.STORE_VARIABLE, str(tmp_path / "mine"))
    assert Store().root == tmp_path / "mine"
    assert Store(tmp_path / "other").root == tmp_path / "other"


def test_only_publish_writes_published_rows(tmp_path):
    book = PublishedRows(tmp_path)
    with pytest.raises(StoreError, match="hbanalysis publish"):
        book.put(row())
    (path,) = publish([row()], tmp_path)
    assert path == tmp_path / "s" / f"{row().key}.json"
    assert book.get("s", row().key).origin == "published"


def test_rows_made_for_tests_are_not_published(tmp_path):
    with pytest.raises(InputError, match="tiny"):
        publish([row(), replace(row(seed=3), scale="tiny")], tmp_path)
    assert not any(tmp_path.iterdir())
