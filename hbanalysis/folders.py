"""The user's cache folder, without a dependency: ``XDG_CACHE_HOME``, else the platform's usual place."""

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """Return the folder for data sets, rows and checkpoints of this user (not made here)."""
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given) / "hbanalysis"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hbanalysis"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "hbanalysis" / "Cache"
    return Path.home() / ".cache" / "hbanalysis"
