"""The user's own image files: find them in folders, read them one at a time."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

from hashzoo.data.formats import IMAGE_SUFFIXES, needs_start, undecoded
from hashzoo.data.image_files import decode
from hashzoo.errors import EnvironmentFailure, UsageError, printable

__all__ = ["IMAGE_SUFFIXES", "FolderFiles", "ImageList", "files_below", "find_images", "list_folder", "open_image"]

#: Folders of thumbnails and copies that cameras, NAS, archives and notebooks create, in lower case. Folders whose names
#: begin with a dot, such as .ipynb_checkpoints and .thumbnails, are left out as well.
SIDECAR_FOLDERS = (
    "@eadir", "@tmp", "#recycle", "@recycle", "@recycled", "@recently-snapshot", "#snapshot", "@__thumb", "@sharebin",
    "__macosx", "_macosx", "$recycle.bin", "system volume information", "lost+found", "lost.dir", "__pycache__",
    "ipynb_checkpoints", "thmbnl", "avf_info", "canonmsc", "_thumbs", "__thumbs", "_thumbnails", "__thumbnails",
    "network trash folder", "temporary items",
)  # fmt: skip

MAX_FILE_SIZE = 256 << 20  # bytes; enough for a TIFF of MAX_PIXELS pixels


@dataclass(frozen=True)
class FolderFiles:
    """The files of a folder and its subfolders, grouped by whether they are read. Paths are relative to the folder.

    Attributes:
        files: All files, sorted by the bytes of their paths, without those of sidecar folders and hidden ones.
        images: Those with the suffix of an image.
        left_out: Image files that are not decoded, each with what it is and the cure.
        passed_over: Number of image files by the name of the sidecar folder or hidden folder that holds them.
    """

    files: Sequence[PurePath]
    images: Sequence[PurePath]
    left_out: Mapping[PurePath, str]
    passed_over: Mapping[str, int]


@dataclass(frozen=True)
class ImageList:
    """Images in files and folders.

    Attributes:
        root: Their common parent folder.
        images: The path of each image, relative to ``root``.
        left_out: A line for each image file that is not decoded.
        passed_over: As of :class:`FolderFiles`.
    """

    root: Path
    images: list[PurePath]
    left_out: list[str]
    passed_over: Mapping[str, int]


def list_folder(root: Path) -> FolderFiles:
    """List a folder and its subfolders.

    Args:
        root: The folder.

    Raises:
        EnvironmentFailure: If a folder cannot be read.
    """
    passed_over: Counter[str] = Counter()
    files = sorted(_walk(root, passed_over), key=lambda relative: os.fsencode(relative.as_posix()))
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    found = ((path, undecoded(path.suffix, _start(root / path))) for path in files)
    return FolderFiles(files, images, {path: what for path, what in found if what}, dict(sorted(passed_over.items())))


def _start(path: Path) -> bytes:
    """The first bytes of a file, if only they tell whether it is an image."""
    if not needs_start(path.suffix):
        return b""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""
        with path.open("rb") as file:
            return file.read(64)
    except OSError:
        return b""


def files_below(root: Path) -> Iterator[PurePath]:
    """Yield every file in a folder and its subfolders, in no order.

    Hidden files and folders are skipped, and folders of thumbnails and copies that cameras, NAS, archives and notebooks
    create, such as ``@eaDir``. Links are followed, and no folder is visited twice.

    Args:
        root: The folder.

    Yields:
        Paths relative to ``root``.

    Raises:
        EnvironmentFailure: If a folder cannot be read.
    """
    yield from _walk(root, Counter())


def _walk(root: Path, passed_over: Counter[str]) -> Iterator[PurePath]:
    """The files of :func:`files_below`; the image files of skipped folders are counted by the name of the folder."""
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
            folder = _is_folder(entry)
            if entry.name.startswith(".") or (folder and entry.name.lower() in SIDECAR_FOLDERS):
                if count := _count_images(entry, folder):
                    passed_over[printable(entry.name) if folder else "hidden files"] += count
            elif folder:
                stack.append(relative / entry.name)
            elif entry.is_symlink() or entry.is_file():  # a broken link is reported when it is read
                yield relative / entry.name


def _count_images(entry: os.DirEntry[str], folder: bool) -> int:
    """The number of files with the suffix of an image in a folder that is skipped, or 1 for such a file."""
    if not folder:
        return int(_is_image(entry.name))
    return sum(sum(map(_is_image, names)) for _, _, names in os.walk(entry.path))


def _is_image(name: str) -> bool:
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


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


def open_image(path: Path, side: int | None = None) -> Image.Image:
    """Decode an image file, upright, in RGB, as by ``decode``. Raises EnvironmentFailure with path and reason."""
    try:
        return decode(read_image_file(path), side)
    except OSError as error:
        raise EnvironmentFailure(f"{printable(path)} cannot be read: {error.strerror or error}") from error
    except EnvironmentFailure as error:
        raise EnvironmentFailure(f"{printable(path)} does not decode as an image: {error}") from error


def find_images(paths: Sequence[Path]) -> ImageList:
    """Find images in files and folders.

    A folder stands for all files in it and its subfolders with the suffix of an image, sorted by the bytes of their
    paths; a file is an image whatever its suffix. Duplicates are dropped. Raises UsageError if a path does not exist, a
    folder contains no image or ``paths`` is empty.
    """
    images: dict[PurePath, None] = {}
    left_out: dict[str, None] = {}
    passed_over: Counter[str] = Counter()
    for path in paths:
        absolute = Path(os.path.abspath(path))  # noqa: PTH100 - links are not resolved
        if absolute.is_dir():
            inside = list_folder(absolute)
            lines = [f"{printable(absolute / relative)}: {what}" for relative, what in inside.left_out.items()]
            if not inside.images:
                others = f" ({len(lines)} that are not decoded, such as {lines[0]})" if lines else ""
                known = ", ".join(IMAGE_SUFFIXES)
                raise UsageError(f"no images in {printable(path)}{others}; supported suffixes: {known}")
            images |= dict.fromkeys(absolute / relative for relative in inside.images)
            left_out |= dict.fromkeys(lines)
            passed_over.update(inside.passed_over)
        elif absolute.exists():
            images[absolute] = None
        else:
            raise UsageError(f"there is no file or folder {printable(path)}")
    if not images:
        raise UsageError("no images given; name an image file or a folder")
    folders = [path if path.is_dir() else path.parent for path in map(Path, map(os.path.abspath, paths))]
    root = Path(os.path.commonpath(folders))
    return ImageList(root, [path.relative_to(root) for path in images], list(left_out), passed_over)
