"""What this site adds to its theme: a banner on a site computed here, buttons that follow the repository's address.

Every page gets the script of the house, and pages with figures that are drawn in the page the scripts that draw them;
no other page loads these.
"""

import html
import os
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

BANNER = "HBANALYSIS_BANNER"
# Figures that are drawn in the page, by what marks them, and the scripts that draw them.
SCRIPTS = {'class="loss-surface"': "loss-surface.js", 'class="spectrum-explorer"': "spectrum-explorer.js"}


def set_theme_options(app: Sphinx, config: Config) -> None:
    """Show HBANALYSIS_BANNER above every page; offer repository buttons once ``repository.url`` is set."""
    options = config.html_theme_options
    if banner := os.environ.get(BANNER, "").strip():
        options["announcement"] = html.escape(banner)
    if options.get("repository_url"):
        options["use_repository_button"] = True
        options["use_issues_button"] = True
    # The theme's own launch menu: with an empty address its links lead nowhere, and with one to notebooks that lack
    # the cell that installs what they need, see `colab`.
    options["launch_buttons"] = {}


def add_scripts(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give a page that holds figures to be drawn the scripts that draw them."""
    for mark, script in SCRIPTS.items():
        if mark in context.get("body", ""):
            app.add_js_file(script, loading_method="defer")


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_js_file("house.js", loading_method="defer")
    app.connect("config-inited", set_theme_options, priority=100)
    app.connect("html-page-context", add_scripts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
