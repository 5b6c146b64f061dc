"""Trained methods on the Hugging Face Hub: references such as ``hf://owner/name@revision``, and their download.

A repository holds a cell, its tensors as safetensors, and ``config.json`` with the digest of each file. Only these are
downloaded, and nothing in them is executed. :mod:`hashzoo.export.hub` writes them.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from logging import ERROR
from pathlib import Path
from typing import Any

from hashzoo.errors import EnvironmentFailure, UsageError, first_line, printable
from hashzoo.storage.files import sha256
from hashzoo.storage.library_caches import provide_weights_caches
from hashzoo.storage.offline import is_offline
from hashzoo.storage.schema import refuse_newer

FORMAT, SCHEMA = "hashzoo method", 1
CONFIG, CELL, TENSORS, CHOICE = "config.json", "method.json", "method.safetensors", "choice.json"
REQUIRED, OPTIONAL = (CELL, TENSORS), (CHOICE,)

_START = re.compile(r"hf:(?:/|\Z)")  # what pathlib leaves of hf://
_REFERENCE = re.compile(r"hf:/{1,2}(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?\Z", re.ASCII)
_CLIENT = ("httpx", "httpcore", "requests", "huggingface_hub")  # modules of its exceptions, also httpx2
_SNAPSHOT = re.compile(r"models--(?P<owner>[\w.-]+?)--(?P<name>[\w.-]+)\Z", re.ASCII)


@dataclass(frozen=True)
class Reference:
    """A repository of the hub, and one of its revisions: a branch, a tag or a commit; empty for the main branch."""

    repository: str
    revision: str = ""

    def __str__(self) -> str:
        return f"hf://{self.repository}" + f"@{self.revision}" * bool(self.revision)


def reference(given: str | os.PathLike[str]) -> Reference | None:
    """The reference that a path or a text is; None for any other path.

    Raises:
        UsageError: If it begins as a reference and is none.

    >>> str(reference("hf://owner/name@v1")), reference("cells/itq.json")
    ('hf://owner/name@v1', None)
    """
    text = Path(given).as_posix()
    if not _START.match(text):
        return None
    found = _REFERENCE.match(text)
    if not found:
        shown = printable(re.sub(r"hf:/*", "hf://", text, count=1))
        raise UsageError(f"{shown} names no repository of the hub; use hf://OWNER/NAME or hf://OWNER/NAME@TAG")
    return Reference(found["repository"], found["revision"] or "")


def origin(cell: Path) -> Reference | None:
    """The reference, with its commit, of a cell in the cache of downloads; None for any other file."""
    snapshot = cell.parent
    found = _SNAPSHOT.match(snapshot.parent.parent.name)
    if not found or snapshot.parent.name != "snapshots" or not (snapshot / CONFIG).is_file():
        return None
    return Reference(f"{found['owner']}/{found['name']}", snapshot.name)


def pull(named: Reference) -> Path:
    """Download a trained method, unless the cache holds it, and return the path of its cell.

    Raises:
        UsageError: If there is no such repository or revision, or it is no trained method of hashzoo.
        EnvironmentFailure: If the hub cannot be reached or refuses, or a file is not the one that was shared.
    """
    config = _download(named, CONFIG)
    digests = _digests(named, config)
    at = Reference(named.repository, config.parent.name)  # all files of one commit
    for name in (*REQUIRED, *OPTIONAL):
        if name not in digests:
            continue
        file = _download(at, name)
        if sha256(file.read_bytes()) != digests[name]:
            raise EnvironmentFailure(
                f"{at}: {name} is not the file whose digest {CONFIG} states; delete {config.parent} to download it "
                "again, or ask the owner to push it again"
            )
    return config.parent / CELL


def _digests(named: Reference, config: Path) -> dict[str, str]:
    """The digests of files by name."""
    try:
        content = json.loads(config.read_bytes())
        ours = isinstance(content, dict) and content.get("format") == FORMAT
    except ValueError:
        ours = False
    if not ours:
        raise UsageError(f"{named} is no trained method of hashzoo; name a repository that hashzoo push wrote")
    refuse_newer(config, content.get("schema"), SCHEMA, "pull an older revision")
    files = content.get("files")
    if not isinstance(files, dict) or not all(isinstance(files.get(name), str) for name in REQUIRED):
        raise EnvironmentFailure(
            f"{named}: {CONFIG} does not list {' and '.join(REQUIRED)}; ask the owner to push again"
        )
    return files


def _download(named: Reference, name: str) -> Path:
    """The path of a file of a repository in the cache."""
    provide_weights_caches()
    from huggingface_hub import hf_hub_download

    with failures(named, f"download {name} of {named}"), quiet():
        return Path(
            hf_hub_download(
                named.repository,
                name,
                revision=named.revision or None,
                local_files_only=is_offline(),
                library_name="hashzoo",
                endpoint=endpoint(),
            )
        )


def endpoint() -> str | None:
    """The address of another hub than the usual one, from the client's variable."""
    return os.environ.get("HF_ENDPOINT") or None


@contextmanager
def failures(named: Reference, action: str) -> Iterator[None]:
    """Raise UsageError and EnvironmentFailure in place of the many exceptions of the client."""
    from huggingface_hub import errors

    try:
        yield
    except errors.LocalEntryNotFoundError as error:
        from huggingface_hub import constants

        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else first_line(error.__cause__ or error)
        raise EnvironmentFailure(
            f"cannot {action}, which is not in the cache: {reason}; connect to the network, or set HF_HOME to a cache "
            "that has it"
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError, errors.RepositoryNotFoundError) as error:
        raise UsageError(_absent(named, error)) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{named} names no repository of the hub: {first_line(error)}") from error
    except errors.LocalTokenNotFoundError as error:
        raise EnvironmentFailure(f"cannot {action}: there is no token; run hf auth login, or set HF_TOKEN") from error
    except errors.HfHubHTTPError as error:
        raise EnvironmentFailure(f"cannot {action}: {_refusal(error)}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise EnvironmentFailure(f"cannot {action}: {first_line(error)}; run the command again") from error
    except Exception as error:
        if not type(error).__module__.startswith(_CLIENT):
            raise
        raise EnvironmentFailure(f"cannot {action}: {first_line(error)}; run the command again") from error


def _absent(named: Reference, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{named} is gated; ask for access on its page, and run hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{named.repository} has no revision {named.revision or 'main'}; name a branch, a tag or a commit"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{named} is no trained method of hashzoo; name a repository that hashzoo push wrote"
    return f"there is no repository {named.repository}, or it is private; check its name, or run hf auth login"


def _refusal(error: Any) -> str:
    """Why the hub refuses, and what to do."""
    status = getattr(error.response, "status_code", 0)
    cures = {
        401: "the token is not valid; run hf auth login, or set HF_TOKEN",
        403: "the token may not do this; use one that may write to the repository",
        409: "the repository has changed meanwhile; run the command again",
        429: "too many requests; wait some minutes and run the command again",
    }
    return f"HTTP {status}: {cures.get(status, f'{first_line(error)}; run the command again later')}"


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of the client where there is no terminal, and none of its log lines."""
    from huggingface_hub.utils import logging
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    verbosity, disabled = logging.get_verbosity(), are_progress_bars_disabled()
    logging.set_verbosity(ERROR)
    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if not disabled:
            enable_progress_bars()
