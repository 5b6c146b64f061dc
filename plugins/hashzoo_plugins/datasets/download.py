"""Resumable, verified, atomic downloads.

Files are stored in ``HASHZOO_DATA``, or in ``data`` in the cache folder, with one folder per dataset.
``HASHZOO_MIRROR``, such as ``http://mirror.example``, replaces the scheme and host of every URL.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import Message
from functools import partial
from pathlib import Path

import filelock

from hashzoo import EnvironmentFailure, UsageError, cache_folder, is_offline
from hashzoo_plugins.datasets.progress import Progress

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # in a row without a new byte
PAUSE = 1.0  # seconds before the second attempt, twice as many before the third
BLOCK = 1 << 18


def data_folder(name: str) -> Path:
    """The folder of a dataset."""
    configured = os.environ.get("HASHZOO_DATA")
    return (Path(configured) if configured else cache_folder() / "data") / name


@dataclass(frozen=True)
class Check:
    """Known properties of a file that is to be downloaded."""

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def has_checksum(self) -> bool:
        """Whether a checksum is known."""
        return bool(self.md5 or self.sha256)

    def problem(self, path: Path) -> str | None:
        """What is wrong with a file; None if nothing is. Raises OSError if it cannot be read."""
        size = path.stat().st_size
        if self.size is not None and size != self.size:
            return f"it has {size} bytes, expected {self.size}"
        for name, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected:
                with path.open("rb") as file:
                    checksum = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
                if checksum != expected.lower():
                    return f"its {name} is {checksum}, expected {expected.lower()}"
        return None


class DownloadError(Exception):
    """A URL does not provide the file."""


class TemporaryDownloadError(DownloadError):
    """A failure that another attempt can overcome."""


class _HTTPOnly(urllib.request.OpenerDirector):
    """Opens only http and https URLs, also after redirections."""

    def __init__(self) -> None:
        super().__init__()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            self.add_handler(handler)


def address(url: str) -> str:
    """The URL to request: the given one, or its path on HASHZOO_MIRROR. Raises UsageError unless http or https."""
    if mirror := os.environ.get("HASHZOO_MIRROR"):
        parts = urllib.parse.urlsplit(url)
        url = mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url} cannot be downloaded: only http and https are supported; check HASHZOO_MIRROR")
    return url


@dataclass(frozen=True)
class Remote:
    """A file on the web.

    Attributes:
        urls: Where it can be downloaded, in order of preference.
        path: Its path in the folder of its dataset.
        size: Its size in bytes.
        md5: Its MD5 checksum.
        sha256: Its SHA-256 checksum.
        makes: The folder that an archive is unpacked to.
    """

    urls: tuple[str, ...]
    path: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    makes: str | None = None

    def fetch(self, folder: Path, files: Sequence[str] = ()) -> Path:
        """Download the file to a folder unless it exists. Raises what :func:`fetch` raises."""
        target = folder / self.path
        return fetch(self.urls, target, size=self.size, md5=self.md5, sha256=self.sha256, files=files)


def fetch(
    urls: str | Sequence[str],
    target: Path,
    *,
    size: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    files: Sequence[str] = (),
) -> Path:
    """Download ``target`` from the first of ``urls`` that provides it, unless it exists.

    Received bytes are stored in ``target.part``, from which the next attempt resumes; only a complete file of the right
    size and checksum becomes ``target``. Processes that need the same file wait for the one that downloads it. Raises
    EnvironmentFailure if no URL provides the file, or if the running command must not use the network; the message
    names ``files`` (default: the target's name) as the files that a folder given with --root must contain.
    """
    require_network(target, files)
    check = Check(size, md5, sha256)
    addresses = list(dict.fromkeys(address(url) for url in ([urls] if isinstance(urls, str) else urls)))
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{target}.lock"):
                if not target.is_file():
                    _download_from_any(addresses, target, check, files or [target.name])
        actual_size = target.stat().st_size
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write {target}: {error.strerror or error}; "
            "set HASHZOO_DATA to a writable folder with enough free space"
        ) from error
    if size is not None and actual_size != size:
        raise EnvironmentFailure(f"{target} has {actual_size} bytes, expected {size}; remove it to download it again")
    return target


def require_network(target: Path, files: Sequence[str] = ()) -> None:
    """Raise EnvironmentFailure if a file is missing and the running command must not download it."""
    if is_offline() and not target.exists():
        raise EnvironmentFailure(
            f"{', '.join(files or [target.name])} not found in {target.parent}, and this command downloads nothing; "
            "download the dataset with hashzoo data show DATASET, or give its folder with --root FOLDER"
        )


def _download_from_any(urls: Sequence[str], target: Path, check: Check, files: Sequence[str]) -> None:
    part = target.with_name(target.name + ".part")
    reasons = []
    with Progress(target.name) as progress:
        for url in urls:
            try:
                _download(url, part, check, progress)
            except DownloadError as error:
                reasons.append(f"{url}: {error}")
                continue
            os.replace(part, target)
            _version_file(part).unlink(missing_ok=True)
            return
    kept = f" ({_size(part)} bytes are kept, the next attempt resumes from them)" if _size(part) else ""
    raise EnvironmentFailure(
        f"cannot download {target.name}: {'; '.join(reasons)}{kept}; "
        f"or get {', '.join(files)} elsewhere and give the folder with --root FOLDER"
    )


def _download(url: str, part: Path, check: Check, progress: Progress) -> None:
    """Complete the part from one URL, with new attempts as long as they bring new bytes."""
    attempts, most = 0, _size(part)
    while True:
        resumed = _size(part) > 0
        try:
            if not (check.size and _size(part) == check.size):
                _transfer(url, part, check, progress)
            if problem := check.problem(part):
                part.unlink()
                # the part of a resumed download can be of another file: try once more from the start
                raise (TemporaryDownloadError if resumed else DownloadError)(problem)
            return
        except TemporaryDownloadError as error:
            attempts, most = (0, _size(part)) if _size(part) > most else (attempts + 1, most)
            if attempts >= ATTEMPTS:
                raise DownloadError(str(error)) from error
            time.sleep(PAUSE * attempts)


def _transfer(url: str, part: Path, check: Check, progress: Progress) -> None:
    """Request the file once: its rest, if that is known to fit the part. Raises DownloadError unless it completes."""
    have, known = _size(part), _validator_of(part, url)
    if have and not (known or check.has_checksum):
        have = 0
    headers = {"User-Agent": "hashzoo", "Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": known} if known else {})
    try:
        response = _HTTPOnly().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:
            if _total(error.headers) == have and _unchanged(error.headers, known):
                return
            part.unlink()
            raise TemporaryDownloadError("the file on the server has changed") from error
        kind = TemporaryDownloadError if error.code >= 500 or error.code in (408, 429) else DownloadError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TemporaryDownloadError(_reason(error)) from error
    with response:
        if response.status == 206:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not start or int(start[1]) != have or not _unchanged(response.headers, known):
                part.unlink(missing_ok=True)
                raise TemporaryDownloadError("the file on the server has changed")
            total = _total(response.headers)
        else:
            length = response.headers.get("Content-Length")
            have, total = 0, int(length) if length and length.isdigit() else None
        if check.size is not None and total not in (None, check.size):
            raise DownloadError(f"the file on the server has {total} bytes, expected {check.size}")
        if total is None and not (check.has_checksum or check.size or response.headers.get("Transfer-Encoding")):
            raise DownloadError("the server does not send the length of the file")
        if not have:
            part.unlink(missing_ok=True)
            _version_file(part).write_text(f"{url}\n{_validator(response.headers)}\n")
        progress.start(have, total)
        with part.open("ab") as file:
            while block := _read(response):
                file.write(block)
                progress.advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(part) != total:
        if _size(part) > total:
            part.unlink()
        raise TemporaryDownloadError(f"it broke off at byte {_size(part)} of {total}")


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes of a response; empty at its end."""
    try:
        return response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise TemporaryDownloadError(_reason(error)) from error


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no response within {TIMEOUT:g} seconds"
    return (str(reason).splitlines() or [type(reason).__name__])[0]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _total(headers: Message) -> int | None:
    """The length of the whole file in Content-Range, or None."""
    match = re.match(r"bytes (?:\*|\d+-\d+)/(\d+)$", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _validator(headers: Message) -> str:
    """Identifies the version of the file on the server: a strong ETag, else Last-Modified, else empty."""
    tag: str = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _unchanged(headers: Message, known: str) -> bool:
    """Whether a response is for the version of the file that the part belongs to, as far as it tells."""
    current = _validator(headers)
    return not (known and current) or known.startswith('"') != current.startswith('"') or known == current


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".from")


def _validator_of(part: Path, url: str) -> str:
    """The version of the file that the part belongs to; empty if the part is from another URL."""
    if not _version_file(part).is_file():
        return ""
    source, _, validator = _version_file(part).read_text().partition("\n")
    return validator.strip() if source == url else ""
