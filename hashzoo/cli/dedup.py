"""The command dedup: copies among images. Imports torch only when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import check_output, file_path
from hashzoo.cli.output import json_option, print_json
from hashzoo.errors import printable

if TYPE_CHECKING:
    from hashzoo.retrieval.duplicates import Duplicates

SHOWN = 20  # groups that are printed


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...|MY.index", type=file_path)
@click.option("-o", "--output", type=file_path, metavar="COPIES.csv", help="Write all groups as a table.")
@click.option("--html", type=file_path, metavar="PAGE.html", help="Write a page with the images side by side.")
@click.option("--flips", is_flag=True, help="Find mirrored copies too.")
@click.option(
    "--radius",
    type=click.IntRange(0, 20),
    default=14,
    show_default=True,
    help="Bits of 64 in which the perceptual hashes of candidates can differ.",
)
@json_option
def dedup(
    images: tuple[Path, ...], output: Path | None, html: Path | None, flips: bool, radius: int, as_json: bool
) -> None:
    """Find copies among IMAGES, files or folders, or among the images of an index.

    Copies can be recompressed, resized, in gray, marked, or cropped by up to a tenth of a side at each end. Nothing is
    removed: the table says which image of each group to keep. Exit code 0, also if there are copies.
    """
    from hashzoo.api.progress import bar
    from hashzoo.retrieval.duplicates import find_duplicates
    from hashzoo.storage.files import replace_bytes

    for target in (output, html):
        if target is not None:
            check_output(target)
    with bar("images") as tell:
        found = find_duplicates(images, radius=radius, flips=flips, progress=tell)
    for target, text in ((output, found.table), (html, found.page)):
        if target is not None:
            replace_bytes(target, text().encode("utf-8", "surrogateescape"))
    if as_json:
        return print_json(_records(found))
    _print(found, [target for target in (output, html) if target is not None])


def _records(found: Duplicates) -> list[dict[str, Any]]:
    return [
        {**vars(one), "path": printable(one.path), "like": printable(one.like)}
        for group in found.groups
        for one in group
    ]


def _print(found: Duplicates, written: list[Path]) -> None:
    from hashzoo.results import table

    for line in found.left_out:
        click.echo(f"left out: {printable(line)}", err=True)
    rows: list[dict[str, object]] = [
        {
            "image": printable(one.path),
            "group": str(one.group),
            "keep": "yes" if one.keep else "",
            "pixels": f"{one.width} x {one.height}",
            "what": "" if one.keep else one.what,
            "correlation": "" if one.keep else f"{one.correlation:.2f}",
        }
        for group in found.groups[:SHOWN]
        for one in group
    ]
    if rows:
        table.show([table.of_records(rows, identifies="image")])
    further = f"; {len(found.groups) - SHOWN} more groups are in the table of -o" if len(found.groups) > SHOWN else ""
    counts = (
        (found.images, "image", "images"),
        (found.copies, "copy", "copies"),
        (len(found.groups), "group", "groups"),
    )
    images, copies, groups = (f"{count:,} {one if count == 1 else more}" for count, one, more in counts)
    click.echo(f"{images}; {copies} in {groups}{further}")
    for target in written:
        click.echo(f"written to {printable(target)}")
