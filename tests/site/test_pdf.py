"""The book as one document, and as one PDF."""

import io
import re
import subprocess
import sys
import unicodedata

import pytest
from bs4 import BeautifulSoup

from hbanalysis.errors import InputError
from hbanalysis.publishing import pdf, single_page

NAVIGATION = """
<nav class="bd-links"><ul><li class="toctree-l1"><a href="#">First</a></li></ul>
<p class="caption">Part</p><ul>
<li class="toctree-l1"><a href="../notebooks/a.html">A page</a>
<ul><li class="toctree-l2"><a href="b.html">Below it</a></li></ul></li></ul></nav>
"""
HEAD = (
    '<head><link rel="stylesheet" href="../_static/house.css"><script>window.MathJax = {}</script>'
    '<script defer src="../_static/mathjax/tex.js"></script><script src="../_static/theme.js"></script></head>'
)


@pytest.fixture
def small_site(tmp_path):
    pages = {
        "book/intro.html": '<h1>First<a class="headerlink" href="#x">#</a></h1>'
        '<a href="../notebooks/a.html#there">go</a> <a href="../data/x.csv">file</a>'
        '<a href="https://example.org/">out</a><img src="../_images/p.png" loading="lazy">',
        "notebooks/a.html": '<h1>A page</h1><p id="there">text</p><details class="hide"><pre>plumbing</pre></details>'
        '<div class="admonition dropdown"><p>solution</p></div><a href="#there">here</a>'
        '<picture><source media="x" srcset="y.png"><img src="../_images/q.png"></picture>',
        "book/b.html": '<h1>Below it</h1><p id="there">twice</p><details class="page-box"><p>origin</p></details>',
    }
    for name, body in pages.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'<html>{HEAD}<body>{NAVIGATION}<article class="bd-article">{body}</article></body></html>')
    return tmp_path


def test_chapters_follow_the_navigation(small_site):
    assert single_page.chapters(small_site) == [
        single_page.Chapter("book/intro.html", "First"),
        single_page.Chapter("notebooks/a.html", "A page", "Part"),
        single_page.Chapter("book/b.html", "Below it", "", True),
    ]


def test_addresses_hold_in_the_one_document(small_site):
    page = BeautifulSoup(single_page.document(small_site, "Book", ("a line",)), "html.parser")
    names = [node["id"] for node in page.select("[id]")]
    assert len(names) == len(set(names))
    inside = [link["href"].removeprefix("#") for link in page.select("article a[href^='#']")]
    assert set(inside) <= set(names) and {"page-1-there", "page-0", "page-2"} <= set(inside)
    assert [link["href"] for link in page.select("a[href^='http']")] == ["https://example.org/"]
    assert "file" in page.get_text() and page.select("a[href$='.csv'], a.headerlink, picture source") == []
    assert [image["src"] for image in page.select("img")] == ["_images/p.png", "_images/q.png"]
    assert not any(image.get("loading") for image in page.select("img"))
    assert [script.get("src") for script in page.select("script[src]")] == ["_static/mathjax/tex.js"]
    assert page.select_one("link[rel=stylesheet]")["href"] == "_static/house.css"


def test_nothing_that_counts_is_folded_and_plumbing_is_left_out(small_site):
    page = BeautifulSoup(single_page.document(small_site, "Book"), "html.parser")
    assert "plumbing" not in page.get_text()
    assert page.select(".dropdown") == [] and "solution" in page.get_text()
    assert all(box.has_attr("open") for box in page.select("details"))


def test_a_folder_without_a_site_is_refused(tmp_path):
    with pytest.raises(InputError, match="make site"):
        single_page.chapters(tmp_path)
    with pytest.raises(InputError, match="make site"):
        pdf.make(tmp_path, tmp_path / "book.pdf")


def test_without_chromium_it_says_what_to_install(small_site, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="Chromium"):
        pdf.make(small_site, small_site / "book.pdf")
    assert not (small_site / "book.pdf").exists()


def fonts(page) -> list:
    """The fonts of a page that are drawn from, those inside composite ones in place of these."""
    found = []
    for font in (entry.get_object() for entry in (page["/Resources"].get("/Font") or {}).values()):
        found += [inner.get_object() for inner in font.get("/DescendantFonts", [font])]
    return found


def is_embedded(font) -> bool:
    if font["/Subtype"] == "/Type3":  # drawn in the file itself
        return True
    return any(name.startswith("/FontFile") for name in font["/FontDescriptor"].get_object())


def plain(text: str) -> str:
    """A text without ligatures: whether "fi" is one glyph is the font's affair."""
    return unicodedata.normalize("NFKC", text)


@pytest.mark.full
def test_the_book_is_printed_whole(site, tmp_path, chromium):
    from pypdf import PdfReader

    target = tmp_path / "book.pdf"
    # As `make pdf` does it: in a process of its own, beside whatever browser this one has open.
    command = [sys.executable, "-m", "hbanalysis.publishing.pdf", str(site), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    printed = target.read_bytes()
    reader = PdfReader(io.BytesIO(printed))
    assert f"{len(reader.pages)} pages" in done.stdout and 120 <= len(reader.pages) <= 500
    assert len(printed) < 40e6
    texts = [plain(page.extract_text()) for page in reader.pages]
    found, starts = single_page.chapters(site), pdf.chapter_pages(printed)
    assert starts == sorted(starts) and len(starts) == len(found)
    contents = " ".join(texts[1 : starts[0] - 1])
    for chapter, start in zip(found, starts, strict=True):
        words = re.escape(plain(chapter.title)).replace(r"\ ", r"\s+")
        assert re.search(words, texts[start - 1][:400]), chapter.title
        assert re.search(rf"{words}\s*{start}\b", contents), chapter.title
    assert all(f"{number} / {len(texts)}" in text for number, text in enumerate(texts, start=1))
    assert not any(r"\lambda" in text or r"\frac" in text for text in texts)
    used = [font for page in reader.pages for font in fonts(page)]
    assert used and all(is_embedded(font) for font in used)
    pictures = sum(
        entry.get_object()["/Subtype"] == "/Image"
        for page in reader.pages
        for entry in (page["/Resources"].get("/XObject") or {}).values()
    )
    site_has = sum(
        len(BeautifulSoup((site / one.address).read_text(encoding="utf-8"), "html.parser").select("article img"))
        for one in found
    )
    assert pictures >= site_has > 40
