"""The README's picture shows the published rows, and is drawn again only where they changed."""

from hbanalysis.folders import PROJECT
from hbanalysis.plots import spectra
from hbanalysis.plots.shown import carried, csv
from hbanalysis.publishing import readme
from hbanalysis.store import published


def test_the_picture_carries_the_data_of_the_published_rows():
    rows = readme.shown(published().rows(readme.STUDY))
    assert {row.scale for row in rows} == {"paper"}
    again = "run `hbanalysis publish`: the picture is older than its rows"
    assert carried(readme.PICTURE.read_bytes()) == csv(spectra(rows)[1]), again
    assert f"({readme.PICTURE.relative_to(PROJECT).as_posix()})" in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_it_is_drawn_again_only_where_rows_changed(tmp_path):
    rows, path = readme.shown(published().rows(readme.STUDY)), tmp_path / "spectra.png"
    readme.draw(rows, path)
    before = path.stat().st_mtime_ns
    readme.draw(rows, path)
    assert path.stat().st_mtime_ns == before
    readme.draw(rows[:1], path)
    assert carried(path.read_bytes()) == csv(spectra(rows[:1])[1])


def test_rows_of_another_place_leave_the_readme(tmp_path, monkeypatch):
    monkeypatch.setenv("HBANALYSIS_PUBLISHED", str(tmp_path))
    monkeypatch.setattr(readme, "PICTURE", tmp_path / "spectra.png")
    readme.refresh()
    assert not readme.PICTURE.exists()


def test_it_is_one_screen_and_a_half():
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 70
    assert all(command in text for command in ("make book", "make test", "make serve"))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table} == {3}
    assert max(map(len, table)) < 240
