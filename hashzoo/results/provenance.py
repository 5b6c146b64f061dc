"""Where a cell was made, as far as it is no part of its key: how it was asked for, with what, on what, at what cost.

Nothing here may fail a cell: what cannot be found out is left out.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import subprocess  # nosec B404 # git, with a fixed list of arguments and no shell
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    pass

LIBRARIES = ("hashzoo", "torch", "torchvision", "timm", "numpy", "numba", "scipy", "scikit-learn")

_HERE = Path(__file__).resolve().parents[1] / "__init__.py"
_PATIENCE = 5.0  # seconds that git may take
_DRIVER = Path("/proc/driver/nvidia/version")


def asked(files: Iterable[Path] = ()) -> dict[str, Any]:
    """What only the process knows that a person started: its command, and the revisions of the code it finds.

    ``files`` are a plugin's: theirs is named where it is not hashzoo's own. The command is as it was typed, options
    and paths included; of the environment nothing is kept.
    """
    found: dict[str, Any] = {"command": command()}
    own = checkout(_HERE)
    if own:
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
    """The git revision of a file's checkout, and whether tracked files there differ; None where git does not have it.

    A file that lies in a checkout and is not tracked there, as one of an environment in a folder of somebody's
    project, has no revision.
    """
    # no monitor: git would start a program that the checkout names
    git = ["git", "-c", "core.fsmonitor=false", "-C", str(file.parent)]
    try:
        _output([*git, "ls-files", "--error-unmatch", "--", file.name])
        text = _output([*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    revision, _, dirty = text.strip().partition("-")
    return {"revision": revision, "dirty": bool(dirty)} if revision else None


def _output(arguments: list[str]) -> str:
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(  # nosec B603 # no shell; the only argument from outside is the path of a file
        arguments,
        env={**surroundings, "GIT_OPTIONAL_LOCKS": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=_PATIENCE,
        check=True,
        text=True,
    ).stdout


def versions() -> dict[str, str]:
    """The installed version of each library that can change a score."""
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def elapsed(seconds: float) -> dict[str, Any]:
    """When what has taken ``seconds`` until now began, in UTC, and how long it took."""
    began = datetime.now(UTC) - timedelta(seconds=seconds)
    return {"started": began.isoformat(timespec="seconds"), "seconds": round(seconds, 2)}


def spent(seconds: float, device: torch.device | None = None) -> dict[str, Any]:
    """What a measurement that took ``seconds`` until now has cost this process; memory in bytes.

    Memory is the most that this process held at once, what it loaded before included and processes that read images
    left out; that of a GPU is what torch allocated there.
    """
    found = elapsed(seconds)
    with suppress(ImportError, OSError):  # Windows has no such module
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["peak_memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device is not None and device.type == "cuda":
        found["peak_gpu_memory"] = torch.cuda.max_memory_allocated(device)
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """The device that a method is trained on, and what of its driver and libraries can change a last digit."""
    found: dict[str, Any] = {"device": str(device), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    if device.type != "cuda":
        return found
    found |= {"device": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    found["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    with suppress(OSError, ValueError):
        if match := re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", _DRIVER.read_text()):
            found["driver"] = match[1]
    return found
