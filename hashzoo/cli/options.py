"""Options that commands share, and parsers of their values. Imports nothing that imports torch."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hashzoo.errors import UsageError
from hashzoo.storage.files import expand_user

if TYPE_CHECKING:
    from hashzoo.report.style import Style
    from hashzoo.results.board import Filter

F = TypeVar("F", bound=Callable[..., Any])


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


class DeviceName(click.Choice[str]):
    """The name of a device; a GPU of CUDA can have a number."""

    def __init__(self) -> None:
        super().__init__(["auto", "cpu", "cuda", "cuda:N", "mps", "xpu"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name."""
        numbered = isinstance(value, str) and re.fullmatch(r"cuda:\d+", value)
        return value if numbered else super().convert("?" if value == "cuda:N" else value, param, ctx)


device_option = click.option(
    "--device",
    type=DeviceName(),
    default="cpu",
    show_default=True,
    help="The device that computes; auto: a CUDA GPU if there is one.",
)


class ChoiceWithAliases(click.Choice[str]):
    """A choice that also takes former names of its values, which the help text does not list."""

    def __init__(self, choices: Sequence[str], aliases: Mapping[str, str]) -> None:
        super().__init__(choices)
        self.aliases = dict(aliases)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value, or the one that a former name stands for."""
        return super().convert(self.aliases.get(value, value), param, ctx)


#: Search engines of ``--engine``.
ENGINES = ("auto", "exact", "faiss-flat", "faiss-ivf")
engine_option = click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
cell_argument = click.argument("cell", metavar="CELL", type=file_path)


def bad_image_option(default: str) -> Callable[[F], F]:
    """The option ``--on-bad-image``, which decides what happens to images that do not decode."""
    return click.option(
        "--on-bad-image",
        type=ChoiceWithAliases(["error", "skip"], {"stop": "error"}),
        default=default,
        show_default=True,
        help="What to do about images that do not decode: stop with an error and write nothing, or leave them out.",
    )


def filter_options(command: F) -> F:
    """The options ``--methods``, ``--bits`` and ``--dataset``, which select rows of results; see :func:`row_filter`."""
    for option in (
        click.option("--dataset", metavar="D,...", help="Only these datasets; names or patterns."),
        click.option("--bits", metavar="16,32", help="Only these code lengths."),
        click.option("--methods", metavar="A,B,'p*'", help="Only these methods; names or patterns."),
    ):
        command = option(command)
    return command


def row_filter(methods: str | None, bits: str | None, dataset: str | None) -> Filter:
    """The rows that the options of :func:`filter_options` select."""
    from hashzoo.results.board import Filter

    return Filter(split_list("--methods", methods), numbers("--bits", bits), split_list("--dataset", dataset))


def style_options(command: F) -> F:
    """The options that decide the size and the fonts of a figure; see :func:`style_of`."""
    for option in (
        click.option("--font", metavar="NAME", help="An installed font [default: DejaVu Sans]."),
        click.option(
            "--font-size",
            type=click.FloatRange(1, 100),
            metavar="PT",
            default=10,
            show_default=True,
            help="Size of the text in points.",
        ),
        click.option("--size", metavar="WxH", help="Width and height of the figure in inches, such as 3.4x2.5."),
    ):
        command = option(command)
    return command


def style_of(size: str | None, font_size: float, font: str | None) -> Style:
    """The style of the options of :func:`style_options`. Raises UsageError for a size that is none."""
    from hashzoo.report.style import Style, parse_size

    return Style(parse_size(size), font_size, font)


def resolve_device(device: str) -> str:
    """The device that ``--device`` stands for. EnvironmentFailure if this machine does not have it.

    Every command that computes calls it first; it also lets the process keep freed memory.
    """
    from hashzoo.execution.processes import keep_freed_memory

    keep_freed_memory()
    if device == "cpu":
        return device
    from hashzoo.training import devices

    return devices.resolve_device(device)


def require_cpu(device: str, what: str) -> None:
    """Raise UsageError if ``--device`` asks another device of a computation that runs on the CPU only."""
    if device not in ("auto", "cpu"):
        raise UsageError(f"{what} on the CPU only; use --device cpu")


def split_list(option: str, text: str | None) -> list[str]:
    """The parts of a comma-separated text, without blanks and quotes.

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
    """``NAME.OPTION=VALUE`` by name; values are TOML, tuples as boards print them, or else text.

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
            value = _tuple_or_text(raw)
        table.setdefault(name, {})[option] = value
    return table


def _tuple_or_text(raw: str) -> Any:
    """A tuple, as the column ``settings`` of a board prints it, as a list; anything else as it is.

    >>> _tuple_or_text("('classifier.1.*',)"), _tuple_or_text("(a)")
    (['classifier.1.*'], '(a)')
    """
    import ast

    try:
        value = ast.literal_eval(raw)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return raw
    return list(value) if isinstance(value, tuple) else raw
