"""Where the cache folder is: from the environment, or as the platform has it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import platformdirs

from hashzoo.storage.files import expand_user


def cache_folder() -> Path:
    """The folder of cached files, such as the features of frozen backbones. It does not have to exist.

    Returns:
        The environment variable ``HASHZOO_CACHE`` if it is set and not empty, otherwise the platform's cache folder
        (``~/.cache/hashzoo`` on Linux, ``~/Library/Caches/hashzoo`` on macOS).
    """
    if configured := os.environ.get("HASHZOO_CACHE"):
        return expand_user(Path(configured))
    return user_folder(platformdirs.user_cache_dir, "hashzoo")


def user_folder(choose: Callable[..., str], name: str) -> Path:
    """The folder that a function of platformdirs chooses for a program.

    Without ``HOME``, a user id that the system does not know has no home folder. It is then ``/``, as Docker sets it.
    """
    with suppress(RuntimeError):  # of a newer platformdirs; an older one leaves the ~
        folder = Path(choose(name, appauthor=False))
        if folder.is_absolute():
            return folder
    return Path("/.cache", name).absolute()
