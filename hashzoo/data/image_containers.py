"""Files that have images in them: which paths name such files, and what opens them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hashzoo.data import image_archives, image_tables
from hashzoo.data.formats import IMAGE_SUFFIXES
from hashzoo.data.stored_images import ImageContainer
from hashzoo.errors import UsageError, printable
from hashzoo.storage.files import disk_errors

TABLES = (".parquet", ".arrow", ".feather", ".lance")
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def is_container(path: Path) -> bool:
    """Whether a path is a file that can have images in it, by its name.

    >>> is_container(Path("photos.tar")), is_container(Path("photos"))
    (True, False)
    """
    return path.name.lower().endswith((*TABLES, *ARCHIVES)) or (path / "state.json").is_file()


def find_containers(paths: Sequence[Path]) -> list[Path]:
    """The files with images in them that paths stand for: themselves, or all of a folder.

    Returns:
        Their paths, without those that are given twice; none if the paths name image files.

    Raises:
        UsageError: If some paths name image files, or there is no such table or archive.
    """
    found: dict[Path, None] = {}
    others = list[Path]()
    for path in paths:
        if is_container(path) and not path.exists():
            raise UsageError(f"there is no file {printable(path)}")
        inside = [path] if is_container(path) else _inside(path) if path.is_dir() else []
        found |= dict.fromkeys(inside)
        others += [] if inside else [path]
    if found and others:
        first = printable(next(iter(found)))
        raise UsageError(f"{first} has images in it, and {printable(others[0])} is none such; encode them in two calls")
    return list(found)


def _inside(folder: Path) -> list[Path]:
    """The tables and archives of a folder; none if it has image files or other folders."""
    with disk_errors("read", folder):
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    files = [entry for entry in entries if is_container(entry)]
    others = (entry for entry in entries if entry not in files)
    return [] if any(entry.is_dir() or entry.suffix.lower() in IMAGE_SUFFIXES for entry in others) else files


def open_container(file: Path, column: str = "", ids: str = "") -> ImageContainer:
    """Open a file that has images in it.

    Args:
        file: A table of Parquet, Arrow or Lance, the folder of a saved Hugging Face dataset, or a tar archive.
        column: The column of the images, or the ending of an archive's images, such as ``jpg``; by default it is
            looked for, and all images of an archive are taken.
        ids: The column of the ids of a table, which become the names; by default names are row numbers.

    Raises:
        UsageError: If there is no such column.
        EnvironmentFailure: If the file is damaged, or a package that reads it is not installed.
    """
    if not file.name.lower().endswith(ARCHIVES):
        return image_tables.open_table(file, column, ids)
    if ids:
        raise UsageError(f"{printable(file)} is an archive, whose images have names; leave out --ids")
    return image_archives.open_archive(file, column)
