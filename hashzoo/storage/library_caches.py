"""Folders for what numba and matplotlib cache, where they cannot write their own, as in a read-only container."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import platformdirs

from hashzoo.storage.cache import cache_folder, user_folder

NUMBA = "NUMBA_CACHE_DIR"
MATPLOTLIB = "MPLCONFIGDIR"


#: The variables of folders of downloaded weights, and their names below the user's cache folder.
WEIGHTS = {"TORCH_HOME": "torch", "HF_HOME": "huggingface"}


def provide_library_caches() -> None:
    """Name folders for the libraries that plugins can import: numba, matplotlib, torch.hub and Hugging Face."""
    provide_numba_cache()
    provide_matplotlib_cache()
    provide_weights_caches()


def provide_weights_caches() -> None:
    """Name folders in the cache folder of hashzoo for weights that torch.hub and Hugging Face download.

    Only if the usual folder neither exists, possibly with weights that can be read, nor can be created.
    """
    for variable, name in WEIGHTS.items():
        usual, folder = user_folder(platformdirs.user_cache_dir, name), cache_folder() / name
        kept = os.environ.get(variable) or os.path.exists(usual)  # noqa: PTH110 - False where access is denied
        if not kept and not _can_hold_files(usual) and _can_hold_files(folder):
            os.environ[variable] = str(folder)


def provide_numba_cache() -> None:
    """Name a folder in the environment for numba's compiled functions, unless numba finds one itself.

    numba caches them beside the source files, or else below the home folder, and fails to import a module if it can
    write to neither. The folder is ``numba`` in the cache folder of hashzoo. If that cannot be written either, it is a
    temporary one, which only this user can read and which is removed when the process ends. Child processes inherit it.
    Call this before numba is imported.
    """
    _provide(NUMBA, "numba", [user_folder(platformdirs.user_cache_dir, "numba")])


def provide_matplotlib_cache() -> None:
    """Name a folder in the environment for matplotlib's list of fonts, like :func:`provide_numba_cache`.

    matplotlib uses a temporary folder if it cannot write below the home folder, but prints two warnings. Call this
    before matplotlib is imported.
    """
    choices = (platformdirs.user_config_dir, platformdirs.user_cache_dir)
    _provide(MATPLOTLIB, "matplotlib", [user_folder(choose, "matplotlib") for choose in choices])


def _provide(variable: str, name: str, usual: list[Path]) -> None:
    if os.environ.get(variable) or all(map(_can_hold_files, usual)):
        return
    folder = cache_folder() / name
    if not _can_hold_files(folder):
        folder = Path(tempfile.mkdtemp(prefix=f"hashzoo-{name}-"))
        atexit.register(_remove, folder, os.getpid())
    os.environ[variable] = str(folder)


def _can_hold_files(folder: Path) -> bool:
    """Whether a folder can be written, or created below the first of its parents that exists."""
    existing = next(filter(os.path.exists, (folder, *folder.parents)), folder)  # False where access is denied
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked process, which inherits what runs at exit
        shutil.rmtree(folder, ignore_errors=True)
