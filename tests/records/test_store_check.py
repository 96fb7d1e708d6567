"""`hbanalysis store verify`: every damaged file of a store is named, and no other."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hbanalysis import checkpoints, data, data_files, studies, training
from hbanalysis.cli import commands as cli
from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import digest
from hbanalysis.records import store_check
from hbanalysis.store import Row, Store, published, row_key
from tests import faults
from tests.flow_rows import STUDY

CELL = faults.cells()[0]
KEY, TRAINING = studies.get(STUDY).key(CELL), CELL.training.key
ROW = f"rows/{STUDY}/{KEY}.json"
RECORD = f"checkpoints/{TRAINING}/{training.RECORD}"
END = f"checkpoints/{TRAINING}/{training.EPOCH_END}.safetensors"
STATE = f"checkpoints/{'e' * 20}/{training.RESUME}"
PHASES = f"work/{'f' * 20}/{store_check.PHASES}"
VECTOR = f"work/{'f' * 20}/direction.safetensors"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two computed cells, an interrupted training and an unfinished cell."""
    copy = shutil.copytree(faults.undisturbed()[0], tmp_path / "store")
    checkpoints.save(copy / STATE, {"total": torch.ones(20)}, {"record": {}, "place": {"epoch": 1}}, sealed=True)
    checkpoints.save(copy / VECTOR, {"v1": torch.ones(20)})
    (copy / PHASES).write_text(json.dumps({"results": {"evaluation": 1.0}, "seconds": {}, "cpu_seconds": 1.0}))
    return copy


def edited(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return edit


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change the last bit of the last byte, deep in the numbers of a checkpoint."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_weights(path: Path) -> None:
    """A complete checkpoint of the same network with other weights."""
    tensors, _ = checkpoints.load(path)
    checkpoints.save(path, {name: tensor + 1 for name, tensor in tensors.items()})


def test_a_sound_store_is_sound(root: Path, capsys: pytest.CaptureFixture[str]):
    report = store_check.check(Store(root))
    assert (report.damaged, report.notes, report.exit_code) == ({}, {}, 0)
    assert report.checked == {"rows": 2, "checkpoints": 7, "files of unfinished work": 2}
    assert cli._run(["store", "verify", "--store", str(root)]) == 0
    assert "2 rows, 7 checkpoints, 2 files of unfinished work" in capsys.readouterr().out


@pytest.mark.survives("Damaged files")
@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        pytest.param(ROW, cut, "not a complete row", id="row truncated"),
        pytest.param(ROW, lambda path: path.write_bytes(b"\xff\xfe\0"), "Cannot read", id="row of bytes"),
        pytest.param(ROW, edited('"epochs": ', '"epochs": 1'), "checksum does not fit", id="row: value edited"),
        pytest.param(ROW, edited('"threads": 1', '"threads": 2'), "checksum does not fit", id="row: origin edited"),
        pytest.param(ROW, edited('"scale": "', '"scale": "p'), "checksum does not fit", id="row: label edited"),
        pytest.param(ROW, edited('"seed": 0', '"seed": 1'), "does not fit its configuration", id="row: cell edited"),
        pytest.param(ROW, edited('"schema": 2', '"schema": 3'), "schema 3; this version reads", id="row: new schema"),
        pytest.param(ROW, edited('"schema": 2', '"schema": "2"'), "has row schema '2'", id="row: odd schema"),
        pytest.param(END, cut, "SHA-256", id="checkpoint truncated"),
        pytest.param(END, flip, "its record says", id="checkpoint: one bit"),
        pytest.param(END, other_weights, "its record says", id="checkpoint: other weights"),
        pytest.param(END, Path.unlink, "missing", id="checkpoint missing"),
        pytest.param(RECORD, cut, "Cannot read", id="record truncated"),
        pytest.param(RECORD, edited('"steps": ', '"steps": 1'), "it was edited", id="record edited"),
        pytest.param(RECORD, lambda path: path.write_text("[]"), "Cannot read", id="record foreign"),
        pytest.param(STATE, cut, "Cannot read the checkpoint", id="state truncated"),
        pytest.param(STATE, flip, "does not fit its checksum", id="state: one bit"),
        pytest.param(VECTOR, cut, "Cannot read the checkpoint", id="vector truncated"),
        pytest.param(PHASES, cut, "not complete", id="phases truncated"),
        pytest.param(PHASES, lambda path: path.write_text("[]"), "foreign", id="phases foreign"),
    ],
)
def test_damage_is_named(
    name: str, damage: Callable[[Path], object], why: str, root: Path, capsys: pytest.CaptureFixture[str]
):
    """Rows, checkpoints, records of trainings and unfinished work that were truncated, edited down to one bit, lost,
    replaced, or are of an unknown schema: `hbanalysis store verify` names each such file, and no other, with code 1."""
    damage(root / name)
    report = store_check.check(Store(root))
    assert list(report.damaged) == [root / name]
    assert why in report.damaged[root / name]
    assert cli._run(["store", "verify", "--store", str(root)]) == 1
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if line.startswith("DAMAGED"))
    assert str(root / name) in line and why in line


@pytest.mark.survives("Damaged files")
@pytest.mark.parametrize(
    ("source", "target", "why"),
    [
        (ROW, f"rows/{STUDY}/{'0' * 20}.json", "moved or renamed"),
        (ROW, f"rows/input_curvature/{KEY}.json", "moved or renamed"),
        (f"checkpoints/{TRAINING}", f"checkpoints/{'0' * 20}", "moved or renamed"),
        (END, f"checkpoints/{TRAINING}/loss-0.5.safetensors", "foreign"),
    ],
)
def test_what_lies_in_another_place_is_named(source: str, target: str, why: str, root: Path):
    """Rows and checkpoints that were moved or renamed do not pass for others: their content names its own key."""
    (root / target).parent.mkdir(exist_ok=True)
    (root / source).rename(root / target)
    assert any(why in reason for reason in store_check.check(Store(root)).damaged.values())


@pytest.mark.survives("Damaged files")
@pytest.mark.parametrize(
    "name",
    ["stranger.txt", "rows/x.json", f"rows/{STUDY}/x.txt", f"checkpoints/{TRAINING}/a.pt", "work/x", "locks/k.txt"],
)
def test_foreign_files_are_named(name: str, root: Path):
    """Files that nothing here writes, anywhere in a store, are named."""
    (root / name).write_text("foreign")
    assert list(store_check.check(Store(root)).damaged) == [root / name]


def test_rows_of_no_study_or_cell_of_this_version_are_named(root: Path):
    config = studies.get(STUDY).config(CELL)
    strange = [
        ("no_such_study", 1, config, "of no study of this version"),
        (STUDY, 1, {"training": {}}, "no configuration of"),
        (STUDY, 99, config, "is of revision 99"),
    ]
    for study, revision, body, why in strange:
        row = Row(study, "digits", revision, row_key(study, revision, body), body, {}, {})
        path = Store(root).put(row)
        assert why in store_check.check(Store(root)).damaged[path]
        path.unlink()


@pytest.mark.survives("Damaged files")
def test_any_changed_byte_of_a_row_or_checkpoint(root: Path):
    """One byte changed at random, 150 times, in rows, checkpoints, records and states: each time the file is named, or
    reads exactly as before (a tab in place of a space)."""

    def content(name: str) -> object:
        if name == ROW:
            return Store(root).get(STUDY, KEY)
        if name == RECORD:
            return training.load_record((root / RECORD).parent)
        tensors, notes = checkpoints.load(root / name)
        return {tensor: values.tolist() for tensor, values in tensors.items()}, notes

    names = [ROW, RECORD, END, STATE]
    before, found = {name: content(name) for name in names}, 0
    for number in range(150):
        name = names[number % len(names)]
        whole = (root / name).read_bytes()
        place, change = random.randrange(len(whole)), random.randrange(1, 256)
        (root / name).write_bytes(whole[:place] + bytes([whole[place] ^ change]) + whole[place + 1 :])
        damaged = store_check.check(Store(root)).damaged
        if damaged:
            assert root / name in damaged
            found += 1
        else:
            assert name != END and content(name) == before[name], f"byte {place} of {name} changed by {change}"
        (root / name).write_bytes(whole)
    assert found > 75


@pytest.mark.survives("Damaged files")
def test_a_damaged_checkpoint_is_not_used(root: Path):
    """A checkpoint that does not fit its record is refused when a study asks for the finished training, too."""
    flip(root / END)
    Store(root).path(STUDY, KEY).unlink()
    said = faults.error_of(faults.compute_all, str(root))
    assert said.startswith("StoreError") and str(root / END) in said and "Delete" in said


def test_a_damaged_or_foreign_state_is_not_resumed(tmp_path: Path):
    samples = data.load("digits", samples=CELL.training.samples)
    path = tmp_path / training.RESUME
    checkpoints.save(path, {"total": torch.zeros(())}, {"record": {}, "place": {}}, sealed=True)
    with pytest.raises(StoreError, match="is no state of this training"):
        training.train(CELL.training, samples, tmp_path)
    flip(path)
    with pytest.raises(StoreError, match="does not fit its checksum"):
        training.train(CELL.training, samples, tmp_path)


def test_what_is_no_damage_is_noted(root: Path):
    old = Store(root).get(STUDY, KEY)
    assert old is not None
    (root / ROW).write_text(old.to_json(schema=1))
    record = json.loads((root / RECORD).read_text())
    del record["sha256"]
    (root / RECORD).write_text(json.dumps(record))
    left = root / "rows" / STUDY / ".x.json.ab.part"
    left.write_text("half")
    report = store_check.check(Store(root))
    assert (report.exit_code, set(report.notes)) == (0, {root / ROW, root / RECORD, left})
    shutil.rmtree(root / "checkpoints")
    assert "not in this store" in store_check.check(Store(root)).notes[Store(root).path(STUDY, keys()[1])]


def keys() -> list[str]:
    return [studies.get(STUDY).key(cell) for cell in faults.cells()]


def test_data_files_are_checked(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = data_files.files("CIFAR10", tmp_path)[0]
    file.path.parent.mkdir()
    file.path.write_bytes(b"short")
    assert cli._run(["store", "verify", "--store", str(root), "--root", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"DAMAGED {file.path}: MD5" in out and "1 files of data sets" in out


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert cli._run(["store", "verify", "--store", str(tmp_path / "none")]) == 2
    assert f"There is no folder {tmp_path / 'none'}" in capsys.readouterr().err
    with pytest.raises(InputError):
        store_check.check(Store(tmp_path), tmp_path / "none")


@pytest.mark.survives("Damaged files")
def test_published_rows_are_sound():
    """Every published row of this book has a checksum that fits, a key that fits its configuration, and a study and
    cell that this version knows."""
    report = store_check.check(published())
    assert report.checked["rows"] == len(published().rows())
    assert report.damaged == {}
    unsealed = [path.name for path, note in report.notes.items() if "schema 1" in note]
    assert unsealed == [], (
        "write them anew: from hbanalysis.store import publish, published; publish(published().rows())"
    )


def test_a_checksum_that_was_made_to_fit_still_needs_the_key(root: Path):
    body = json.loads((root / ROW).read_text())
    del body["sha256"], body["schema"]
    body["config"]["training"]["seed"] = 5
    (root / ROW).write_text(json.dumps({**body, "schema": 2, "sha256": digest(body)}))
    assert "does not fit its configuration" in store_check.check(Store(root)).damaged[root / ROW]
