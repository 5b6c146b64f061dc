"""Commands that encode images and vectors: encode, index. Imports torch only when a command runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.index_build import build_folder, cell_and_images, fitted, print_left_out
from hashzoo.cli.options import (
    bad_image_option,
    cell_argument,
    check_output,
    device_option,
    engine_option,
    file_path,
    plugin_option,
    resolve_device,
)
from hashzoo.cli.options import settings as read_settings
from hashzoo.errors import UsageError, printable

if TYPE_CHECKING:
    from hashzoo.export.items import Items
    from hashzoo.retrieval.code_file import StoredCodes

LEFT_OUT = 1

images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGES...", type=file_path)
bad_option = bad_image_option("skip")


@click.command()
@cell_argument
@images_argument
@click.option("-o", "--output", required=True, type=file_path, metavar="CODES.npz|DIR")
@click.option(
    "--shard-rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Write a folder of Parquet files of N items each; the same command continues it.",
)
@click.option("--launcher", metavar="NAME", help="With --shard-rows: where files are encoded, such as ray.")
@click.option("--jobs", type=click.IntRange(min=1), help="With --launcher: files that are encoded at once.")
@click.option("--set", "settings", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of the launcher.")
@click.option("--column", default="", metavar="NAME", help="The column of the images or vectors of a file.")
@click.option("--ids", default="", metavar="NAME", help="The column of the ids of images in tables.")
@click.option("--vectors", is_flag=True, help="With --shard-rows: keep vectors, or features of images, beside codes.")
@bad_option
@device_option
@plugin_option
def encode(
    cell: Path,
    images: tuple[Path, ...],
    output: Path,
    on_bad_image: str,
    device: str,
    plugins: tuple[str, ...],
    **options: Any,
) -> None:
    """Encode IMAGES with a trained method: files, folders, tables, tar archives, or one file of vectors.

    CELL is a .json in the folder cells of a `hashzoo bench --save-weights`, or a folder of `hashzoo quantize -o`. Exit
    code 1: some images were left out.
    """
    from hashzoo.api.progress import bar
    from hashzoo.export.items import encode_all, items_of
    from hashzoo.retrieval.vector_encoder import load_any_encoder

    strict, sharded = on_bad_image == "error", options["shard_rows"] is not None
    if not sharded:
        if options["launcher"] or options["jobs"] or options["settings"] or options["vectors"]:
            raise UsageError("--launcher, --jobs, --set and --vectors are for --shard-rows; add it, or leave them out")
        check_output(output)
    encoder = load_any_encoder(cell, device=resolve_device(device), plugins=plugins)
    encoder.with_vectors = options["vectors"]
    items = items_of(encoder, images, strict, options["column"], options["ids"])
    if sharded:
        return _encode_shards(encoder, items, output, options)
    with bar(items.kind) as tell:
        stored, skipped = encode_all(encoder, items, tell)
    write_codes(stored, skipped, output)


def _encode_shards(encoder: Any, items: Items, output: Path, options: Mapping[str, Any]) -> None:
    """Write, or continue, a folder of Parquet files."""
    from hashzoo.api.progress import bar
    from hashzoo.api.services import spreading_launcher
    from hashzoo.export import shards

    launcher, jobs, settings = options["launcher"], options["jobs"], options["settings"]
    if launcher is None and (jobs or settings):
        raise UsageError("--jobs and --set are for --launcher; add it, or leave them out")
    with ExitStack() as stack:
        spread = None
        if launcher is not None:
            away = spreading_launcher(launcher, read_settings(settings), jobs or os.cpu_count() or 1, encoder.plugins)
            stack.callback(away.close)
            spread = partial(away.spread, partial(shards.worker, *shards.sent(encoder)))
        tell = stack.enter_context(bar(items.kind))
        found = shards.encode(encoder, items, output, options["shard_rows"], tell, spread)
    print_left_out(found.left_out)
    gone = f", {len(found.left_out)} left out" if found.left_out else ""
    kept = f", {found.kept} of them kept" if found.kept else ""
    click.echo(f"{found.rows} {items.kind}{gone}; {found.files} files{kept}; written to {printable(output)}")
    if found.left_out:
        sys.exit(LEFT_OUT)


@click.group()
def index() -> None:
    """Build indexes of images and of vectors."""


@index.command()
@click.argument("given", nargs=-1, metavar="[CELL] [IMAGES...]", type=file_path)
@click.option("--vectors", type=file_path, metavar="FILE", help="Index a file of vectors instead of images.")
@click.option(
    "--rescore",
    type=click.Choice(["float16", "int8", "none"]),
    help="Numbers of the copy of the vectors that candidates are compared by  [default: float16].",
)
@click.option("-o", "--output", required=True, type=file_path, metavar="MY.index")
@click.option("--backbone", metavar="B", help="Without CELL: the backbone whose features are hashed.")
@click.option("--folder", is_flag=True, help="Write a folder that can be changed with `hashzoo index update`.")
@click.option("--metadata", type=file_path, metavar="FILE.csv", help="For --folder: columns of each id or path.")
@click.option("--root", type=file_path, metavar="DIR", help="For --folder: the folder that ids are relative to.")
@engine_option
@bad_option
@device_option
@plugin_option
def build(
    given: tuple[Path, ...], vectors: Path | None, rescore: Any, output: Path, backbone: str | None, **options: Any
) -> None:
    """Index IMAGES, files or folders, or vectors, with a trained method, for `hashzoo search`.

    CELL is a .json in the folder cells of a `hashzoo bench --save-weights`, or a folder of `hashzoo quantize -o`; the
    index needs it to encode queries. Without CELL, a hash of 128 bits is learned from IMAGES without labels and written
    beside the index, as MY.index.json and MY.index.safetensors, or in its folder. Images stay where they are; of
    vectors, a copy MY.index.npy is written. Exit code 1: some images do not decode and were left out.
    """
    from hashzoo.api.progress import bar
    from hashzoo.retrieval.encoder import load_encoder
    from hashzoo.retrieval.image_index import build as built

    if rescore and vectors is None:
        raise UsageError("--rescore is for --vectors; leave it out")
    if len(given) != 1 if vectors else not given:
        raise UsageError("name images, or a CELL and --vectors FILE")
    if options["folder"]:
        return build_folder(given, vectors, output, backbone, options)
    if other := next((name for name in ("metadata", "root") if options[name] is not None), None):
        raise UsageError(f"--{other} is for an index folder; add --folder")
    check_output(output)
    place, engine = {"device": resolve_device(options["device"]), "plugins": options["plugins"]}, options["engine"]
    if vectors is not None:
        return _build_vectors(given[0], vectors, output, rescore or "float16", engine, backbone, place)
    cell, images = cell_and_images(given)
    if cell and backbone:
        raise UsageError(f"--backbone cannot be combined with a cell; leave out {cell} or --backbone")
    encoder = load_encoder(cell or fitted(images, output.with_name(f"{output.name}.json"), backbone, **place), **place)
    with bar("images") as tell:
        stored, skipped = built(encoder, images, engine, tell, strict=options["on_bad_image"] == "error")
    write_codes(stored, skipped, output)


def _build_vectors(
    cell: Path, vectors: Path, output: Path, rescore: Any, engine: Any, backbone: str | None, place: dict[str, Any]
) -> None:
    from hashzoo.api.progress import bar
    from hashzoo.retrieval.vector_encoder import load_vector_encoder
    from hashzoo.retrieval.vector_index import build_vectors

    if backbone:
        raise UsageError("--backbone is for images; leave it out")
    coder = load_vector_encoder(cell, **place)
    with bar("vectors") as tell:
        stored = build_vectors(coder, coder.open(vectors), output, rescore, engine, tell)
    _report_codes(stored, [], output)


def write_codes(stored: StoredCodes, skipped: list[str], output: Path) -> None:
    """Write codes, and print what was written and which images were left out."""
    from hashzoo.retrieval import code_file

    code_file.write(output, stored)
    _report_codes(stored, skipped, output)


def _report_codes(stored: StoredCodes, skipped: list[str], output: Path) -> None:
    print_left_out(skipped)
    if passed_over := stored.metadata.get("passed_over"):
        folders = ", ".join(f"{name} ({count})" for name, count in passed_over.items())
        click.echo(f"passed over thumbnails and copies of other programs: {folders}", err=True)
    codes = ", ".join(
        f"{name}: {code['bits']} bits" if "bits" in code else f"{name}: {code['type']} {code['shape']}"
        for name, code in stored.metadata["codes"].items()
    )
    gone = f", {len(skipped)} left out" if skipped else ""
    noun = "vector" if stored.of_vectors else "image"
    if stored.metadata.get("vectors", {}).get("copy", "none") != "none":
        codes += f"; {stored.metadata['vectors']['copy']} vectors: {printable(output)}.npy"
    click.echo(f"{len(stored)} {noun}{'s' * (len(stored) != 1)}{gone}; {codes}; written to {printable(output)}")
    if skipped:
        sys.exit(LEFT_OUT)
