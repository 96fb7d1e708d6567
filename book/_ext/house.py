"""What this site adds to its theme: a banner on a site computed here, buttons that follow the repository's address.

Every page gets the script of the house, and pages with surfaces to be turned the one that draws them; no other page
loads it.
"""

import html
import os
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

BANNER = "HBANALYSIS_BANNER"
SURFACE = 'class="loss-surface"'


def set_theme_options(app: Sphinx, config: Config) -> None:
    """Show HBANALYSIS_BANNER above every page; offer repository buttons once ``repository.url`` is set."""
    options = config.html_theme_options
    if banner := os.environ.get(BANNER, "").strip():
        options["announcement"] = html.escape(banner)
    if options.get("repository_url"):
        options["use_repository_button"] = True
        options["use_issues_button"] = True
    else:
        # An empty address would still give every notebook a launch menu, with links that lead nowhere.
        options["launch_buttons"] = {}


def add_surface_script(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Give a page that holds surfaces the script that draws them."""
    if SURFACE in context.get("body", ""):
        app.add_js_file("loss-surface.js", loading_method="defer")


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.add_js_file("house.js", loading_method="defer")
    app.connect("config-inited", set_theme_options, priority=100)
    app.connect("html-page-context", add_surface_script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
