"""Archives into folders: all of it or nothing, and nothing outside."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from hashzoo import EnvironmentFailure


def unpack(archive: Path, folder: Path) -> Path:
    """The content of a tar or zip as a new folder, which appears when all of it is there.

    Where the archive holds one folder of that very name, the content is that folder's. EnvironmentFailure for an
    archive that is damaged, cut off, or names files outside of itself, and where the disk has no room.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent) as temporary:
            work = Path(temporary) / "all"
            work.mkdir()
            if zipfile.is_zipfile(archive):
                _zip(archive, work)
            else:
                _tar(archive, work)
            one = work / folder.name
            os.replace(one if [*work.iterdir()] == [one] and one.is_dir() else work, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise EnvironmentFailure(
            f"{archive} cannot be unpacked: {error or type(error).__name__}; remove it to download it again"
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot unpack {archive} into {folder.parent}: {error.strerror or error}; it needs a folder with room"
        ) from error
    return folder


def _tar(archive: Path, work: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")


def _zip(archive: Path, work: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        needed = sum(member.file_size for member in packed.infolist())
        if needed > shutil.disk_usage(work).free:
            raise OSError(f"it makes {needed} bytes, more than the disk has room for")
        for member in packed.infolist():
            name = member.filename
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
                raise zipfile.BadZipFile(f"{name!r} would lie outside the destination")
        packed.extractall(work)  # nosec B202 # each name was looked at above
