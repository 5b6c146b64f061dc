"""What commands read from the command line, and what of it changes a benchmark file. No torch before it is needed."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.errors import UsageError

if TYPE_CHECKING:
    pass

plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load one more plugin; may be repeated."
)
device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to encode."
)


def parted(text: str | None) -> list[str]:
    """What commas part, without blanks and quotes.

    >>> parted("lsh, 'p*',")
    ['lsh', 'p*']
    """
    return [part.strip().strip("'\"") for part in (text or "").split(",") if part.strip()]


def insist_on_room(output: Path) -> None:
    """Show that a file can be written, before hours are spent. UsageError for a folder; EnvironmentFailure by the
    disk.
    """
    from hashzoo.storage.files import disk_errors

    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file to write")
    probe = output.with_name(f".probe-{secrets.token_hex(6)}")
    with disk_errors("write", output):
        probe.touch()
        probe.unlink()


def insist_on_root(root: Path | None) -> None:
    """UsageError where ``--root`` names nothing; what is missing in it shows when data are read."""
    if root is not None and not root.exists():
        raise UsageError(f"--root: there is no folder {root}")


def numbers(option: str, text: str | None) -> list[int]:
    """Whole numbers that commas part. UsageError naming the option where they are none."""
    try:
        return [int(part) for part in parted(text)]
    except ValueError:
        raise UsageError(f"{option} takes whole numbers such as 16,32, not {text!r}") from None


def size(text: str) -> int:
    """Bytes of a size such as ``500M`` or ``4G``, in powers of 1024. UsageError where it is none.

    >>> [size(text) for text in ("4G", "1.5k", "100")]
    [4294967296, 1536, 100]
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)i?[bB]?", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"a size is written as 500M or 4G, not {text!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def shard(text: str) -> tuple[int, int]:
    """Which of how many parts, from 1. UsageError where it is none.

    >>> shard("2/4")
    (2, 4)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard takes the first to last of some parts, as in 1/4 or 4/4, not {text!r}")
    return int(found[1]), int(found[2])


def settings(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``NAME.OPTION=VALUE`` by name; values are read as TOML, and as text where they are none.

    >>> settings(("itq.iterations=20", "mine.head.width=8"))
    {'itq': {'iterations': 20}, 'mine': {'head.width': 8}}
    """
    import tomllib

    table: dict[str, dict[str, Any]] = {}
    for text in given:
        path, equals, raw = text.partition("=")
        name, dot, option = path.rpartition(".")
        if name.endswith((".head", ".loss")):  # a composition whose parts share an option's name
            name, _, part = name.rpartition(".")
            option = f"{part}.{option}"
        if not equals or not dot or not name or not option:
            raise UsageError(f"--set takes NAME.OPTION=VALUE such as mymethod.weight=0.2, not {text!r}")
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw
        table.setdefault(name, {})[option] = value
    return table
