"""The committed report of `make audit`: complete, explained, and good enough."""

import pytest

from hbanalysis.tables import audited


@pytest.fixture(scope="module")
def committed():
    return audited.report()


def test_the_committed_report_adds_up(committed):
    assert set(committed) == {"schema", "files", "mutation", "coverage", "memory", "weaknesses"}
    assert list(committed["mutation"]["rooms"]) == list(audited.ROOMS)
    for counts in committed["mutation"]["rooms"].values():
        parts = [counts[status] for status in ("killed", "crashed", "timeout", "survived", "unreached")]
        assert sum(parts) == counts["tried"] <= counts["mutants"]
        assert len(counts["survivors"]) == counts["survived"] + counts["unreached"]
        low, high = counts["interval"]
        assert 0 <= low <= audited.share(counts) <= high <= 1
    for part in ("mutation", "coverage", "memory", "weaknesses"):
        assert committed[part] is None or {"date", "commit", "versions"} <= set(committed[part])


def test_every_survivor_has_a_reason(committed):
    for one in audited.survivors(committed):
        assert one["kind"] in audited.KINDS
        assert len(one["why"].split()) >= 4, one
        assert one["before"] != one["after"]
        assert one["line"] >= 1
        assert one["file"] in committed["files"]


def test_no_weakness_of_a_pinned_package_was_known(committed):
    found = committed["weaknesses"]
    assert found is None or (found["known"] == [] and found["asked"] >= found["answered"])


def test_enough_is_noticed_reached_and_flat(committed):
    for room, counts in committed["mutation"]["rooms"].items():
        assert counts["tried"] >= 150, room
        assert audited.share(counts) >= 0.85, room
    if committed["coverage"]:
        (lines, all_lines), (branches, all_branches) = (committed["coverage"][part] for part in ("lines", "branches"))
        assert lines / all_lines >= 0.95
        assert branches / all_branches >= 0.90
    runs = committed["memory"]["runs"]
    assert {run["unit"]: run["count"] for run in runs.values()} == {"product": 1000, "epoch": 200}
    for name, run in runs.items():
        assert len(run["resident_mb"]) == 10, name
        assert run["growth_mb"] < 20, name
