"""The book as one PDF, printed from the built site by headless Chromium: ``make pdf``.

Every page of the site becomes a chapter, formulas are set by the site's own MathJax, and surfaces that can be turned
are left to their flat twins. The document is printed twice: the first print tells on which page each chapter begins,
the second has these numbers in its table of contents.
"""

import functools
import importlib.util
import io
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from hbanalysis import __version__
from hbanalysis.errors import InputError
from hbanalysis.files import write_atomically
from hbanalysis.publishing import single_page
from hbanalysis.store.provenance import commit

if TYPE_CHECKING:
    from playwright.sync_api import Page

TITLE = "Hessian-based analysis, recomputed"
_PACKAGES = ("playwright", "pypdf")
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
_ADDRESS = "book-to-print.html"
_MINUTES = 10
_FOOT = (
    '<div style="width: 100%; font-size: 8px; color: #555; text-align: center">'
    '<span class="pageNumber"></span> / <span class="totalPages"></span></div>'
)


def make(site: Path, target: Path) -> int:
    """Print a built site into one PDF and return the number of its pages.

    Args:
        site: Folder of the built site, such as ``build/_build/html``.
        target: The file to write.

    Raises:
        InputError: The folder holds no built site, or something that prints is not installed.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"The PDF needs {' and '.join(missing)}. Install what it needs: pip install -e '.[pdf]'.")
    text = single_page.document(site, TITLE, (f"hbanalysis {__version__}", f"commit {commit() or 'unknown'}"))
    with _opened(site, text) as page:
        printed = _printed(page)
        starts = chapter_pages(printed)
        names = [chapter.title for chapter in single_page.chapters(site)]
        if len(starts) != len(names):
            raise InputError(f"The print has {len(starts)} chapters and the site {len(names)}: {site} is incomplete.")
        page.evaluate(
            "starts => document.querySelectorAll('.contents .number')"
            ".forEach((node, number) => { node.textContent = starts[number] })",
            starts,
        )
        printed = _printed(page)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, printed)
    return _pages(printed)


def chapter_pages(printed: bytes) -> list[int]:
    """Return the page, counted from 1, on which each chapter of a printed book begins: its bookmarks of first rank."""
    from pypdf import PdfReader

    reader = PdfReader(io.BytesIO(printed))
    found = []
    for entry in reader.outline:
        if not isinstance(entry, list):
            number = reader.get_destination_page_number(entry)
            assert number is not None
            found.append(number + 1)
    return found


def _pages(printed: bytes) -> int:
    from pypdf import PdfReader

    return len(PdfReader(io.BytesIO(printed)).pages)


def _printed(page: "Page") -> bytes:
    return page.pdf(
        format="A4",
        print_background=True,
        prefer_css_page_size=True,
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=_FOOT,
        outline=True,
        tagged=True,
    )


@contextmanager
def _opened(site: Path, text: str) -> "Iterator[Page]":
    """The document in a browser, as if it stood in the site's folder, with formulas and figures drawn."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, _NAMES)), None)
    if chromium is None:
        raise InputError(f"The PDF is printed by Chromium, and none of {', '.join(_NAMES)} is on PATH. Install one.")
    with _served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_SWITCHES))
        page = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme="light")
        page.set_default_timeout(_MINUTES * 60_000)
        page.route(f"**/{_ADDRESS}", lambda route: route.fulfill(body=text, content_type="text/html; charset=utf-8"))
        page.goto(f"{address}/{_ADDRESS}", wait_until="load")
        page.wait_for_function("window.MathJax?.startup?.promise")
        page.evaluate("MathJax.startup.promise")
        page.emulate_media(media="print")
        page.evaluate("fitTables()")
        yield page
        browser.close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing of each request."""


@contextmanager
def _served(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=os.fspath(site))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def main(site: str, target: str) -> int:
    """Print a site from the command line."""
    try:
        pages = make(Path(site), Path(target))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{target}: {pages} pages, {Path(target).stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
