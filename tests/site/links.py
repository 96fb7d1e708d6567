"""Checks a built site: every local link, image and anchor resolves, and nothing is loaded from another host.

Usable as a program: ``python -m tests.site.links build/_build/html``. Links for the reader (``<a href>``) may lead to
other hosts; they are not followed.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup, Tag

# Tags whose address is fetched when the page is opened.
LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "video": ("src", "poster"),
}
# <link> elements that only name another page are followed by nobody.
NAMING_ONLY = {"canonical", "index", "search", "next", "prev", "license", "author"}
CSS_ADDRESS = re.compile(r"url\(\s*['\"]?([^'\")]+)['\"]?\s*\)|@import\s+['\"]([^'\"]+)['\"]")


class Site:
    """The HTML and CSS files below a folder, each read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.pages = {path: _parse(path) for path in sorted(self.folder.rglob("*.html"))}
        self.anchors = {path: _anchors(page) for path, page in self.pages.items()}

    def problems(self) -> list[str]:
        """One line per broken link, image or anchor, and per address on another host that a page would load."""
        found = [] if self.pages else [f"{self.folder}: no HTML page"]
        for path, page in self.pages.items():
            if _is_fragment(page):
                continue
            for tag in page.find_all(True):
                found += self._tag(path, tag)
        for path in sorted(self.folder.rglob("*.css")):
            found += self._css(path, path.read_text(encoding="utf-8"))
        return found

    def _tag(self, path: Path, tag: Tag) -> list[str]:
        found = []
        if tag.name in ("a", "area") and (link := tag.get("href")) is not None:
            found += self._link(path, str(link))
        for attribute in LOADED.get(tag.name, ()):
            value = tag.get(attribute)
            if value is None or (tag.name == "link" and NAMING_ONLY & set(tag.get("rel", []))):
                continue
            addresses = [part.split()[0] for part in str(value).split(",")] if attribute == "srcset" else [str(value)]
            for address in addresses:
                found += self._load(path, address)
        style = tag.get_text() if tag.name == "style" else str(tag.get("style", ""))
        return found + (self._css(path, style) if style else [])

    def _css(self, path: Path, text: str) -> list[str]:
        addresses = (match[1] or match[2] for match in CSS_ADDRESS.finditer(text))
        return [line for address in addresses for line in self._load(path, address)]

    def _load(self, path: Path, address: str) -> list[str]:
        parts = urlsplit(address)
        if parts.scheme == "data":
            return []
        if parts.scheme or parts.netloc:
            return [f"{self._name(path)}: loads {address} from another host"]
        if not parts.path:
            return []
        return [] if self._target(path, parts.path).is_file() else [f"{self._name(path)}: {address} does not exist"]

    def _link(self, path: Path, address: str) -> list[str]:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            return []
        target = self._target(path, parts.path) if parts.path else path
        if not target.is_file():
            return [f"{self._name(path)}: link to {address}, which does not exist"]
        anchor = unquote(parts.fragment)
        if anchor and target in self.anchors and anchor not in self.anchors[target]:
            return [f"{self._name(path)}: link to {address}, which has no such anchor"]
        return []

    def _target(self, path: Path, address: str) -> Path:
        local = unquote(address)
        base = self.folder if local.startswith("/") else path.parent
        target = (base / local.lstrip("/")).resolve()
        return target / "index.html" if target.is_dir() else target

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def _parse(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


def _is_fragment(page: BeautifulSoup) -> bool:
    """Whether a file is a piece of a template that the theme leaves among its static files, and no page."""
    return page.find(["html", "body", "meta", "a", "img"]) is None


def _anchors(page: BeautifulSoup) -> set[str]:
    names = {str(tag["id"]) for tag in page.find_all(id=True)}
    return names | {str(tag["name"]) for tag in page.find_all("a", attrs={"name": True})}


def main(folder: str) -> int:
    problems = Site(Path(folder)).problems()
    print("\n".join(problems) if problems else f"{folder}: every local link, image and anchor resolves")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
