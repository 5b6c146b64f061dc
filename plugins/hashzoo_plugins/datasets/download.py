"""Files from the web: resumed where they broke off, checked, and never half there.

Data lie in ``HASHZOO_DATA``, or ``data`` in the cache folder, one folder a dataset. ``HASHZOO_MIRROR``, as
``http://mirror.example``, takes the place of the scheme and host of every URL.
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

from hashzoo import EnvironmentFailure, UsageError, cache_folder
from hashzoo_plugins.datasets.progress import Progress

TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # in a row that bring nothing new
PAUSE = 1.0  # seconds before the second try, twice as many before the third
BLOCK = 1 << 18


def data_folder(name: str) -> Path:
    """Where one dataset lies."""
    given = os.environ.get("HASHZOO_DATA")
    return (Path(given) if given else cache_folder() / "data") / name


@dataclass(frozen=True)
class Check:
    """What is known of a file before it is there."""

    size: int | None = None
    md5: str | None = None
    sha256: str | None = None

    @property
    def summed(self) -> bool:
        """Whether a checksum is known."""
        return bool(self.md5 or self.sha256)

    def fault(self, path: Path) -> str | None:
        """What is wrong with a file, or None. OSError where it cannot be read."""
        found = path.stat().st_size
        if self.size is not None and found != self.size:
            return f"it has {found} bytes, expected {self.size}"
        for name, expected in (("sha256", self.sha256), ("md5", self.md5)):
            if expected:
                with path.open("rb") as file:
                    found_sum = hashlib.file_digest(file, partial(hashlib.new, name, usedforsecurity=False)).hexdigest()
                if found_sum != expected.lower():
                    return f"its {name} is {found_sum}, expected {expected.lower()}"
        return None


class FailedError(Exception):
    """A URL does not give the file."""


class PassingError(FailedError):
    """It may at the next try."""


class _HTTPOnly(urllib.request.OpenerDirector):
    """Opens http and https, also after a redirection, and nothing else."""

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
    """The URL that is asked for: the one given, or its place on HASHZOO_MIRROR. UsageError unless http or https."""
    if mirror := os.environ.get("HASHZOO_MIRROR"):
        parts = urllib.parse.urlsplit(url)
        url = mirror.rstrip("/") + parts.path + (f"?{parts.query}" if parts.query else "")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise UsageError(f"{url} cannot be downloaded: only http and https are; check HASHZOO_MIRROR")
    return url


@dataclass(frozen=True)
class Remote:
    """A file on the web: where it is, what is known of it, and where it lies in the folder of its dataset.

    ``makes`` is the folder that an archive becomes there.
    """

    urls: tuple[str, ...]
    path: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None
    makes: str | None = None

    def fetch(self, folder: Path, files: Sequence[str] = ()) -> Path:
        """The file inside a folder, downloaded unless it is there. EnvironmentFailure as of ``fetch``."""
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
    """The file ``target``, downloaded from the first of ``urls`` that gives it, unless it is there already.

    Bytes gather in ``target.part``, which the next try goes on from; only a whole file of the right size and checksum
    becomes ``target``. Processes that want the same file wait for the one that downloads it. EnvironmentFailure where
    no URL gives it; the message names ``files`` (by default the target's name) as what a folder given as root must
    hold.
    """
    check = Check(size, md5, sha256)
    addresses = list(dict.fromkeys(address(url) for url in ([urls] if isinstance(urls, str) else urls)))
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(f"{target}.lock"):
                if not target.is_file():
                    _from_any(addresses, target, check, files or [target.name])
        found = target.stat().st_size
    except OSError as error:
        raise EnvironmentFailure(
            f"cannot write {target}: {error.strerror or error}; set HASHZOO_DATA to a folder with room that you own"
        ) from error
    if size is not None and found != size:
        raise EnvironmentFailure(f"{target} has {found} bytes, expected {size}; remove it to download it again")
    return target


def _from_any(urls: Sequence[str], target: Path, check: Check, files: Sequence[str]) -> None:
    part = target.with_name(target.name + ".part")
    reasons = []
    with Progress(target.name) as shown:
        for url in urls:
            try:
                _from(url, part, check, shown)
            except FailedError as error:
                reasons.append(f"{url}: {error}")
                continue
            os.replace(part, target)
            _note(part).unlink(missing_ok=True)
            return
    kept = f" ({_size(part)} bytes are kept, the next try goes on from there)" if _size(part) else ""
    raise EnvironmentFailure(
        f"cannot download {target.name}: {'; '.join(reasons)}{kept}; "
        f"or get {', '.join(files)} otherwise and name the folder with --root FOLDER"
    )


def _from(url: str, part: Path, check: Check, shown: Progress) -> None:
    """Make the part whole from one URL, with as many tries as bring something new."""
    tries, most = 0, _size(part)
    while True:
        resumed = _size(part) > 0
        try:
            if not (check.size and _size(part) == check.size):
                _transfer(url, part, check, shown)
            if fault := check.fault(part):
                part.unlink()
                raise (PassingError if resumed else FailedError)(fault)  # begun on another file? then once more
            return
        except PassingError as error:
            tries, most = (0, _size(part)) if _size(part) > most else (tries + 1, most)
            if tries >= TRIES:
                raise FailedError(str(error)) from error
            time.sleep(PAUSE * tries)


def _transfer(url: str, part: Path, check: Check, shown: Progress) -> None:
    """One request, for what the part lacks where that is sure to fit. PassingError or FailedError unless whole."""
    have, known = _size(part), _validator_of(part, url)
    if have and not (known or check.summed):
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
            raise PassingError("the file there has changed") from error
        kind = PassingError if error.code >= 500 or error.code in (408, 429) else FailedError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PassingError(_why(error)) from error
    with response:
        if response.status == 206:
            start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not start or int(start[1]) != have or not _unchanged(response.headers, known):
                part.unlink(missing_ok=True)
                raise PassingError("the file there has changed")
            total = _total(response.headers)
        else:
            length = response.headers.get("Content-Length")
            have, total = 0, int(length) if length and length.isdigit() else None
        if check.size is not None and total not in (None, check.size):
            raise FailedError(f"it has {total} bytes there, expected {check.size}")
        if total is None and not (check.summed or check.size or response.headers.get("Transfer-Encoding")):
            raise FailedError("the server does not say how long the file is")
        if not have:
            part.unlink(missing_ok=True)
            _note(part).write_text(f"{url}\n{_validator(response.headers)}\n")
        shown.start(have, total)
        with part.open("ab") as file:
            while block := _read(response):
                file.write(block)
                shown.advance(len(block))
            file.flush()
            os.fsync(file.fileno())
    if total is not None and _size(part) != total:
        if _size(part) > total:
            part.unlink()
        raise PassingError(f"it broke off at byte {_size(part)} of {total}")


def _read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes that arrive; none at the end."""
    try:
        return response.read1(BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise PassingError(_why(error)) from error


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"no answer within {TIMEOUT:g} seconds"
    return (str(reason).splitlines() or [type(reason).__name__])[0]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _total(headers: Message) -> int | None:
    """The length of the whole file by Content-Range, or None."""
    found = re.match(r"bytes (?:\*|\d+-\d+)/(\d+)$", headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _validator(headers: Message) -> str:
    """What names the version of a file there: a strong ETag, else the time of its last change, else nothing."""
    tag: str = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified", "")


def _unchanged(headers: Message, known: str) -> bool:
    """Whether an answer is about the version of the file that the part was begun with, as far as it says."""
    now = _validator(headers)
    return not (known and now) or known.startswith('"') != now.startswith('"') or known == now


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".from")


def _validator_of(part: Path, url: str) -> str:
    """The version that the part was begun with, where it came from this URL, else nothing."""
    if not _note(part).is_file():
        return ""
    begun, _, validator = _note(part).read_text().partition("\n")
    return validator.strip() if begun == url else ""
