from pathlib import Path

import pytest

from tests.site.links import Site

GOOD = """<html><head><link rel="stylesheet" href="style.css"></head><body>
<h1 id="top">T</h1><a href="other.html#there">o</a><a href="#top">t</a><a href="https://example.org/">e</a>
<img src="plot.png"><img src="data:image/png;base64,AA=="></body></html>"""


def write_site(folder: Path, page: str = GOOD, css: str = "h1 { background: url(plot.png) }") -> Site:
    (folder / "index.html").write_text(page)
    (folder / "other.html").write_text('<html><body><p id="there"></p><a href="./">home</a></body></html>')
    (folder / "plot.png").write_bytes(b"")
    (folder / "style.css").write_text(css)
    return Site(folder)


def test_a_sound_site_has_no_problems(tmp_path):
    assert write_site(tmp_path).problems() == []


@pytest.mark.parametrize(
    ("sound", "broken", "complaint"),
    [
        ("other.html#there", "gone.html", "link to gone.html, which does not exist"),
        ("other.html#there", "other.html#gone", "link to other.html#gone, which has no such anchor"),
        ("#top", "#gone", "link to #gone, which has no such anchor"),
        ('<img src="plot.png">', '<img src="gone.png">', "gone.png does not exist"),
        ('href="style.css"', 'href="gone.css"', "gone.css does not exist"),
        ("<img src", '<script src="https://example.org/a.js"></script><img src', "from another host"),
        ("<img src", '<script src="//example.org/a.js"></script><img src', "from another host"),
        ('href="style.css"', 'href="https://example.org/a.css"', "from another host"),
        ('src="plot.png"', 'src="http://example.org/a.png"', "from another host"),
        ('src="plot.png"', 'src="plot.png" srcset="plot.png 1x, gone.png 2x"', "gone.png does not exist"),
        ("<h1 ", '<h1 style="background: url(https://example.org/a.png)" ', "from another host"),
    ],
)
def test_each_kind_of_break_is_found(tmp_path, sound, broken, complaint):
    assert sound in GOOD
    (problem,) = write_site(tmp_path, GOOD.replace(sound, broken, 1)).problems()
    assert complaint in problem


@pytest.mark.parametrize(
    "css", ["@import 'https://example.org/a.css';", "@font-face { src: url(//example.org/a.woff) }"]
)
def test_style_sheets_are_read_too(tmp_path, css):
    (problem,) = write_site(tmp_path, css=css).problems()
    assert "from another host" in problem


def test_an_empty_folder_is_no_site(tmp_path):
    assert Site(tmp_path).problems() != []


def test_the_published_site_is_whole(site):
    assert Site(site).problems() == []
