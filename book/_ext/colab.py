"""Notebooks for Colab: a button on their pages, and copies whose first cell installs package and rows.

Both exist once ``repository.url`` in _config.yml names a repository on GitHub. The copies are written into the folder
``colab`` of the site; the workflow of the site pushes this folder to the branch of the same name, from where Colab
opens them. So the notebooks of the repository need no such cell, and the copies name the very commit that the pages
were built from.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
from docutils import nodes
from house import BANNER
from sphinx.application import Sphinx

from hbanalysis.folders import PROJECT
from hbanalysis.publishing import notebooks

FOLDER = BRANCH = "colab"
_HOST = "https://colab.research.google.com/github"
_CLONE = "hbanalysis-clone"
_CELL = """# @title Run this first: installs the package with its rows at commit {short}
import pathlib
import subprocess
import sys

clone = pathlib.Path("{clone}").resolve()
if not clone.exists():
    subprocess.run(["git", "clone", "--quiet", "{url}", str(clone)], check=True)
    subprocess.run(["git", "-C", str(clone), "checkout", "--quiet", "{commit}"], check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "-e", str(clone)], check=True)
    sys.path.insert(0, str(clone))  # an install made while Python runs is found from its next start on
"""


def repository(app: Sphinx) -> str:
    """Return ``owner/name`` on GitHub, or an empty text without one, and on a site whose rows are of this machine."""
    url = str(app.config.html_theme_options.get("repository_url") or "")
    found = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", url)
    return found[1] if found and not os.environ.get(BANNER, "").strip() else ""


def with_first_cell(notebook: nbformat.NotebookNode, url: str, commit: str) -> nbformat.NotebookNode:
    """Return a notebook whose first cell, folded in Colab, installs a commit of the repository with its rows."""
    copy = nbformat.from_dict(notebook)
    source = _CELL.format(short=commit[:12], clone=_CLONE, url=url, commit=commit)
    cell = nbformat.v4.new_code_cell(source, id="install", metadata={"cellView": "form", "tags": ["remove-cell"]})
    copy.cells.insert(0, cell)
    return copy


def commit_built() -> str:
    """Return the commit that is checked out.

    Raises:
        RuntimeError: The project is not under version control, so that nobody could install it.
    """
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Colab installs a commit, and {PROJECT} has none: {done.stderr.strip()}")
    return done.stdout.strip()


def add_button(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give the page of a notebook a button that opens it in Colab."""
    name = repository(app)
    if name and doctree is not None and app.env.doc2path(pagename).endswith(".ipynb"):
        notebook = pagename.rpartition("/")[2]
        context["header_buttons"].append(
            {
                "type": "link",
                "text": "Colab",
                "tooltip": "Open in Colab",
                "icon": "fas fa-rocket",
                "label": "colab",
                "url": f"{_HOST}/{name}/blob/{BRANCH}/{notebook}.ipynb",
            }
        )


def write_copies(app: Sphinx, error: Exception | None) -> None:
    """Write the copies of all notebooks that are pages."""
    name = repository(app)
    if error is not None or not name or app.builder.name != "html":
        return
    commit = commit_built()
    for docname in sorted(app.env.found_docs):
        path = Path(app.env.doc2path(docname))
        if path.suffix == ".ipynb":
            (Path(app.outdir) / FOLDER).mkdir(exist_ok=True)
            copy = with_first_cell(nbformat.read(path, as_version=4), f"https://github.com/{name}", commit)
            notebooks.write(copy, Path(app.outdir) / FOLDER / path.name)


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("html-page-context", add_button, priority=502)  # after the theme has made its list of buttons
    app.connect("build-finished", write_copies)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
