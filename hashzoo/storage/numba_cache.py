"""A folder for functions that numba compiles, where its own choices cannot be written, as in a read-only container."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from hashzoo.storage.cache import cache_folder

VARIABLE = "NUMBA_CACHE_DIR"


def provide_numba_cache() -> None:
    """Name a folder in the environment for numba's compiled functions, unless numba finds one itself.

    numba caches them beside the source files, or else below the home folder, and fails to import a module if it can
    write to neither. The folder is ``numba`` in the cache folder of hashzoo. If that cannot be written either, it is a
    temporary one, which only this user can read and which is removed when the process ends. Child processes inherit it.
    Call this before numba is imported.
    """
    if os.environ.get(VARIABLE) or _can_hold_files(Path(platformdirs.user_cache_dir("numba", appauthor=False))):
        return
    folder = cache_folder() / "numba"
    if not _can_hold_files(folder):
        folder = Path(tempfile.mkdtemp(prefix="hashzoo-numba-"))
        atexit.register(_remove, folder, os.getpid())
    os.environ[VARIABLE] = str(folder)


def _can_hold_files(folder: Path) -> bool:
    """Whether a folder can be written, or created below the first of its parents that exists."""
    existing = next((one for one in (folder, *folder.parents) if one.exists()), folder)
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked process, which inherits what runs at exit
        shutil.rmtree(folder, ignore_errors=True)
