import json

import pytest

from hbanalysis.errors import StoreError
from hbanalysis.tables import audited

CODE = '''"""About.

    >>> twice(2)
    4
"""


def twice(x):
    """Double."""
    text = "# no comment"
    return 2 * x  # quickly
'''


@pytest.fixture
def project(tmp_path):
    """A project with one module and one test in each room, and the report that covers them."""
    for room in audited.ROOMS:
        for top in ("hbanalysis", "tests"):
            (tmp_path / top / room).mkdir(parents=True)
            (tmp_path / top / room / "some.py").write_text(CODE)
    files = {name: audited.digest(tmp_path / name) for name in audited.covered_files(tmp_path)}
    return tmp_path, {"schema": audited.SCHEMA, "files": files}


def test_a_report_holds_until_a_covered_file_changes(project):
    folder, found = project
    assert len(found["files"]) == 2 * len(audited.ROOMS)
    assert audited.stale_files(found, folder) == []
    (folder / "hbanalysis" / "trends.py").write_text("x = 1\n")
    assert audited.stale_files(found, folder) == []
    (folder / "tests" / "eigen" / "some.py").write_text(CODE.replace("2 * x", "3 * x"))
    assert audited.stale_files(found, folder) == ["tests/eigen/some.py"]


def test_files_that_came_or_went_make_it_stale(project):
    folder, found = project
    (folder / "hbanalysis" / "inputs" / "new.py").write_text("")
    (folder / "tests" / "attacks" / "some.py").unlink()
    assert audited.stale_files(found, folder) == ["hbanalysis/inputs/new.py", "tests/attacks/some.py"]


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("  # quickly", "", True),
        ("# quickly", "# slowly", True),
        ("Double.", "Twice as\n\n    much.", True),
        ('    """Double."""\n', "", True),
        ("\n\n\ndef", "\n\n\n\n# Why.\ndef", True),
        ("About.", "Above all.", True),
        (">>> twice(2)\n    4", ">>> twice(3)\n    6", False),
        ("    4\n", "    5\n", False),
        ("# no comment", "# a comment", False),
        ("2 * x", "x * 2", False),
        ("def twice(x)", "def twice(x, y=0)", False),
    ],
)
def test_digests_are_of_what_runs(tmp_path, old, new, same):
    assert CODE.count(old) == 1
    before, after = tmp_path / "before.py", tmp_path / "after.py"
    before.write_text(CODE)
    after.write_text(CODE.replace(old, new))
    assert (audited.digest(before) == audited.digest(after)) is same


@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "make audit"), ("{", "make audit"), ('{"schema": 7}', "schema 7"), ("[]", "schema list")],
)
def test_reports_that_cannot_be_read_are_named(tmp_path, content, why):
    path = tmp_path / "report.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StoreError, match=why):
        audited.report(path)


def test_tables_say_what_the_report_says():
    survivor = {"kind": "cost", "why": "Only slower."}
    counts = {"killed": 6, "crashed": 1, "timeout": 2, "survived": 1, "unreached": 0, "tried": 10, "mutants": 2000}
    room = {**counts, "interval": [0.555, 0.9975], "survivors": [survivor]}
    found = json.loads(json.dumps({"mutation": {"rooms": {"eigen": room}}}))
    assert audited.rooms(found).to_dict("records") == [
        {
            "room": "`eigen`",
            "mutants": "2,000",
            "tried": "10",
            "killed by a test": "7",
            "never came to an end": "2",
            "survived": "1",
            "killed, %": "90.0 (55.5 to 99.8)",
        }
    ]
    assert audited.kinds(found).to_dict("records") == [{"reason": audited.KINDS["cost"], "survivors": "1"}]
