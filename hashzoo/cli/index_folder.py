"""Commands that change an index folder: add, update, remove, compact, merge, convert; and info."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from hashzoo.cli.encode import bad_option, images_argument, index
from hashzoo.cli.index_build import print_changes
from hashzoo.cli.options import device_option, file_path, plugin_option, resolve_device
from hashzoo.cli.output import json_option
from hashzoo.errors import UsageError, printable

__all__ = ["index"]

folder_argument = click.argument("folder", metavar="MY.index", type=file_path)
metadata_option = click.option(
    "--metadata", type=file_path, metavar="FILE.csv", help="Columns of each image, with a column id or path, or both."
)
wait_option = click.option(
    "--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for a process that changes it."
)
run_option = click.option("--run", type=file_path, metavar="CELL", help="The cell of the index, if it was moved.")
output_option = click.option("-o", "--output", required=True, type=file_path, metavar="NEW.index")


@index.command()
@folder_argument
@images_argument
@metadata_option
@wait_option
@run_option
@bad_option
@device_option
@plugin_option
def add(folder: Path, images: tuple[Path, ...], **options: Any) -> None:
    """Add IMAGES, files or folders, to an index folder.

    The id of an image is its path relative to the root of the index, or the one that --metadata gives its path. An
    image that the index has is encoded again only if its file has changed. Exit code 1: some images were left out.
    """
    _update(folder, images, None, options)


@index.command()
@folder_argument
@click.argument("images", nargs=-1, metavar="[IMAGES...]", type=file_path)
@click.option(
    "--delete", is_flag=True, help="Remove images from the index whose files in IMAGES do not exist any more."
)
@metadata_option
@wait_option
@run_option
@bad_option
@device_option
@plugin_option
def update(folder: Path, images: tuple[Path, ...], delete: bool, **options: Any) -> None:
    """Bring an index folder up to date with IMAGES, files or folders: encode those that are new or have changed.

    A file with the size and the time of the last update is not read; others are compared by their digest. Without
    IMAGES, only metadata is set. Exit code 1: some images were left out.
    """
    _update(folder, images, delete, options)


def _update(folder: Path, images: tuple[Path, ...], delete: bool | None, options: dict[str, Any]) -> None:
    from hashzoo.api.progress import bar
    from hashzoo.retrieval import index_images
    from hashzoo.retrieval.index_folder import IndexFolder

    opened = IndexFolder(folder)
    device = resolve_device(options["device"])
    encoder = index_images.encoder_of(opened, options["run"], device, options["plugins"])
    strict = options["on_bad_image"] == "error"
    with bar("images") as tell:
        how = index_images.Update(encoder, options["metadata"], delete, strict, options["wait"], tell)
        changes = index_images.update(opened, images, how)
    print_changes(changes, printable(folder))


@index.command()
@folder_argument
@click.argument("ids", nargs=-1, metavar="[ID...]")
@click.option("--from", "listed", type=file_path, metavar="FILE", help="A text file with an id in each line; -: stdin.")
@wait_option
def remove(folder: Path, ids: tuple[str, ...], listed: Path | None, wait: float) -> None:
    """Remove images from an index folder by their ids. Their files stay. An unknown id is an error."""
    from hashzoo.retrieval.index_folder import IndexFolder

    opened = IndexFolder(folder)
    given = [*ids, *_lines(listed)]
    if not given:
        raise UsageError("name the ids of images to remove, or a file of them with --from")
    with opened.writing(wait) as writer:
        count = writer.remove(given)
        left = writer.count()
    click.echo(f"{count:,} removed; {left:,} image{'s' * (left != 1)}; {printable(folder)}")


def _lines(listed: Path | None) -> list[str]:
    """The lines of a text file that are not empty."""
    if listed is None:
        return []
    try:
        text = sys.stdin.read() if str(listed) == "-" else listed.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        raise UsageError(f"there is no file {printable(listed)}; --from takes a text file of ids") from None
    return [line for line in text.splitlines() if line]


@index.command()
@folder_argument
@wait_option
def compact(folder: Path, wait: float) -> None:
    """Write the codes of an index folder as one segment, without those of removed images."""
    from hashzoo.retrieval.index_folder import IndexFolder

    opened = IndexFolder(folder)
    before = opened.info(verify=False)["bytes"]
    with opened.writing(wait) as writer:
        changed = writer.compact()
    after = opened.info(verify=False)["bytes"]
    click.echo(
        f"{before:,} to {after:,} bytes; {printable(folder)}" if changed else f"nothing to do; {printable(folder)}"
    )


@index.command()
@click.argument("first", metavar="A.index", type=file_path)
@click.argument("second", metavar="B.index", type=file_path)
@output_option
def merge(first: Path, second: Path, output: Path) -> None:
    """Write the images of two index folders, built with the same method, as one."""
    from hashzoo.retrieval import index_folder
    from hashzoo.retrieval.index_folder import IndexFolder

    merged = index_folder.merge(IndexFolder(first), IndexFolder(second), output)
    click.echo(f"{merged.info(verify=False)['images']:,} images; written to {printable(output)}")


@index.command()
@click.argument("old", metavar="OLD.index", type=file_path)
@click.argument("new", metavar="NEW.index", type=file_path)
@run_option
@plugin_option
def convert(old: Path, new: Path, run: Path | None, plugins: tuple[str, ...]) -> None:
    """Write an index file as an index folder, which can be changed.

    The first update encodes each image once, since an index file has no digests of images.
    """
    from hashzoo.retrieval import code_file, engines, index_folder
    from hashzoo.retrieval.encoder import Encoder
    from hashzoo.retrieval.image_index import open_encoder

    if old.is_dir():
        raise UsageError(f"{printable(old)} is a folder; name an index file")
    stored = code_file.read(old)
    if stored.of_vectors:
        raise UsageError(f"{printable(old)} holds codes of vectors, and an index folder holds images; keep the file")
    method = open_encoder(Encoder, stored, old, run, plugins=plugins).trained.method
    made = index_folder.convert(stored, new, engines.hamming_code(method.index()))
    click.echo(f"{made.info(verify=False)['images']:,} images; written to {printable(new)}")


@index.command()
@folder_argument
@json_option
def info(folder: Path, as_json: bool) -> None:
    """Describe an index folder, and check its files. Exit code 3: something is damaged."""
    from hashzoo.retrieval.index_folder import IndexFolder

    about = IndexFolder(folder).info()
    if as_json:
        click.echo(json.dumps(about, indent=2))
        return
    codes = ", ".join(
        f"{name}: {code['bits']} bits" if "bits" in code else f"{name}: {code['type']} {code['shape']}"
        for name, code in about["codes"].items()
    )
    lines = {
        "images": f"{about['images']:,}",
        "segments": f"{about['segments']:,}, with {about['deleted']:,} deleted rows",
        "bytes": f"{about['bytes']:,}",
        "method": f"{about['method']}, {about['bits']} bits, {about['backbone']}, trained on {about['dataset']}",
        "codes": codes,
        "cell": about["run"]["cell"],
        "root": about["root"],
        "columns": ", ".join(about["columns"]) or "none",
        "state": f"{about['state']}, sound",
    }
    for name, value in lines.items():
        click.echo(f"{name:<9}{printable(value)}")
