from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hbanalysis import studies
from hbanalysis.errors import InputError
from hbanalysis.publishing import pages
from hbanalysis.store import Store
from tests.flow_rows import STUDY, made_up_row, publish_into

PUBLISHED = {"scale": "published", "device": None, "batch_sizes": None, "seeds": None, "use_published": True}


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Published: all digits cells and one of MNIST. Local: digits B=16 seed 0, with larger eigenvalues."""
    study = studies.get(STUDY)
    digits = study.cells("digits")
    publish_into(tmp_path / "published", [made_up_row(cell) for cell in [*digits, study.cells("mnist")[0]]])
    Store(tmp_path / "local").put(made_up_row(digits[0], 1.5))
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path / "published"))
    monkeypatch.setenv("HBANALYSIS_STORE", str(tmp_path / "local"))
    return tmp_path


def test_published_shows_every_published_row_largest_scale_first_and_what_is_missing(stores: Path):
    page = pages.start(STUDY, PUBLISHED)
    assert [row.scale for row in page.rows] == ["paper"] + 9 * ["digits"]
    assert {row.origin for row in page.rows} == {"published"}
    known = {row.key for row in page.rows}
    study = studies.get(STUDY)
    scales = [study.scale_of(cell) for cell in page.missing]
    assert scales == sorted(scales, key=["paper", "small", "mnist", "digits"].index)
    assert known.isdisjoint(study.key(cell) for cell in page.missing)
    frame = page.missing_frame()
    assert frame["cells not yet run"].sum() == len(page.missing)
    assert [len(seeds.split(", ")) for seeds in frame["seeds"]] == frame["cells not yet run"].tolist()
    assert not frame.duplicated(["scale", "cell"]).any()
    assert page.comparison().empty
    assert "digits: 9 published" in page.summary()
    assert "not yet run" in page.summary()


def test_a_computed_scale_takes_local_rows_first_then_published_ones(stores: Path):
    page = pages.start(STUDY, PUBLISHED | {"scale": "digits", "seeds": [0, 1]})
    assert [row.origin for row in page.rows] == ["here"] + 5 * ["published"]
    assert page.missing == []
    assert len(page.published) == 6
    compared = page.comparison().set_index("quantity")
    assert compared.loc["at_target.lambda1_train", "ratio"] == 1.5
    assert compared.loc["at_target.lambda1_train", "inside"]


def test_without_published_rows_what_is_lacking_is_computed_and_said(
    stores: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked = []

    def compute(study, cell, store, device=None):
        asked.append(study.label(cell))
        return made_up_row(cell), True

    monkeypatch.setattr(pages, "compute_cell", compute)
    page = pages.start(STUDY, PUBLISHED | {"scale": "digits", "seeds": [0], "use_published": False})
    assert len(asked) == 2
    assert [row.origin for row in page.rows] == 3 * ["here"]
    assert capsys.readouterr().out.count("computed here: ") == 2


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        ({"batch_size": [32]}, "Did you mean 'batch_sizes'"),
        ({"scael": "digits"}, "Did you mean 'scale'"),
        ({"unheard_of": 3}, "Unknown parameter"),
        ({"seeds": [0.5]}, "takes a list"),
        ({"seeds": 7}, "takes a list"),
        ({"use_published": "no"}, "takes a bool"),
        ({"device": 0}, "takes a str"),
        ({"scale": "didgits"}, "Did you mean 'digits'"),
        ({"seeds": [7]}, "scale='published' shows every published row"),
    ],
)
def test_wrong_parameters_are_refused(stores: Path, wrong: dict, hint: str):
    with pytest.raises(InputError, match=hint):
        pages.start(STUDY, PUBLISHED | wrong)


def test_names_that_ipython_or_imports_put_there_are_no_parameters(stores: Path):
    namespace = PUBLISHED | {
        "In": ["", "x"],
        "Out": {},
        "exit": object(),
        "quit": object(),
        "open": open,
        "get_ipython": lambda: None,
        "_": 3,
        "__name__": "__main__",
        "_i1": "x",
        "pages": pages,
        "Path": Path,
        "np": np,
        "measured": pages.start,
    }
    assert pages.start(STUDY, namespace).scale == "published"


def test_cells_run_again_may_find_what_later_cells_defined(stores: Path):
    page = pages.start(STUDY, PUBLISHED)
    again = PUBLISHED | {"page": page, "count": 3, "frame": page.frame()}
    assert pages.start(STUDY, again).scale == "published"
    with pytest.raises(InputError, match="batch_sizes"):
        pages.start(STUDY, again | {"batch_size": [32]})


def digest(rows: list, figures: dict, capsys: pytest.CaptureFixture[str]) -> str:
    pages.Page(studies.get(STUDY), "published", rows, rows).digest(figures)
    return capsys.readouterr().out


def test_the_digest_changes_with_a_row_and_with_a_plotted_number(capsys: pytest.CaptureFixture[str]):
    cells = studies.get(STUDY).cells("digits")[:2]
    rows = [made_up_row(cell) for cell in cells]
    figure = pd.DataFrame({"batch_size": [16, 64], "lambda1": [0.16, 0.64]})
    before = digest(rows, {"spectra": figure}, capsys)
    assert before == digest(rows[::-1], {"spectra": figure.copy()}, capsys)
    row_changed = digest([rows[0], made_up_row(cells[1], 1.001)], {"spectra": figure}, capsys)
    number_changed = digest(rows, {"spectra": figure.assign(lambda1=[0.16, 0.6401])}, capsys)
    assert before.splitlines()[1:] == row_changed.splitlines()[1:]
    assert before.splitlines()[0] != row_changed.splitlines()[0]
    assert before.splitlines()[0] == number_changed.splitlines()[0]
    assert before.splitlines()[1] != number_changed.splitlines()[1]


def test_plain_data_is_the_same_for_equal_numbers_of_any_type():
    frame = pd.DataFrame({"x": [1.0, float("nan")], "n": [1, 2], "s": ["a", None]})
    assert pages.plain(frame) == pages.plain(frame.copy())
    assert pages.plain(np.float64(0.1 + 0.2)) == pages.plain(0.3)
    assert pages.plain({"a": np.arange(2), "b": (1, 2.5)}) == {"a": [0, 1], "b": [1, "2.5"]}


def test_the_frame_has_four_significant_digits(stores: Path):
    frame = pages.start(STUDY, PUBLISHED).frame()
    for column in frame.select_dtypes("float"):
        for value in frame[column].dropna():
            assert value == float(f"{value:.4g}")
