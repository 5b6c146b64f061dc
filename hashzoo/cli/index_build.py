"""`hashzoo index build`: the method that it uses, and what it does for an index folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import check_root, resolve_device
from hashzoo.errors import UsageError, printable

if TYPE_CHECKING:
    from hashzoo.retrieval.encoder import Encoder
    from hashzoo.retrieval.index_images import Changes

LEFT_OUT = 1
SHOWN = 5  # ids of images that do not exist


def build_folder(
    given: tuple[Path, ...], vectors: Path | None, output: Path, backbone: str | None, options: Mapping[str, Any]
) -> None:
    """Build an index folder of images."""
    from hashzoo.api.progress import bar
    from hashzoo.retrieval import engines, index_images
    from hashzoo.retrieval.encoder import load_encoder
    from hashzoo.retrieval.index_snapshot import ENCODER

    if vectors is not None:
        raise UsageError("--folder is for images; leave out --folder or --vectors")
    cell, images = cell_and_images(given)
    if cell and backbone:
        raise UsageError(f"--backbone cannot be combined with a cell; leave out {cell} or --backbone")
    check_root(options["root"])
    place = {"device": resolve_device(options["device"]), "plugins": options["plugins"]}

    def encoder() -> Encoder:
        return load_encoder(cell or fitted(images, output / ENCODER, backbone, **place), **place)

    def codes(method: Encoder) -> tuple[Any, str]:
        index = method.trained.method.index()
        name = engines.hamming_code(index)
        engines.select_engine(options["engine"], 0, name)  # refused before anything is encoded
        if options["engine"] == "faiss-ivf":
            raise UsageError("an index folder has no lists; leave out --engine faiss-ivf or --folder")
        return index.reads(), name

    with bar("images") as tell:
        how = index_images.Update(
            encoder, options["metadata"], strict=options["on_bad_image"] == "error", progress=tell
        )
        changes = index_images.build(output, images, options["root"], how, codes)
    print_changes(changes, f"written to {printable(output)}")


def print_changes(changes: Changes, done: str) -> None:
    """Print what an update did, and exit with 1 if images were left out."""
    print_left_out(changes.left_out)
    if changes.unknown:
        click.echo(
            f"not in the index: {len(changes.unknown)} of the metadata, such as {printable(changes.unknown[0])}",
            err=True,
        )
    if changes.gone:
        names = ", ".join(map(printable, changes.gone[:SHOWN])) + (", ..." if len(changes.gone) > SHOWN else "")
        click.echo(f"no longer there: {len(changes.gone)} ({names}); --delete removes them from the index", err=True)
    counts = {
        name: getattr(changes, name) for name in ("added", "changed", "unchanged", "removed") if getattr(changes, name)
    }
    counts |= {"left out": len(changes.left_out)} if changes.left_out else {}
    listed = ", ".join(f"{count:,} {name}" for name, count in counts.items()) or "nothing changed"
    click.echo(f"{listed}; {changes.images:,} image{'s' * (changes.images != 1)}; {done}")
    if changes.left_out:
        sys.exit(LEFT_OUT)


def print_left_out(lines: Sequence[str]) -> None:
    """Print the images that were left out."""
    for line in lines:
        click.echo(f"left out: {printable(line)}", err=True)


def cell_and_images(given: tuple[Path, ...]) -> tuple[Path | None, tuple[Path, ...]]:
    """The cell, if the first path is one, and the images."""
    from hashzoo.registry import hub

    first = given[0]
    if hub.reference(first):
        if len(given) == 1:
            raise UsageError(
                f"{hub.reference(first)} is a trained method; name the images to index, or --vectors FILE, too"
            )
        return first, given[1:]
    known = first.suffix in ("", ".safetensors") and not first.exists() and first.with_suffix(".json").is_file()
    if first.suffix != ".json" and not known:
        return None, given
    if len(given) == 1:
        raise UsageError(f"{first} is a cell; name the images to index, or --vectors FILE, too")
    return first, given[1:]


def fitted(images: tuple[Path, ...], target: Path, backbone: str | None, device: str, plugins: tuple[str, ...]) -> Path:
    """The cell of a hash that is learned from the images; ``target`` is its JSON file."""
    from hashzoo.api.progress import bar
    from hashzoo.retrieval import own_images

    def note(text: str) -> None:
        click.echo(text, err=True)

    with bar("images to learn from") as tell:
        return own_images.fit(
            images, target, backbone=backbone, device=device, plugins=plugins, note=note, progress=tell
        )
