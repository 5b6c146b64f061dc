"""Unpack archives into folders, completely or not at all, and never outside the destination."""

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
    """Unpack a tar or zip file into a new folder, which appears when its content is complete.

    If the archive has a single top-level folder of the same name, its content is unpacked.

    Raises:
        EnvironmentFailure: If the archive is damaged, truncated or has paths outside of itself, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".tmp", dir=folder.parent) as temporary:
            work = Path(temporary) / "all"
            work.mkdir()
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, work)
            else:
                _unpack_tar(archive, work)
            only = work / folder.name
            os.replace(only if [*work.iterdir()] == [only] and only.is_dir() else work, folder)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise EnvironmentFailure(
            f"cannot unpack {archive}: {error or type(error).__name__}; remove it to download it again"
        ) from error
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot unpack {archive} into {folder.parent}: {error.strerror or error}; use a writable folder with "
            "enough free space"
        ) from error
    return folder


def _unpack_tar(archive: Path, work: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")


def _unpack_zip(archive: Path, work: Path) -> None:
    with zipfile.ZipFile(archive) as packed:
        needed = sum(member.file_size for member in packed.infolist())
        if needed > shutil.disk_usage(work).free:
            raise OSError(f"its content has {needed} bytes, more than the free space of the disk")
        for member in packed.infolist():
            name = member.filename
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
                raise zipfile.BadZipFile(f"{name!r} is outside the destination")
        packed.extractall(work)  # nosec B202 # all names are checked above
