"""Rows and checkpoints travel in one file, whole or not at all, and into a store only."""

import io
import json
import tarfile

import pytest

from hbanalysis import studies
from hbanalysis.cli import commands as cli
from hbanalysis.errors import InputError, StoreError
from hbanalysis.files import digest
from hbanalysis.records import archive
from hbanalysis.running.worker import compute_cell
from hbanalysis.store import Store
from tests.flow_rows import STUDY, tiny_store


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "rows.tar"
    return path, archive.write(path, tiny_store(), tiny_store().rows())


def _rewritten(path, change):
    """The same archive with its members changed."""
    with tarfile.open(path) as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}
    change(members)
    other = path.with_name("changed.tar")
    with tarfile.open(other, "w") as tar:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return other


def test_a_store_can_be_rebuilt_without_training(packed, tmp_path):
    path, written = packed
    store = Store(tmp_path / "other place")
    found = archive.read(path, store, written.sha256[:12])
    assert found == written and found.checkpoints == 2
    assert sorted(row.key for row in store.rows()) == sorted(row.key for row in tiny_store().rows())
    study, first = studies.get(STUDY), store.rows()[0]
    store.path(first.study, first.key).unlink()
    phases = []
    again, computed = compute_cell(
        study, study.from_config(first.config), store, device="cpu", progress=lambda phase, done: phases.append(phase)
    )
    assert computed and "training" not in phases
    assert again.values["at_target"]["loss_train"] == first.values["at_target"]["loss_train"]


def test_what_is_there_stays(packed, tmp_path):
    path, _ = packed
    store = Store(tmp_path / "store")
    archive.read(path, store)
    before = {file: file.stat().st_mtime_ns for file in store.root.rglob("*") if file.is_file()}
    archive.read(path, store)
    assert {file: file.stat().st_mtime_ns for file in store.root.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("name", ["../outside.json", "/etc/passwd", "rows/../../x.json", "checkpoints/ab/x.pt"])
@pytest.mark.survives("Paths that lead out of the store")
def test_names_that_leave_the_store_are_refused(packed, tmp_path, name):
    """A member of an archive whose name leads out of the store, or is that of no file in one, is refused by name
    before anything is written."""

    def add(members):
        manifest = json.loads(members[archive.MANIFEST])
        manifest["sha256"][name] = digest("x")
        members[archive.MANIFEST] = json.dumps(manifest).encode()
        members[name] = b"x"

    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match="no place in a store"):
        archive.read(_rewritten(packed[0], add), store)
    assert not store.root.exists()


@pytest.mark.survives("Damaged files")
def test_damage_is_named_and_nothing_is_written(packed, tmp_path):
    """Archives with a changed row, a lost member, an unknown format or no manifest are refused by name, and nothing
    is unpacked."""
    path, written = packed
    store = Store(tmp_path / "store")
    row = f"rows/{STUDY}/{written.rows[0].key}.json"

    def edit(members):
        members[row] = members[row].replace(b"0.5", b"0.6", 1)

    def lose(members):
        del members[row]

    def later(members):
        members[archive.MANIFEST] = members[archive.MANIFEST].replace(b'"format": 1', b'"format": 7')

    def no_manifest(members):
        del members[archive.MANIFEST]

    for change, said in (
        (edit, "is damaged"),
        (lose, "lacks rows"),
        (later, "archive format 7"),
        (no_manifest, "does not begin with"),
    ):
        with pytest.raises(StoreError, match=said):
            archive.read(_rewritten(path, change), store)
    cut = path.with_name("cut.tar")
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StoreError, match=r"damaged|not a complete archive|lacks"):
        archive.read(cut, store)
    assert not store.root.exists()


def test_another_file_is_not_taken_for_the_one_asked_for(packed, tmp_path):
    with pytest.raises(InputError, match="SHA-256"):
        archive.read(packed[0], Store(tmp_path / "store"), "0" * 64)
    with pytest.raises(InputError, match="no file"):
        archive.read(tmp_path / "missing.tar", Store(tmp_path / "store"))


def test_rows_without_their_checkpoints_are_not_packed(tmp_path):
    store = Store(tmp_path / "store")
    store.put(tiny_store().rows()[0])
    with pytest.raises(StoreError, match="no finished training"):
        archive.write(tmp_path / "rows.tar", store, store.rows())
    with pytest.raises(InputError, match="nothing to put"):
        archive.write(tmp_path / "rows.tar", store, [])
    assert not (tmp_path / "rows.tar").exists()


def test_the_commands(tmp_path, capsys):
    target, here = str(tmp_path / "rows.tar"), str(tiny_store().root)
    assert cli._run(["archive", "write", target, "--store", here]) == 0
    written = capsys.readouterr().out
    assert cli._run(["archive", "read", target, "--store", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out == written and "2 rows, 2 trainings, sha256" in written
    assert cli._run(["archive", "write", target, "--store", here, "--scale", "paper"]) == 2


def test_a_robust_family_rests_on_all_its_trainings():
    study = studies.get("adversarial_training")
    (cell,) = study.cells("tiny")
    assert len(set(study.trainings(cell))) == 7
    spectra = studies.get("robust_spectrum")
    assert [len(spectra.trainings(one)) for one in spectra.cells("tiny")] == [1, 2]
