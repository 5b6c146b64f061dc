"""Options that commands share, and parsers of their values. Imports nothing that imports torch."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

import click

from hashzoo.errors import UsageError
from hashzoo.storage.files import expand_user


class FilePath(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in new versions
    """A path: ``~`` stands for the home folder, and an empty text, as of an unset variable, is an error."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path of a text. Raises UsageError for an empty one."""
        text = os.fspath(value)
        if not text:
            name = param.get_error_hint(ctx).strip("'") if param is not None and ctx is not None else "a path"
            raise UsageError(f"{name} is empty; give a path, or leave it out")
        return expand_user(Path(text))


file_path = FilePath()
plugin_option = click.option(
    "--plugin", "plugins", multiple=True, metavar="FILE|MODULE", help="Load this plugin too; can be repeated."
)
device_option = click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="The device that encodes."
)


def split_list(option: str, text: str | None) -> list[str]:
    """The parts of a comma-separated text, without blanks and quotes; no parts if the option is not given.

    Raises UsageError for a text without a part, such as an unset variable of a shell: it does not mean the default.

    >>> split_list("--methods", "lsh, 'p*',"), split_list("--methods", None)
    (['lsh', 'p*'], [])
    """
    parts = [part.strip().strip("'\"").strip() for part in (text or "").split(",")]
    found = [part for part in parts if part]
    if text is not None and not found:
        raise UsageError(f"{option} is empty; give values separated by commas, or leave it out")
    return found


def check_output(output: Path) -> None:
    """Check that a file can be written, before a long computation.

    Raises UsageError for a folder, and EnvironmentFailure if the disk fails.
    """
    from hashzoo.storage.files import disk_errors

    if output.is_dir():
        raise UsageError(f"{output} is a folder; name a file to write")
    probe = output.with_name(f".probe-{secrets.token_hex(6)}")
    with disk_errors("write", output):
        probe.touch()
        probe.unlink()


def check_root(root: Path | None) -> None:
    """Raise UsageError if the folder of ``--root`` does not exist."""
    if root is not None and not root.exists():
        raise UsageError(f"--root: there is no folder {root}")


def numbers(option: str, text: str | None) -> list[int]:
    """The integers of a comma-separated text. Raises UsageError with the name of the option for anything else."""
    try:
        return [int(part) for part in split_list(option, text)]
    except ValueError:
        raise UsageError(f"{option} must be whole numbers such as 16,32, not {text!r}") from None


def size(text: str) -> int:
    """Bytes of a size such as ``500M`` or ``4G``, in powers of 1024. Raises UsageError for any other text.

    >>> [size(text) for text in ("4G", "1.5k", "100")]
    [4294967296, 1536, 100]
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kKmMgGtT]?)i?[bB]?", text.strip())
    if not found or not float(found[1]):
        raise UsageError(f"invalid size {text!r}: use a number and a unit, such as 500M or 4G")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def shard(text: str) -> tuple[int, int]:
    """The number of a shard, from 1, and the number of shards. Raises UsageError for any other text.

    >>> shard("2/4")
    (2, 4)
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(f"--shard must be I/N with I from 1 to N, such as 1/4, not {text!r}")
    return int(found[1]), int(found[2])


def settings(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``NAME.OPTION=VALUE`` by name; values are read as TOML, or as text if they are not TOML.

    >>> settings(("itq.iterations=20", "mine.head.width=8"))
    {'itq': {'iterations': 20}, 'mine': {'head.width': 8}}
    """
    import tomllib

    table: dict[str, dict[str, Any]] = {}
    for text in given:
        path, equals, raw = text.partition("=")
        name, dot, option = path.rpartition(".")
        if name.endswith((".head", ".loss")):  # the head and the loss of a composition can share the name of an option
            name, _, part = name.rpartition(".")
            option = f"{part}.{option}"
        if not equals or not dot or not name or not option:
            raise UsageError(f"--set must be NAME.OPTION=VALUE, such as mymethod.weight=0.2, not {text!r}")
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw
        table.setdefault(name, {})[option] = value
    return table
