"""What this site adds to its theme: a banner on a site computed here, buttons that follow the repository's address."""

import html
import os

from sphinx.application import Sphinx
from sphinx.config import Config

BANNER = "HBANALYSIS_BANNER"


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


def setup(app: Sphinx) -> dict[str, object]:
    """Register with Sphinx."""
    app.connect("config-inited", set_theme_options, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
