"""Buttons that need the repository's address, and the copies of notebooks that Colab opens."""

import ast
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import nbformat
import pytest
from bs4 import BeautifulSoup

from hbanalysis.publishing import notebooks
from tests.site.conftest import ROOT

URL = "https://github.com/somebody/something"


@pytest.fixture(scope="module")
def colab(extension):
    return extension("colab")


def app(url: str):
    return SimpleNamespace(config=SimpleNamespace(html_theme_options={"repository_url": url}))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (URL, "somebody/something"),
        (f"{URL}.git", "somebody/something"),
        (f"{URL}/", "somebody/something"),
        ("", ""),
        ("https://elsewhere.example/somebody/something", ""),
    ],
)
def test_only_a_repository_on_github_has_notebooks_in_colab(colab, monkeypatch, url, name):
    monkeypatch.delenv("HBANALYSIS_BANNER", raising=False)
    assert colab.repository(app(url)) == name


def test_a_book_computed_here_has_none(colab, monkeypatch):
    monkeypatch.setenv("HBANALYSIS_BANNER", "computed here")
    assert colab.repository(app(URL)) == ""


def test_without_an_address_no_page_has_such_a_button(site):
    assert not (site / "colab").exists()
    for path in (site / "notebooks").glob("*.html"):
        page = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        assert page.select("a[href*='colab.research'], a[href*='github.com/']:not(article a)") == []


def test_the_first_cell_clones_the_commit_with_its_rows(colab, tmp_path, monkeypatch):
    commit = colab.commit_built()
    path = notebooks.find("01")
    copy = colab.with_first_cell(nbformat.read(path, as_version=4), URL, commit)
    nbformat.validate(copy)
    first = copy.cells[0]
    assert first.metadata == {"cellView": "form", "tags": ["remove-cell"]}
    assert copy.cells[1:] == nbformat.read(path, as_version=4).cells
    real, ran = subprocess.run, []

    def run(words, check):
        ran.append(words)
        # The repository itself in place of its address, and no installation.
        if words[0] == "git":
            real([str(ROOT) if word == URL else word for word in words], check=check)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for _ in range(2):  # run twice it does nothing more
        exec(compile(ast.parse(first.source), "<cell>", "exec"), {})
    assert [words[:2] for words in ran] == [["git", "clone"], ["git", "-C"], [sys.executable, "-m"]]
    assert ran[2][-1] == sys.path[0]
    clone = tmp_path / "hbanalysis-clone"
    head = real(["git", "-C", str(clone), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert head.stdout.strip() == commit
    assert list((clone / "book" / "results").glob("*/*.json"))
    assert (clone / "hbanalysis" / "__init__.py").is_file()


@pytest.mark.full
def test_with_an_address_pages_have_buttons_and_copies(tmp_path):
    for name in ("book", "hbanalysis"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "00_quickstart.ipynb", tmp_path / "notebooks")
    config = (ROOT / "_config.yml").read_text()
    assert '  url: ""\n' in config
    (tmp_path / "_config.yml").write_text(config.replace('  url: ""\n', f"  url: {URL}\n"))
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/references\nchapters:\n  - file: notebooks/00_quickstart\n"
    )
    build = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    site = tmp_path / "_build" / "html"
    assert (site / "notebooks" / "00_quickstart.html").is_file(), done.stdout[-3000:] + done.stderr[-3000:]
    page = BeautifulSoup((site / "notebooks" / "00_quickstart.html").read_text(encoding="utf-8"), "html.parser")
    links = {link["href"] for link in page.select("a[href]")}
    assert "https://colab.research.google.com/github/somebody/something/blob/colab/00_quickstart.ipynb" in links
    assert URL in links and any(link.startswith(f"{URL}/issues") for link in links)
    copy = nbformat.read(site / "colab" / "00_quickstart.ipynb", as_version=4)
    assert f'"{URL}"' in copy.cells[0].source and re.search(
        r'"checkout", "--quiet", "[0-9a-f]{40}"', copy.cells[0].source
    )
    plain = BeautifulSoup((site / "book" / "references.html").read_text(encoding="utf-8"), "html.parser")
    assert plain.select("a[href*='colab.research']") == []
