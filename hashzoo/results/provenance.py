"""Where and how a cell was measured, apart from its identity: command, revisions, versions, machine and cost.

No function here fails a cell: what cannot be determined is omitted.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess  # nosec B404 # git, with a fixed list of arguments and no shell
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

LIBRARIES = ("hashzoo", "torch", "torchvision", "timm", "numpy", "numba", "scipy", "scikit-learn")

_HERE = Path(__file__).resolve().parents[1] / "__init__.py"
_TIMEOUT = 5.0  # seconds
_DRIVER = Path("/proc/driver/nvidia/version")


#: The value of ``rerun`` for cells measured with other library versions, and its older name, which is accepted: rows
#: that are marked stale are those of other code.
VERSIONS = ("versions", "stale")


def describe_origin(files: Iterable[Path] = ()) -> dict[str, Any]:
    """The command that started this process, and the git revisions of hashzoo and of a plugin.

    ``files`` are the source files of the plugin. Its revision is included if it is not in the checkout of hashzoo. The
    command is recorded as typed, with its options and paths; no environment variables are recorded.
    """
    found: dict[str, Any] = {"command": command()}
    if own := checkout(_HERE):
        found["checkout"] = own
    for file in files:
        other = None if file.is_relative_to(_HERE.parents[1]) else checkout(file)
        if other:
            found["plugin_checkout"] = other
            break
    return found


def command() -> str:
    """The command that started this process, quoted for a shell."""
    short = Path(sys.argv[0]).stem == "hashzoo"
    return shlex.join(["hashzoo", *sys.argv[1:]] if short else sys.orig_argv)


@cache
def checkout(file: Path) -> dict[str, Any] | None:
    """The git revision of the checkout that tracks a file, and whether it has changes; None if there is none.

    A file in a checkout that does not track it, such as one of a virtual environment, has no revision.
    """
    # without fsmonitor, since git would run a program that the checkout configures
    git = ["git", "-c", "core.fsmonitor=false", "-C", str(file.parent)]
    try:
        _output([*git, "ls-files", "--error-unmatch", "--", file.name])
        text = _output([*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    revision, _, dirty = text.strip().partition("-")
    return {"revision": revision, "dirty": bool(dirty)} if revision else None


def _output(arguments: list[str]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(  # nosec B603 # no shell; the only external argument is the path of a file
        arguments,
        env={**environment, "GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT,
        check=True,
        text=True,
    ).stdout


def revision_text(facts: Any) -> str:
    """A recorded checkout as text: its revision, and whether it had changes; empty if it is unknown.

    >>> revision_text({"revision": "f00d", "dirty": True}), revision_text(None)
    ('f00d, with changes', '')
    """
    if not isinstance(facts, Mapping) or not facts.get("revision"):
        return ""
    return f"{facts['revision']}{', with changes' if facts.get('dirty') else ''}"


def origins(facts: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The distinct git revisions and commands of several cells, from their provenance, as far as they are known."""
    found: dict[str, dict[str, None]] = {"revisions": {}, "plugin revisions": {}, "commands": {}}
    for one in facts:
        found["revisions"].setdefault(revision_text(one.get("checkout")))
        found["plugin revisions"].setdefault(revision_text(one.get("plugin_checkout")))
        found["commands"].setdefault(str(one.get("command") or ""))
    return {name: [text for text in texts if text] for name, texts in found.items()}


def versions() -> dict[str, str]:
    """The installed versions of the libraries that can change a score."""
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def elapsed(seconds: float) -> dict[str, Any]:
    """The start in UTC and the duration of an action that took ``seconds`` until now."""
    started = datetime.now(UTC) - timedelta(seconds=seconds)
    return {"started": started.isoformat(timespec="seconds"), "seconds": round(seconds, 2)}


def resource_usage(seconds: float, device: torch.device | None = None) -> dict[str, Any]:
    """The duration and peak memory, in bytes, of a measurement that took ``seconds`` until now.

    The memory is the peak of this process, including what it loaded before, without processes that read images; that of
    a GPU is what torch allocated.
    """
    found = elapsed(seconds)
    try:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    except ImportError:  # Windows, whose own figure psutil reads
        import psutil

        with suppress(AttributeError):
            found["peak_memory"] = psutil.Process().memory_info().peak_wset
    if device is not None and device.type == "cuda":
        import torch

        found["peak_gpu_memory"] = torch.cuda.max_memory_allocated(device)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The device, and the versions of its driver and libraries that can change the last digit of a score."""
    import torch

    found: dict[str, Any] = {"device": str(device), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    if device.type != "cuda":
        return found
    found |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    with suppress(OSError, ValueError):
        if match := re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", _DRIVER.read_text()):
            found["driver"] = match[1]
    return found
