import json
from pathlib import Path

import pytest

from hbanalysis import studies
from hbanalysis.cli import commands as cli
from hbanalysis.store import Store
from tests.flow_rows import STUDY, command, made_up_row, publish_into

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("HBANALYSIS_STORE", str(tmp_path / "local"))
    return tmp_path


def test_help_names_every_command(capsys: Captured):
    assert cli._run(["--help"]) == 0
    out = capsys.readouterr().out
    for name in (
        "data",
        "run",
        "status",
        "cells",
        "notebook",
        "book",
        "publish",
        "verify",
        "compare",
        "export",
        "store",
    ):
        assert f"  {name} " in out
    assert "130" in out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["run", "spectrum_vs_bach", "--scale", "digits"], "Did you mean 'spectrum_vs_batch'"),
        (["run", STUDY, "--scale", "didgits"], "Did you mean 'digits'"),
        (["run", STUDY, "--scale", "digits", "--set", "batch_size=[1]"], "Did you mean 'batch_sizes'"),
        (["run", STUDY, "--scale", "digits", "--set", "seeds=[a]"], "takes a list[int]"),
        (["run", STUDY, "--scale", "digits", "--set", "network=M7"], "M1"),
        (["run", STUDY, "--scale", "digits", "--set", "dataset=digit"], "Did you mean 'digits'"),
        (["run", STUDY, "--scale", "digits", "--set", "batch_sizes=[100000]"], "100000"),
        (["run", STUDY, "--scale", "digits", "--store", "/dev/null/x"], "cannot be written"),
        (["run", STUDY, "--scale", "digits", "--device", "gpu3"], "is not a device"),
        (["run", STUDY, "--scale", "digits", "--time-budget", "-1"], "must be positive"),
        (["run", STUDY], "scale"),
        (["rnu"], "rnu"),
        (["data", "fetch", "minst"], "mnist"),
        (["notebook", "99_nothing"], "Unknown notebook"),
        (["verify", "00"], "No row is published yet"),
        (["publish"], "--study"),
        (["publish", "--scale", "digits"], "No row of the local store"),
        (["export", "--output", "rows.xlsx"], "rows.csv"),
        (["compare"], "has no row"),
        (["cells", "--scale", "digits", "--set", "seeds=[1]"], "--set goes with one study"),
        (["run", STUDY, "--scale", "digits", "--key", "zz"], "No cell has a key that begins with zz"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(words: list[str], hint: str, capsys: Captured):
    assert cli._run(words) == 2
    err = capsys.readouterr().err
    assert hint in err
    assert "Traceback" not in err


def test_a_process_leaves_with_the_code_and_without_a_traceback():
    process = command("run", "no_such_study", "--scale", "digits")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert "\nerror: Unknown study" in "\n" + err  # some installations of PyTorch warn of what they lack before it
    assert "Traceback" not in err


def test_data_sets_are_listed(capsys: Captured, stores: Path):
    assert cli._run(["data", "list", "--root", str(stores / "data")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["digits", "embedded"]
    assert "not here" in lines[1]
    assert str(stores / "data") in lines[-1]


def test_status_counts_local_published_and_missing(capsys: Captured, stores: Path):
    cells = studies.get(STUDY).cells("digits")
    Store().put(made_up_row(cells[0]))
    Store().put(made_up_row(studies.get(STUDY).cells("tiny")[0]))
    publish_into(stores / "published", [made_up_row(cell) for cell in cells[:2]])
    assert cli._run(["status"]) == 0
    lines = {tuple(line.split()[:2]): line.split()[2:] for line in capsys.readouterr().out.splitlines()}
    assert lines[STUDY, "digits"] == ["9", "1", "2", "7"]
    assert lines[STUDY, "(others)"] == ["1", "0"]


def test_publish_copies_the_chosen_rows_and_changes_nothing_the_second_time(capsys: Captured, stores: Path):
    cells = studies.get(STUDY).cells("digits")[:2]
    for cell in [*cells, studies.get(STUDY).cells("tiny")[0]]:
        Store().put(made_up_row(cell))
    assert cli._run(["publish", "--key", studies.get(STUDY).key(cells[0])[:8]]) == 0
    assert cli._run(["publish", "--study", STUDY]) == 0
    assert cli._run(["publish", "--scale", "digits"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "1", "0"]
    paths = sorted((stores / "published" / STUDY).iterdir())
    assert sorted(path.stem for path in paths) == sorted(studies.get(STUDY).key(cell) for cell in cells)
    assert {"study", "scale", "config", "values", "provenance"} <= set(json.loads(paths[0].read_text()))


def test_a_truncated_row_is_named_with_exit_code_1(capsys: Captured, stores: Path):
    path = Store().put(made_up_row(studies.get(STUDY).cells("digits")[0]))
    path.write_text(path.read_text()[:100])
    assert cli._run(["status"]) == 1
    assert str(path) in capsys.readouterr().err


def test_export_writes_published_rows_and_local_ones_on_request(capsys: Captured, stores: Path):
    cells = studies.get(STUDY).cells("digits")
    publish_into(stores / "published", [made_up_row(cells[0])])
    Store().put(made_up_row(cells[1]))
    assert cli._run(["export", "--output", str(stores / "rows.csv")]) == 0
    alone = (stores / "rows.csv").read_text()
    assert cli._run(["export", "--output", str(stores / "rows.csv"), "--local"]) == 0
    assert len((stores / "rows.csv").read_text()) > len(alone)
    assert (stores / "rows_dictionary.csv").exists()


def test_cells_are_listed_and_computed_one_by_one(capsys: Captured, stores: Path):
    study = studies.get(STUDY)
    first, second = study.cells("tiny")
    assert cli._run(["cells", STUDY, "--scale", "tiny", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["key"] for entry in listed] == [study.key(first), study.key(second)]
    assert listed[0]["label"] == study.label(first) and listed[0]["seconds"] > 0
    assert cli._run(["cells", "--scale", "digits"]) == 0
    out = capsys.readouterr().out
    assert all((name in out) == ("digits" in studies.get(name).scales) for name in studies.names())
    assert cli._run(["run", STUDY, "--scale", "tiny", "--key", study.key(second)[:8], "--workers", "1"]) == 0
    assert [row.key for row in Store(stores / "local").rows(STUDY)] == [study.key(second)]


def test_compare_sets_the_whole_store_beside_the_published_rows(capsys: Captured, stores: Path):
    cells = studies.get(STUDY).cells("digits")[:3]
    local = Store(stores / "local")
    publish_into(stores / "published", [made_up_row(cell) for cell in cells[:2]])
    for cell in cells[1:]:
        local.put(made_up_row(cell))
    assert cli._run(["compare", "--study", STUDY]) == 0
    out = capsys.readouterr().out
    assert "values inside their band" in out and " NO" not in out
    assert f"No published row: {STUDY}, digits: {studies.get(STUDY).label(cells[2])}" in out
    local.put(made_up_row(cells[0], 3.0))
    assert cli._run(["compare"]) == 1
    assert " NO" in capsys.readouterr().out


def test_an_interrupt_anywhere_is_130(monkeypatch: pytest.MonkeyPatch):
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "names", interrupted)
    assert cli._run(["status"]) == 130
