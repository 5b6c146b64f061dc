"""Image files of a person's own: found in folders, read one at a time."""

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

LARGEST = 256 << 20  # bytes of a file: a TIFF of as many pixels as are decoded


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
            elif entry.is_symlink() or entry.is_file():  # a broken link is named when it is read
                yield relative / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder; a link that leads nowhere, or round in a circle, is none."""
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
    if known.st_size > LARGEST:
        raise EnvironmentFailure(f"the file has {known.st_size} bytes; at most {LARGEST} are read")
    return path.read_bytes()


def opened(path: Path) -> Image.Image:
    """The image in a file, upright, in RGB. EnvironmentFailure naming a file that does not decode as one."""
    try:
        return decode(read_image_file(path))
    except OSError as error:
        raise EnvironmentFailure(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    except EnvironmentFailure as error:
        raise EnvironmentFailure(f"{printable(path)} does not decode as an image: {error}") from error


def found(given: Sequence[Path]) -> tuple[Path, list[PurePath]]:
    """The folder that all images lie below, and each image relative to it.

    Of a folder, all files below it whose names end as those of images do, sorted by the bytes of their paths; a file
    that is named counts whatever its name. Each counts once. UsageError where something does not exist, and where a
    folder, or all together, holds no image.
    """
    whole: dict[PurePath, None] = {}
    for path in given:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as they were named
        if absolute.is_dir():
            inside = sorted(files_below(absolute), key=lambda relative: os.fsencode(relative.as_posix()))
            kept = [absolute / relative for relative in inside if relative.suffix.lower() in IMAGE_SUFFIXES]
            if not kept:
                raise UsageError(f"no image lies in {printable(path)}; images end with {', '.join(IMAGE_SUFFIXES)}")
            whole |= dict.fromkeys(kept)
        elif absolute.exists():
            whole[absolute] = None
        else:
            raise UsageError(f"there is no file or folder {printable(path)}")
    if not whole:
        raise UsageError("name an image, or a folder of them")
    folders = [path if path.is_dir() else path.parent for path in map(Path, map(os.path.abspath, given))]
    root = Path(os.path.commonpath(folders))
    return root, [path.relative_to(root) for path in whole]
