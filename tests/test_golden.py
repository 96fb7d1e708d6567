"""Measuring code gives the golden values; whoever moves them raises the revision of the studies that rest on them."""

import json

import pytest

from hbanalysis import studies
from tests import golden

STORED = json.loads(golden.FILE.read_text())


@pytest.mark.survives("Determinism")
@pytest.mark.parametrize("group", golden.GROUPS)
def test_golden_values_hold_to_1e_8(group):
    """Spectra, input spectra and attacks of a committed network are what they were, to 1e-8 in float64."""
    names = golden.moved(STORED[group]["values"], golden.GROUPS[group][0]())
    assert not names, (
        f"{names} moved: raise the revisions of {golden.GROUPS[group][1]}, then run python -m tests.golden"
    )


@pytest.mark.survives("Determinism")
@pytest.mark.parametrize("group", golden.GROUPS)
def test_golden_values_belong_to_the_revisions_of_now(group):
    """Every study's revision is the one whose golden values are committed: neither moves without the other."""
    now = {name: studies.get(name).revision for name in golden.GROUPS[group][1]}
    assert STORED[group]["revisions"] == now, "run python -m tests.golden"


def test_every_study_rests_on_golden_values():
    assert {name for _, names in golden.GROUPS.values() for name in names} == set(studies.names())


@pytest.mark.parametrize(
    ("new", "names"),
    [
        ({"a": [1.0, 2.0 + 1e-9]}, []),
        ({"a": [1.0, 2.0 + 1e-7]}, ["a"]),
        ({"a": [1.0]}, ["a"]),
        ({"a": [1.0, 2.0], "b": [0.0]}, ["b"]),
    ],
)
def test_what_moved_is_named(new, names):
    assert golden.moved({"a": [1.0, 2.0]}, new) == names


@pytest.mark.survives("Determinism")
def test_moved_values_are_not_written_before_the_revision_is_raised(monkeypatch, tmp_path):
    """Golden values that moved are not written until every study that rests on them has a higher revision, which
    takes its old rows out of use."""
    file = tmp_path / "golden.json"
    monkeypatch.setattr(golden, "FILE", file)
    values = {"FGSM": [1.0]}
    monkeypatch.setattr(golden, "GROUPS", {"attacks": (lambda: values, ("attack_readings",))})
    golden.write()
    values["FGSM"] = [1.1]
    with pytest.raises(SystemExit, match="FGSM moved; raise the revision of attack_readings"):
        golden.write()
    assert json.loads(file.read_text())["attacks"]["values"] == {"FGSM": [1.0]}
    study = studies.get("attack_readings")
    monkeypatch.setattr(type(study), "revision", study.revision + 1)
    golden.write()
    assert json.loads(file.read_text())["attacks"]["values"] == {"FGSM": [1.1]}
