"""Export of a binary code as an ``IndexBinaryFlat`` of faiss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hashzoo.export import manifest
from hashzoo.retrieval.code_file import CodeParts, binary_code
from hashzoo.retrieval.engines import import_faiss
from hashzoo.storage.files import replace_file


def export(codes: CodeParts, output: Path, code: str = "") -> list[Path]:
    """Write an index of one code, a text file of image paths, and the manifest.

    The text file has one path per line, or one id of an index folder, with line breaks written as ``\\n``. If K is not
    a multiple of 8, the last byte of a code is padded with zero bits, which do not change distances.

    Args:
        codes: The codes.
        output: The index file.
        code: Name of the binary code; by default ``code``, or else the first.

    Returns:
        The files written.

    Raises:
        UsageError: If there is no such binary code.
        EnvironmentFailure: If faiss is not installed.
    """
    name, bits = binary_code(codes.metadata, code)
    library, dimension = import_faiss(), -(-bits // 8) * 8
    index, parts = library.IndexBinaryFlat(dimension), manifest.DigestedParts(codes)
    paths_file, manifest_file = output.with_name(output.name + ".paths"), manifest.manifest_path(output)
    with replace_file(paths_file) as file:
        for _, part in parts:
            index.add(part.array(name))
            file.writelines(map(path_line, part.names))
    write_index(library, index, output)
    manifest.write(
        manifest_file,
        "faiss",
        codes.metadata,
        [output, paths_file],
        code=name,
        dimension=dimension,
        codes_sha256=parts.digests(),
    )
    return [output, paths_file, manifest_file]


def path_line(path: str) -> bytes:
    r"""The line of a path or an id: UTF-8 with its line breaks escaped.

    >>> path_line("a\nb")
    b'a\\nb\n'
    """
    return (manifest.utf8_path(path).replace("\n", "\\n") + "\n").encode()


def write_index(library: Any, index: Any, output: Path) -> None:
    """Write a binary index of faiss atomically."""
    with replace_file(output) as file:
        library.write_index_binary(index, library.PyCallbackIOWriter(file.write))
