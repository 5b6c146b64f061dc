"""Commands that use a trained method: encode, index, search, export. Imports torch only when a command runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import (
    bad_image_option,
    check_output,
    check_root,
    device_option,
    file_path,
    plugin_option,
    require_cpu,
    resolve_device,
)
from hashzoo.cli.output import json_option
from hashzoo.errors import UsageError, printable

if TYPE_CHECKING:
    from hashzoo.retrieval.code_file import StoredCodes
    from hashzoo.retrieval.image_index import ImageIndex
    from hashzoo.retrieval.results_page import SearchResult

LEFT_OUT = 1
ENGINES = ("auto", "exact", "faiss-flat", "faiss-ivf")
TARGETS = ("onnx", "faiss", "parquet", "pgvector", "lancedb")

cell_argument = click.argument("cell", metavar="CELL", type=file_path)
images_argument = click.argument("images", nargs=-1, required=True, metavar="IMAGES...", type=file_path)
engine_option = click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True)
bad_option = bad_image_option("skip")


@click.command()
@cell_argument
@images_argument
@click.option("-o", "--output", required=True, type=file_path, metavar="CODES.npz")
@bad_option
@device_option
@plugin_option
def encode(
    cell: Path, images: tuple[Path, ...], output: Path, on_bad_image: str, device: str, plugins: tuple[str, ...]
) -> None:
    """Encode IMAGES, files or folders, with the trained method of a cell.

    CELL is a .json in the folder cells of a `hashzoo bench --save-weights`. Exit code 1: some images were left out.
    """
    from hashzoo.api.progress import bar
    from hashzoo.retrieval.encoder import load_encoder
    from hashzoo.retrieval.image_index import encode_files

    check_output(output)
    encoder = load_encoder(cell, device=resolve_device(device), plugins=plugins)
    with bar("images") as tell:
        stored, skipped = encode_files(encoder, images, None, tell, strict=on_bad_image == "error")
    _written(stored, skipped, output)


@click.group()
def index() -> None:
    """Build indexes of images."""


@index.command()
@click.argument("images", nargs=-1, required=True, metavar="[CELL] IMAGES...", type=file_path)
@click.option("-o", "--output", required=True, type=file_path, metavar="MY.index")
@click.option("--backbone", metavar="B", help="Without CELL: the backbone whose features are hashed.")
@engine_option
@bad_option
@device_option
@plugin_option
def build(
    images: tuple[Path, ...],
    output: Path,
    backbone: str | None,
    engine: str,
    on_bad_image: str,
    device: str,
    plugins: tuple[str, ...],
) -> None:
    """Index IMAGES, files or folders, for `hashzoo search`.

    CELL is a .json in the folder cells of a `hashzoo bench --save-weights`; the index needs it to encode queries.
    Without CELL, a hash of 128 bits is learned from IMAGES without labels and written beside the index, as
    MY.index.json and MY.index.safetensors. The images stay where they are. Exit code 1: some do not decode and were
    left out.
    """
    from hashzoo.api.progress import bar
    from hashzoo.retrieval.encoder import load_encoder
    from hashzoo.retrieval.image_index import build as built

    check_output(output)
    resolved = resolve_device(device)
    cell, images = _cell_and_images(images)
    if cell and backbone:
        raise UsageError(f"--backbone cannot be combined with a cell; leave out {cell} or --backbone")
    cell = cell or _fitted(images, output, backbone, resolved, plugins)
    encoder = load_encoder(cell, device=resolved, plugins=plugins)
    with bar("images") as tell:
        stored, skipped = built(encoder, images, engine, tell, strict=on_bad_image == "error")
    _written(stored, skipped, output)


def _cell_and_images(given: tuple[Path, ...]) -> tuple[Path | None, tuple[Path, ...]]:
    """The cell, if the first path is one, and the images."""
    first = given[0]
    known = first.suffix in ("", ".safetensors") and not first.exists() and first.with_suffix(".json").is_file()
    if first.suffix != ".json" and not known:
        return None, given
    if len(given) == 1:
        raise UsageError(f"{first} is a cell; name the images to index too")
    return first, given[1:]


def _fitted(
    images: tuple[Path, ...], output: Path, backbone: str | None, device: str, plugins: tuple[str, ...]
) -> Path:
    """The cell of a hash that is learned from the images, beside the index."""
    from hashzoo.api.progress import bar
    from hashzoo.retrieval import own_images

    def note(text: str) -> None:
        click.echo(text, err=True)

    target = output.with_name(f"{output.name}.json")
    with bar("images to learn from") as tell:
        return own_images.fit(
            images, target, backbone=backbone, device=device, plugins=plugins, note=note, progress=tell
        )


def _written(stored: StoredCodes, skipped: list[str], output: Path) -> None:
    """Write codes, and print what was written and which images were left out."""
    from hashzoo.retrieval import code_file

    code_file.write(output, stored)
    for line in skipped:
        click.echo(f"left out: {printable(line)}", err=True)
    if passed_over := stored.metadata.get("passed_over"):
        folders = ", ".join(f"{name} ({count})" for name, count in passed_over.items())
        click.echo(f"passed over thumbnails and copies of other programs: {folders}", err=True)
    codes = ", ".join(
        f"{name}: {code['bits']} bits" if "bits" in code else f"{name}: {code['type']} {code['shape']}"
        for name, code in stored.metadata["codes"].items()
    )
    gone = f", {len(skipped)} left out" if skipped else ""
    click.echo(f"{len(stored)} image{'s' * (len(stored) != 1)}{gone}; {codes}; written to {printable(output)}")
    if skipped:
        sys.exit(LEFT_OUT)


@click.command()
@click.argument("index", metavar="MY.index", type=file_path)
@click.argument("queries", nargs=-1, required=True, metavar="QUERY...", type=file_path)
@click.option("--top", type=click.IntRange(min=1), default=20, show_default=True, help="Number of results.")
@click.option(
    "--op",
    "operation",
    type=click.Choice(["union", "intersection", "difference"]),
    help="Combine two QUERY images: what either, both, or only the first shows.",
)
@engine_option
@click.option("--html", is_flag=True, help="Also write the results with their images as one page.")
@click.option("-o", "--output", type=file_path, metavar="FILE.html", help="The page of --html.  [default: found.html]")
@json_option
@click.option("--run", type=file_path, metavar="CELL", help="The cell of the index, if it was moved.")
@click.option("--root", type=file_path, metavar="DIR", help="The folder of the images, if it was moved.")
@device_option
@plugin_option
def search(
    index: Path,
    queries: tuple[Path, ...],
    top: int,
    operation: str | None,
    html: bool,
    output: Path | None,
    as_json: bool,
    **opening: Any,
) -> None:
    """Find the images of an index that are nearest to each QUERY image.

    For a method that does not rank by one Hamming distance, the score has no meaning except for the order.
    """
    from hashzoo.retrieval.image_index import open_index
    from hashzoo.storage.files import replace_bytes

    if operation and len(queries) != 2:
        raise UsageError(f"--op {operation} requires two images, not {len(queries)}")
    if output and not html:
        raise UsageError(f"--output is the page of --html; add --html or leave out {output}")
    output = output or Path("found.html")
    if folder := next((path for path in queries if path.is_dir()), None):
        raise UsageError(f"{folder} is a folder; name the query images")
    if missing := next((path for path in queries if not path.exists()), None):
        raise UsageError(f"there is no file {missing}")
    check_root(opening["root"])
    opening["device"] = resolve_device(opening["device"])
    opened = open_index(index, **opening)
    found = _answers(opened, queries, top, operation)
    what = "distance" if opened.integer else "score"
    if html:
        from hashzoo.retrieval.results_page import render_page

        title = f"{opened.metadata['method']}, {opened.metadata['bits']} bits: {len(opened):,} images"
        replace_bytes(output, render_page(title, found, what).encode("utf-8", "backslashreplace"))
    if as_json:
        answers = [
            {"query": [str(path) for path in one.queries], "found": [_plain(hit) for hit in one.hits]} for one in found
        ]
        click.echo(
            json.dumps({"method": opened.metadata["method"], "engine": opened.engine, "answers": answers}, indent=2)
        )
    else:
        _print_results(found, what)
    if html:
        click.echo(f"written to {output}", err=as_json)


def _answers(opened: ImageIndex, queries: tuple[Path, ...], top: int, operation: Any) -> list[SearchResult]:
    from hashzoo.retrieval.results_page import SearchResult

    if operation:
        first, second = queries
        heading = f"{operation} of {printable(first)} and {printable(second)}"
        return [SearchResult(heading, queries, opened.compose(operation, first, second, top))]
    hits = opened.search(list(queries), top)
    return [SearchResult(printable(path), [path], one) for path, one in zip(queries, hits, strict=True)]


def _plain(hit: Any) -> dict[str, Any]:
    return {"row": hit.row, "path": str(hit.path), "distance": hit.distance}


def _print_results(found: list[SearchResult], what: str) -> None:
    from hashzoo.results.table import Column, Entry, TextTable, show

    columns = (Column("rank"), Column(what, identifies=True), Column("image", text=True, identifies=True))
    tables = [
        TextTable(
            columns,
            [
                [Entry(str(rank)), Entry(f"{hit.distance:g}"), Entry(printable(hit.path))]
                for rank, hit in enumerate(one.hits, 1)
            ],
            one.heading,
            ruled=False,
        )
        for one in found
    ]
    show(tables)


@click.command()
@click.argument("source", metavar="CELL|MY.index", type=file_path)
@click.option("--to", "target", required=True, type=click.Choice(TARGETS))
@click.option("-o", "--output", required=True, type=file_path, metavar="FILE|DIR")
@click.option("--code", default="", metavar="NAME", help="The code to search by, if there are several.")
@click.option(
    "--check", "checked", multiple=True, type=file_path, metavar="IMAGES", help="Check ONNX with these images."
)
@click.option(
    "--root",
    type=file_path,
    metavar="DIR",
    help="For ONNX, the folder of the dataset's files, to check with. Otherwise, write paths relative to this folder.",
)
@device_option
@plugin_option
def export(
    source: Path,
    target: str,
    output: Path,
    code: str,
    checked: tuple[Path, ...],
    **options: Any,
) -> None:
    """Export a trained method as ONNX, or the codes of an index for other programs, with a manifest.

    `onnx` takes CELL, a cell's .json, and compares the result with torch on the queries of the cell's dataset, or on
    the images of --check, on the CPU. The other targets take an index or codes of `hashzoo encode`.
    """
    require_cpu(options["device"], "hashzoo export computes")
    root, plugins = options["root"], options["plugins"]
    if target == "onnx":
        from hashzoo.export import onnx
        from hashzoo.retrieval.encoder import load_encoder

        if code:
            raise UsageError("--to onnx exports all codes; leave out --code")
        check_output(output)
        if source.suffix in (".npz", ".index"):
            raise UsageError(f"--to onnx exports a method: name a cell's .json, not {source}")
        found = onnx.export(load_encoder(source, plugins=plugins), output, checked, root)
        click.echo(
            f"checked against torch with {found.images:,} images: {found.differing} of {found.bits:,} bits differ"
            + (f", none of them {onnx.TOLERANCE:g} or more from its threshold" if found.differing else "")
        )
        click.echo(f"written to {output}")
        return
    from hashzoo.retrieval import code_file

    if checked:
        raise UsageError("--check requires --to onnx")
    if source.suffix == ".json":
        raise UsageError(f"--to {target} exports codes: name an index or codes of hashzoo encode, not {source}")
    stored = code_file.read(source)
    if root is not None:
        stored = code_file.relative_to(stored, root)
    click.echo(f"written to {_exported(target, stored, output, code)}")


def _exported(target: str, stored: StoredCodes, output: Path, code: str) -> str:
    if target == "faiss":
        from hashzoo.export import faiss

        files = faiss.export(stored, output, code)
    elif target == "pgvector":
        from hashzoo.export import postgresql

        files = postgresql.export(stored, output, code)
    else:
        from hashzoo.export import lancedb, parquet

        if code:
            raise UsageError(f"--to {target} exports all codes; leave out --code")
        files = (lancedb if target == "lancedb" else parquet).export(stored, output)
    return ", ".join(map(str, files))
