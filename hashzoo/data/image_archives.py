"""Images in tar archives, such as the shards of WebDataset, read one at a time without unpacking."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from hashzoo.data.formats import IMAGE_SUFFIXES
from hashzoo.data.image_paths import MAX_FILE_SIZE
from hashzoo.data.stored_images import StoredImage
from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.storage.files import disk_errors

BLOCK = tarfile.BLOCKSIZE


class Member(NamedTuple):
    """An image of an archive: its name, the position of its first byte, and its size in bytes."""

    name: str
    start: int
    size: int


@dataclass(frozen=True)
class ArchiveRun:
    """Some images of an archive, in order."""

    file: Path
    members: Sequence[Member]

    def __iter__(self) -> Iterator[tuple[str, StoredImage]]:
        with disk_errors("read", self.file), self.file.open("rb") as stream:
            for name, start, size in self.members:
                shown = f"{printable(self.file)}/{printable(name)}"
                if size > MAX_FILE_SIZE:
                    raise EnvironmentFailure(f"{shown} has {size} bytes; the limit is {MAX_FILE_SIZE}")
                stream.seek(start)
                yield name, StoredImage(shown, stream.read(size))


class ImageArchive:
    """The images of a tar archive. Created by :func:`open_archive`."""

    has_ids = False

    def __init__(self, file: Path, members: Sequence[Member]) -> None:
        self.file, self.members = file, members

    def __len__(self) -> int:
        return len(self.members)

    def digest(self) -> str:
        """Of the names, positions and sizes of the members."""
        listed = "".join(f"{name}\0{start} {size}\n" for name, start, size in self.members)
        return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()

    def run(self, start: int, stop: int) -> ArchiveRun:
        """The images from ``start`` to ``stop``."""
        return ArchiveRun(self.file, self.members[start:stop])


def open_archive(file: Path, field: str = "") -> ImageArchive:
    """List the images of a tar archive.

    Args:
        file: The archive.
        field: What follows the first dot in the names of the images, as WebDataset names the parts of a sample; by
            default, all members with the suffix of an image are taken.

    Raises:
        UsageError: If the archive is compressed or has no image, or two images have one name.
        EnvironmentFailure: If it is damaged or cut.
    """
    shown = printable(file)
    if file.suffix.lower() != ".tar":
        raise UsageError(f"{shown} is compressed, so that images cannot be read one by one; unpack it to a .tar")
    found = dict[str, Member]()
    for member in _list(file):
        name = PurePosixPath(member.name)
        wanted = name.name.partition(".")[2] == field if field else name.suffix.lower() in IMAGE_SUFFIXES
        if not member.isreg() or not wanted or name.name.startswith("."):
            continue
        if member.name in found:
            raise UsageError(f"{shown} has two images {printable(member.name)}; write the archive again")
        found[member.name] = Member(member.name, member.offset_data, member.size)
    if not found:
        wanted_ = f"member that ends in .{field}" if field else "image"
        raise UsageError(f"{shown} has no {wanted_}; name another archive{' or --column' if field else ''}")
    return ImageArchive(file, list(found.values()))


def _list(file: Path) -> Iterator[tarfile.TarInfo]:
    """The members of an archive. Raises EnvironmentFailure unless it ends as archives do, in a block of zeros."""
    shown = printable(file)
    with disk_errors("read", file), file.open("rb") as stream:
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                while (member := archive.next()) is not None:
                    yield member
                    archive.members = []  # type: ignore[attr-defined]  # they are kept otherwise
                end = archive.offset
        except tarfile.TarError as error:
            raise EnvironmentFailure(f"{shown} is damaged ({first_line(error)}); copy or write it again") from error
        stream.seek(end)  # tarfile takes some damaged headers for the end, after which there are zeros only
        rest = stream.read(BLOCK)
        while rest:
            if len(rest) < BLOCK or rest.strip(b"\0"):
                break
            rest = stream.read(1 << 20)
        if rest or stream.tell() == end:
            raise EnvironmentFailure(f"{shown} is damaged or cut at byte {end}; copy or write it again")
