"""All pages of a built site as one HTML document for print: in order, nothing folded that counts.

Links between pages become links inside the document; links to files of the site that no print holds become text.
"""

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

from hbanalysis.errors import InputError

_FIRST = "book/intro.html"
# What only a screen needs: buttons, marks of headings, folded code and outputs, files to load, forms for phones.
_LEFT_OUT = (
    "a.headerlink, button.copybtn, script:not([type='application/json']), picture source, #rows-of-this-page, "
    "details.rerun, details.hide, .figure-data, .spectrum-explorer-controls"
)
_STYLE = """
@page { size: A4; margin: 18mm 16mm 20mm; }
html { font-size: 10.5pt; }
body { background: #fff; overflow: visible; }
.bd-content { display: block; }
.bd-article { padding: 0; max-width: none; }
.bd-article h1 { margin-top: 0; font-size: 20pt; }
.bd-article h2 { font-size: 15pt; }
.bd-article h3 { font-size: 12.5pt; }
section.page { break-before: page; }
h1, h2, h3, h4, dt { break-after: avoid; }
figure, tr, .admonition-title, mjx-container { break-inside: avoid; }
figure img { max-height: 140mm; width: auto; max-width: 100%; }
pre, code { white-space: pre-wrap !important; overflow-wrap: anywhere; }
.cell_output .text_html, .pst-scrollable-table-container { overflow: visible !important; }
.bd-content table, .bd-content .claims table, .bd-content table.survives { min-width: 0; font-size: 8pt; }
a { text-decoration: none; }
.book-title { margin: 60mm 0 0; text-align: center; }
.book-title p:first-child { font-size: 28pt; font-weight: 700; }
.contents { break-before: page; }
.contents p { display: flex; gap: 2mm; margin: 0 0 1.2mm; }
.contents p.part, .contents p.heading { margin: 5mm 0 2mm; font-weight: 700; }
.contents p.inner { padding-left: 6mm; }
.contents p::before { order: 1; flex: 1; content: ""; border-bottom: 1px dotted #888; }
.contents p.part::before, .contents p.heading::before { display: none; }
.contents .number { order: 2; min-width: 8mm; text-align: right; }
"""
# A table wider than the paper is made smaller as a whole; a browser does this for pictures alone.
_FIT = """
window.fitTables = () => {
  for (const table of document.querySelectorAll("table")) {
    const room = table.closest("section.page").clientWidth;
    if (table.scrollWidth > room) table.style.zoom = room / table.scrollWidth;
  }
};
"""


@dataclass(frozen=True)
class Chapter:
    """A page of the site: its address, its title, the part that it opens, and whether it stands below another."""

    address: str
    title: str
    part: str = ""
    inner: bool = False


def chapters(site: Path) -> list[Chapter]:
    """Return the pages of a built site in the order of its navigation.

    Raises:
        InputError: The folder holds no built site.
    """
    first = site / _FIRST
    if not first.is_file():
        raise InputError(f"{site} holds no built site: there is no {_FIRST} in it. Build it first: `make site`.")
    navigation = _parsed(first).select_one("nav.bd-links")
    assert navigation is not None
    found, part = [], ""
    for node in navigation.select("p.caption, li > a"):
        if node.name == "p":
            part = node.get_text(strip=True)
            continue
        address = _joined(_FIRST, str(node["href"])).partition("#")[0] or _FIRST
        inner = "toctree-l1" not in _classes(node.parent)
        found.append(Chapter(address, node.get_text(" ", strip=True), part, inner))
        part = ""
    return found


def document(site: Path, title: str, lines: tuple[str, ...] = ()) -> str:
    """Return the document.

    Args:
        site: Folder of the built site; addresses in the document are relative to it.
        title: The title of the book.
        lines: What stands below it on the first page.

    Raises:
        InputError: The folder holds no built site.
    """
    found = chapters(site)
    numbers = {chapter.address: number for number, chapter in enumerate(found)}
    page = _parsed(site / _FIRST)
    body = [
        f'<section class="page" id="{_name(n)}">{_article(site, one, numbers)}</section>' for one, n in _pairs(found)
    ]
    return "".join(
        [
            f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><title>{title}</title>',
            '<meta charset="utf-8">',
            *_sheets(page),
            f"<style>{_STYLE}</style><script>{_FIT}</script>",
            *_scripts(page),
            '</head><body><div class="bd-content"><article class="bd-article">',
            f'<div class="book-title"><p>{title}</p>{"".join(f"<p>{line}</p>" for line in lines)}</div>',
            _contents(found),
            *body,
            "</article></div></body></html>",
        ]
    )


def _contents(found: list[Chapter]) -> str:
    lines = ['<div class="contents"><p class="heading">Contents</p>']
    for chapter, number in _pairs(found):
        lines += [f'<p class="part">{chapter.part}</p>'] * bool(chapter.part)
        kind = ' class="inner"' * chapter.inner
        link = f'<a href="#{_name(number)}">{chapter.title}</a><span class="number" data-page="{number}">000</span>'
        lines.append(f"<p{kind}>{link}</p>")
    return "".join([*lines, "</div>"])


def _article(site: Path, chapter: Chapter, numbers: dict[str, int]) -> str:
    """Return a page's own content with addresses of the whole document."""
    article = _parsed(site / chapter.address).select_one("article.bd-article")
    assert article is not None
    for node in article.select(_LEFT_OUT):
        node.decompose()
    for node in article.select("details"):
        node["open"] = ""
    for node in article.select(".dropdown, .toggle"):
        node["class"] = " ".join(name for name in _classes(node) if name not in ("dropdown", "toggle"))
    prefix = f"{_name(numbers[chapter.address])}-"
    for node in article.select("[id]"):
        node["id"] = prefix + str(node["id"])
    for node in article.select("[src]"):
        node["src"] = _joined(chapter.address, str(node["src"]))
        node.attrs.pop("loading", None)
    for node in article.select("a[href]"):
        address = _address(chapter.address, str(node["href"]), numbers)
        if address:
            node["href"] = address
        else:
            node.unwrap()
    return article.decode_contents()


def _address(here: str, link: str, numbers: dict[str, int]) -> str:
    """Return where a link of a page leads in the document; an empty text where it leads to a file of the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return link
    page = _joined(here, parts.path) if parts.path else here
    if page not in numbers:
        return ""
    anchor = unquote(parts.fragment)
    return f"#{_name(numbers[page])}" + (f"-{anchor}" if anchor else "")


def _sheets(page: BeautifulSoup) -> list[str]:
    found = (_joined(_FIRST, str(link["href"])) for link in page.select("head link[rel~=stylesheet]"))
    return [f'<link rel="stylesheet" href="{address}">' for address in dict.fromkeys(found)]


def _scripts(page: BeautifulSoup) -> list[str]:
    """MathJax with its settings, and what draws figures in the page."""
    found = []
    for script in page.select("script"):
        address = str(script.get("src") or "")
        if "mathjax" in address.lower() or "spectrum-explorer" in address:
            found.append(f'<script defer src="{_joined(_FIRST, address)}"></script>')
        elif not address and re.match(r"\s*window\.MathJax", script.get_text()):
            found.append(str(script))
    return found


def _pairs(found: list[Chapter]) -> list[tuple[Chapter, int]]:
    return [(chapter, number) for number, chapter in enumerate(found)]


def _name(number: int) -> str:
    return f"page-{number}"


def _joined(page: str, address: str) -> str:
    """Return an address that a page names as one relative to the site."""
    if not address or urlsplit(address).scheme or address.startswith("#"):
        return address
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), address))


def _classes(node: Tag | None) -> list[str]:
    return list(node.get_attribute_list("class")) if node is not None else []


def _parsed(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
