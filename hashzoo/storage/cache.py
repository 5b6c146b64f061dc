"""Where the cache folder is: from the environment, or as the platform has it."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The folder of cached files, such as the features of frozen backbones. It does not have to exist.

    Returns:
        The environment variable ``HASHZOO_CACHE`` if it is set and not empty, otherwise the platform's cache folder
        (``~/.cache/hashzoo`` on Linux, ``~/Library/Caches/hashzoo`` on macOS).
    """
    if configured := os.environ.get("HASHZOO_CACHE"):
        return Path(configured)
    return platformdirs.user_cache_path("hashzoo", appauthor=False)
