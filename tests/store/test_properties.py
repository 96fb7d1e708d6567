"""Rows with any names and values, from any number of writers: as they were, or refused."""

import math
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hbanalysis import store
from hbanalysis.errors import InputError, StoreError
from hbanalysis.store import Row, Store, row_key

SEARCH = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(max_size=12)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), TEXT)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=25,
)
TABLES = st.dictionaries(TEXT, JSON, max_size=4)


def without_numbers_that_are_none(data: object) -> bool:
    if isinstance(data, float):
        return math.isfinite(data)
    inner = data.values() if isinstance(data, dict) else data if isinstance(data, list) else []
    return all(map(without_numbers_that_are_none, inner))


def row(config: dict, values: dict, study: str = "any_study", provenance: dict | None = None) -> Row:
    return Row(study, "digits", 1, row_key(study, 1, config), config, values, provenance or {})


@SEARCH
@given(config=TABLES, values=TABLES, provenance=TABLES)
@pytest.mark.survives("Input that nobody chose")
def test_a_row_comes_back_as_it_was_or_is_not_written(config: dict, values: dict, provenance: dict, tmp_path: Path):
    """Rows with any nested values, any letters in names and texts, numbers of any size, infinities: each comes back
    equal, or is refused because a number is not finite and leaves no file; `null` in their place is accepted."""
    if not without_numbers_that_are_none(config):
        with pytest.raises(ValueError):
            row_key("any_study", 1, config)
        config = store.finite(config)
    box, given_row = Store(tmp_path), row(config, values, provenance=provenance)
    path = box.path("any_study", given_row.key)
    path.unlink(missing_ok=True)
    if not (without_numbers_that_are_none(values) and without_numbers_that_are_none(provenance)):
        with pytest.raises(StoreError, match="not finite"):
            box.put(given_row)
        assert not path.exists()
        given_row = row(config, store.finite(values), provenance=store.finite(provenance))
    assert box.put(given_row) == path
    back = box.get("any_study", given_row.key)
    assert back == given_row
    # JSON tells 1, 1.0 and true apart, which Python's == does not.
    assert back.to_json() == given_row.to_json()
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


@SEARCH
@given(name=st.one_of(TEXT, st.from_regex(r"[A-Za-z0-9_./\\-]{0,110}", fullmatch=True)))
@example(name="..")
@example(name="a" * 101)
@example(name="a\n")
@example(name="ｅ")  # a letter that some file systems take for e
def test_names_stay_inside_the_store_or_are_refused(name: str, tmp_path: Path):
    box = Store(tmp_path)
    plain = 0 < len(name) <= 100 and name.isascii() and all(c.isalnum() or c in "_-" for c in name)
    plain = plain and name[0].isalnum()
    for place in (lambda: box.path(name, "k"), lambda: box.path("s", name), lambda: box.work_folder(name)):
        if plain:
            assert place().resolve().is_relative_to(tmp_path.resolve()) and place().relative_to(tmp_path).parts
        else:
            with pytest.raises(InputError, match="could lead out of the store"):
                place()


@settings(max_examples=8, deadline=None)
@given(
    seeds=st.lists(st.integers(0, 30), min_size=2, max_size=6, unique=True),
    versions=st.lists(TEXT, min_size=2, max_size=4, unique=True),
    data=st.data(),
)
@pytest.mark.survives("Several processes at once")
def test_writers_of_the_same_rows_at_once(seeds, versions, data, tmp_path_factory):
    """Two to four writers of the same keys at once, each with values of its own and in an order of its own, and a
    reader beside them: every row that is read is one that was written, whole."""
    box = Store(tmp_path_factory.mktemp("store"))
    orders = [data.draw(st.permutations(seeds)) for _ in versions]
    failures: list[BaseException] = []
    done = threading.Event()

    def write(version: str, order: list[int]) -> None:
        try:
            for seed in order * 3:
                box.put(row({"seed": seed}, {"version": version, "seed": seed}))
        except BaseException as error:
            failures.append(error)

    def read() -> None:
        try:
            while not done.is_set():
                for found in box.rows():
                    assert found.values["version"] in versions and found.values["seed"] == found.config["seed"]
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=pair) for pair in zip(versions, orders, strict=True)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert failures == []
    assert {found.config["seed"] for found in box.rows()} == set(seeds)
    assert all(found.values["version"] in versions for found in box.rows())
    assert len(list(box.row_folder.rglob("*"))) == len(seeds) + 1  # the study's folder; nothing half-written
