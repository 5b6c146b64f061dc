"""Commands that use codes and a trained method: search, export. Imports torch only when a command runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import (
    check_output,
    check_root,
    device_option,
    engine_option,
    file_path,
    plugin_option,
    require_cpu,
    resolve_device,
)
from hashzoo.cli.output import json_option
from hashzoo.errors import UsageError, printable

if TYPE_CHECKING:
    from hashzoo.retrieval.code_file import CodeParts
    from hashzoo.retrieval.hit import SearchResult
    from hashzoo.retrieval.image_index import ImageIndex

TOP = 20  # results of a query
TARGETS = ("onnx", "faiss", "faiss-ivf", "parquet", "pgvector", "lancedb", "milvus")


def _weights(_context: Any, _option: Any, grains: Sequence[str]) -> dict[str, float] | None:
    """The weight of each code that --grain names; None if it is not given.

    >>> _weights(None, None, ["code", "fine=0.5"])
    {'code': 1.0, 'fine': 0.5}
    """
    weights: dict[str, float] = {}
    for grain in grains:
        name, given, weight = grain.partition("=")
        if name in weights:
            raise UsageError(f"--grain {name} is given twice; leave out one")
        try:
            weights[name] = float(weight) if given else 1.0
        except ValueError:
            raise UsageError(f"--grain {grain}: {weight!r} is not a number; write {name or 'fine'}=0.5") from None
    return weights or None


@click.command()
@click.argument("index", metavar="MY.index", type=file_path)
@click.argument("queries", nargs=-1, metavar="QUERY...", type=file_path)
@click.option(
    "--top", type=click.IntRange(min=1), help="Number of results.  [default: 20, or all within --radius]", metavar="K"
)
@click.option("--radius", type=click.IntRange(min=0), metavar="R", help="Only codes that differ in at most R bits.")
@click.option(
    "--where", default="", metavar="SQL", help="Of an index folder: only images whose metadata meets a condition."
)
@click.option(
    "--codes", type=file_path, metavar="FILE", help="Of an index folder: search with codes (.npz of encode, .npy)."
)
@click.option("--like", multiple=True, metavar="ID", help="Of an index folder: search with the code of an image in it.")
@click.option(
    "--op",
    "operation",
    type=click.Choice(["union", "intersection", "difference"]),
    help="Combine two QUERY images: what either, both, or only the first shows.",
)
@click.option(
    "--grain",
    "weights",
    multiple=True,
    callback=_weights,
    metavar="CODE[=WEIGHT]",
    help="Rank by this code of a method that stores several, such as fine; can be repeated, such as code=1 fine=0.5.",
)
@click.option(
    "--factor",
    type=float,
    help="Of an index of vectors: compare FACTOR times --top candidates exactly; 0: by code only.",
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
    top: int | None,
    operation: str | None,
    html: bool,
    output: Path | None,
    as_json: bool,
    **opening: Any,
) -> None:
    """Find the images of an index that are nearest to each QUERY image, or the vectors nearest to each row of QUERY.

    With --codes or --like there is no QUERY, and the method is not loaded. --where takes an expression of SQL, such as
    "year > 2020". For a method that does not rank by one Hamming distance, the score has no meaning except for the
    order.
    """
    if operation and len(queries) != 2:
        raise UsageError(f"--op {operation} requires two images, not {len(queries)}")
    if output and not html:
        raise UsageError(f"--output is the page of --html; add --html or leave out {output}")
    output = output or Path("found.html")
    limits = _limits(top, operation, opening)
    if opening["codes"] or opening["like"]:
        from hashzoo.cli.search_codes import search_codes

        if queries or html:
            raise UsageError("--codes and --like stand in place of QUERY, and cannot be combined with --html")
        return show_found(search_codes(index, opening["codes"], opening["like"], *limits), "distance", as_json)
    if not queries:
        raise UsageError("name a QUERY, or search an index folder with --codes or --like")
    _check_queries(queries)
    check_root(opening["root"])
    opened = _opened(index, queries, limits, as_json, {**opening, "pages": html or operation})
    if opened is None:
        return None
    found = _answers(opened, queries, limits, operation)
    what = "distance" if opened.integer else "score"
    if html:
        from hashzoo.retrieval.results_page import render_page
        from hashzoo.storage.files import replace_bytes

        title = f"{opened.metadata['method']}, {opened.metadata['bits']} bits: {len(opened):,} images"
        replace_bytes(output, render_page(title, found, what).encode("utf-8", "backslashreplace"))
    show_found((opened.metadata["method"], opened.engine, found), what, as_json)
    if html:
        click.echo(f"written to {output}", err=as_json)
    return None


def _limits(top: int | None, operation: str | None, opening: dict[str, Any]) -> tuple[int | None, int | None, str]:
    """The number of results, the radius and the condition; they leave the options."""
    radius, where = opening.pop("radius"), opening.pop("where")
    if radius is not None and operation:
        raise UsageError("--radius is for the code of one image; leave out --radius or --op")
    return top if top or radius is not None else TOP, radius, where


def _opened(
    index: Path, queries: tuple[Path, ...], limits: tuple[int | None, int | None, str], as_json: bool, opening: Any
) -> ImageIndex | None:
    """The index of images, or None once an index of vectors has been searched."""
    top, radius, where = limits
    opening["device"], factor = resolve_device(opening["device"]), opening.pop("factor")
    pages = opening.pop("pages")
    del opening["codes"], opening["like"]
    from hashzoo.cli.search_vectors import search_vectors
    from hashzoo.retrieval import code_file
    from hashzoo.retrieval.image_index import open_index
    from hashzoo.retrieval.index_folder import read_codes
    from hashzoo.retrieval.index_snapshot import Snapshot, is_folder

    if code_file.holds_vectors(index):
        if pages or opening.pop("root") or opening.pop("weights"):
            raise UsageError(f"{index} holds vectors, so --html, --op, --grain and --root do not apply; leave them out")
        if radius is not None or where:
            raise UsageError(f"{index} holds vectors, so --radius and --where do not apply; leave them out")
        search_vectors(index, queries, top or TOP, factor, as_json, opening)
        return None
    if factor is not None:
        raise UsageError(f"{index} holds images, and --factor is for vectors; leave it out")
    if where and not is_folder(index):
        read_codes(index, where)  # raises
    return open_index(Snapshot(index, where) if where else index, **opening)


def _check_queries(queries: tuple[Path, ...]) -> None:
    """Raise UsageError for a query that is not a file."""
    if folder := next((path for path in queries if path.is_dir()), None):
        raise UsageError(f"{folder} is a folder; name the query images")
    if missing := next((path for path in queries if not path.exists()), None):
        raise UsageError(f"there is no file {missing}")


def _answers(
    opened: ImageIndex, queries: tuple[Path, ...], limits: tuple[int | None, int | None, str], operation: Any
) -> list[SearchResult]:
    from hashzoo.retrieval.hit import SearchResult

    top, radius, _ = limits
    if operation:
        first, second = queries
        heading = f"{operation} of {printable(first)} and {printable(second)}"
        return [SearchResult(heading, queries, opened.compose(operation, first, second, top or TOP))]
    asked = list(queries)
    hits = opened.search(asked, top or TOP) if radius is None else opened.within(asked, radius, top)
    return [SearchResult(printable(path), [path], one) for path, one in zip(queries, hits, strict=True)]


def show_found(result: tuple[str, str, list[SearchResult]], what: str, as_json: bool) -> None:
    """Print the method, the engine and the hits of each query as JSON, or the hits as tables."""
    method, engine, found = result
    if as_json:
        answers = [
            {"query": [str(path) for path in one.queries], "found": [vars(hit) for hit in one.hits]} for one in found
        ]
        click.echo(json.dumps({"method": method, "engine": engine, "answers": answers}, indent=2, default=str))
    else:
        _print_results(found, what)


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

    An index of vectors is exported with its vectors, to re-score candidates there.

    `onnx` takes CELL, a cell's .json or a folder of `hashzoo quantize -o`, and compares the result with torch on the
    CPU: on the queries of the cell's dataset, on random vectors, or on the images of --check. The other targets take
    an index or codes of `hashzoo encode`.
    """
    require_cpu(options["device"], "hashzoo export computes")
    root, plugins = options["root"], options["plugins"]
    if target == "onnx":
        from hashzoo.export import onnx
        from hashzoo.retrieval.vector_encoder import load_any_encoder

        if code:
            raise UsageError("--to onnx exports all codes; leave out --code")
        check_output(output)
        if source.suffix in (".npz", ".index"):
            raise UsageError(f"--to onnx exports a method: name a cell's .json, not {source}")
        encoder = load_any_encoder(source, plugins=plugins)
        found = onnx.export(encoder, output, checked, root)
        click.echo(
            f"checked against torch with {found.images:,} {encoder.items}: "
            f"{found.differing} of {found.bits:,} bits differ"
            + (f", none of them {onnx.TOLERANCE:g} or more from its threshold" if found.differing else "")
        )
        click.echo(f"written to {output}")
        return
    from hashzoo.export import code_folder
    from hashzoo.retrieval.code_file import RelativeTo
    from hashzoo.retrieval.index_folder import read_codes

    if checked:
        raise UsageError("--check requires --to onnx")
    if source.suffix == ".json":
        raise UsageError(f"--to {target} exports codes: name an index or codes of hashzoo encode, not {source}")
    codes: CodeParts
    codes = code_folder.CodeFolder(source) if code_folder.is_folder(source) else read_codes(source)
    if root is not None:
        relative = RelativeTo(codes, root)
        # codes that are in memory are checked before an exporter begins
        codes = relative if isinstance(codes, code_folder.CodeFolder) else next(relative.parts())
    click.echo(f"written to {_exported(target, source, codes, output, code, plugins)}")


def _exported(target: str, source: Path, codes: CodeParts, output: Path, code: str, plugins: tuple[str, ...]) -> str:
    from hashzoo.retrieval.code_file import StoredCodes
    from hashzoo.retrieval.vector_index import open_copy

    stored = codes if isinstance(codes, StoredCodes) else None
    copy = open_copy(source, stored) if stored is not None else None
    if stored is not None and target == "faiss" and copy is not None and not code:
        from hashzoo.export import faiss_vectors
        from hashzoo.retrieval.image_index import open_encoder
        from hashzoo.retrieval.vector_encoder import VectorEncoder

        encoder = open_encoder(VectorEncoder, stored, source, None, plugins=plugins)
        files = faiss_vectors.export(encoder, stored, copy, output)
    elif target == "faiss":
        from hashzoo.export import faiss

        files = faiss.export(codes, output, code)
    elif target == "faiss-ivf":
        from hashzoo.export import faiss_lists

        files = faiss_lists.export(codes, output, code)
    elif target == "pgvector" and "vectors" in codes.metadata:
        from hashzoo.export import postgresql_vectors

        files = postgresql_vectors.export(codes, copy, output, code)
    elif target == "pgvector":
        from hashzoo.export import postgresql

        files = postgresql.export(codes, output, code)
    else:
        from hashzoo.export import lancedb, milvus, parquet

        if code:
            raise UsageError(f"--to {target} exports all codes; leave out --code")
        if target == "milvus":
            files = milvus.export(codes, output)
        else:
            files = (lancedb if target == "lancedb" else parquet).export(codes, output, copy)
    return ", ".join(map(str, files))
