"""Where things are: the package, the project around it, and the user's cache folder."""

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PROJECT = PACKAGE.parent  # book, notebooks and benchmarks stand here where the package runs from a checkout


def user_cache() -> Path:
    """Return the folder for data sets, rows and checkpoints of this user (not made here).

    ``XDG_CACHE_HOME``, else the platform's usual place.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "hbanalysis"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hbanalysis"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hbanalysis" / "Cache"
    return Path.home() / ".cache" / "hbanalysis"
