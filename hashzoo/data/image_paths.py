"""The user's own image files: find them in folders, read them one at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from PIL import Image

from hashzoo.data.image_files import decode
from hashzoo.errors import EnvironmentFailure, UsageError, printable

#: File name suffixes of images; compared in lower case.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".tif", ".tiff", ".bmp", ".dib",
)  # fmt: skip

MAX_FILE_SIZE = 256 << 20  # bytes; enough for a TIFF of MAX_PIXELS pixels


def files_below(root: Path) -> Iterator[PurePath]:
    """Yield every file in a folder and its subfolders, in no order.

    Hidden files and folders are skipped. Links are followed, and no folder is visited twice.

    Args:
        root: The folder.

    Yields:
        Paths relative to ``root``.

    Raises:
        EnvironmentFailure: If a folder cannot be read.
    """
    entered = set()
    stack = [PurePath()]
    while stack:
        relative = stack.pop()
        try:
            status = (root / relative).stat()
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(root / relative) as entries:
                listed = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
        except OSError as error:
            raise EnvironmentFailure(
                f"cannot read the folder {printable(root / relative)}: {error.strerror}"
            ) from error
        for entry in listed:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                stack.append(relative / entry.name)
            elif entry.is_symlink() or entry.is_file():  # a broken link is reported when it is read
                yield relative / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; a broken or circular link is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def read_image_file(path: Path) -> bytes:
    """Read an image file, without decoding it.

    Args:
        path: The file.

    Returns:
        Its bytes.

    Raises:
        OSError: If the file cannot be read.
        EnvironmentFailure: If it is not a regular file, or has more than 256 MiB.
    """
    known = path.stat()
    if not stat.S_ISREG(known.st_mode):  # a device, a pipe
        raise EnvironmentFailure("not a regular file")
    if known.st_size > MAX_FILE_SIZE:
        raise EnvironmentFailure(f"the file has {known.st_size} bytes; the limit is {MAX_FILE_SIZE}")
    return path.read_bytes()


def open_image(path: Path) -> Image.Image:
    """Decode an image file, upright, in RGB. Raises EnvironmentFailure with the path and the reason."""
    try:
        return decode(read_image_file(path))
    except OSError as error:
        raise EnvironmentFailure(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    except EnvironmentFailure as error:
        raise EnvironmentFailure(f"{printable(path)} does not decode as an image: {error}") from error


def find_images(paths: Sequence[Path]) -> tuple[Path, list[PurePath]]:
    """Find images in files and folders: their common parent folder, and the path of each image relative to it.

    A folder stands for all files in it and its subfolders with the suffix of an image, sorted by the bytes of their
    paths; a file is an image whatever its suffix. Duplicates are dropped. Raises UsageError if a path does not exist, a
    folder contains no image or ``paths`` is empty.
    """
    images: dict[PurePath, None] = {}
    for path in paths:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are not resolved
        if absolute.is_dir():
            inside = sorted(files_below(absolute), key=lambda relative: os.fsencode(relative.as_posix()))
            contained = [absolute / relative for relative in inside if relative.suffix.lower() in IMAGE_SUFFIXES]
            if not contained:
                raise UsageError(f"no images in {printable(path)}; supported suffixes: {', '.join(IMAGE_SUFFIXES)}")
            images |= dict.fromkeys(contained)
        elif absolute.exists():
            images[absolute] = None
        else:
            raise UsageError(f"there is no file or folder {printable(path)}")
    if not images:
        raise UsageError("no images given; name an image file or a folder")
    folders = [path if path.is_dir() else path.parent for path in map(Path, map(os.path.abspath, paths))]
    root = Path(os.path.commonpath(folders))
    return root, [path.relative_to(root) for path in images]
