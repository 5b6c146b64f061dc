"""The cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Where features are kept: ``HASHZOO_CACHE``, or the platform's cache folder."""
    if given := os.environ.get("HASHZOO_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "hashzoo" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "hashzoo"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hashzoo"
