"""Export of a binary code as an ``IndexBinaryFlat`` of faiss."""

from __future__ import annotations

from pathlib import Path

from hashzoo.export import manifest
from hashzoo.retrieval.code_file import StoredCodes
from hashzoo.retrieval.engines import import_faiss
from hashzoo.storage.files import replace_bytes


def export(stored: StoredCodes, output: Path, code: str = "") -> list[Path]:
    """Write an index of one code, a text file of image paths, and the manifest.

    The text file has one path per line, with line breaks in a path written as ``\\n``. If K is not a multiple of 8, the
    last byte of a code is padded with zero bits, which do not change distances.

    Args:
        stored: The codes.
        output: The index file.
        code: Name of the binary code; by default ``code``, or else the first.

    Returns:
        The files written.

    Raises:
        UsageError: If there is no such binary code.
        EnvironmentFailure: If faiss is not installed.
    """
    packed = stored.packed_code(code)
    library, dimension = import_faiss(), 8 * packed.rows.shape[1]
    index = library.IndexBinaryFlat(dimension)
    index.add(packed.rows)
    data = library.serialize_index_binary(index).tobytes()
    paths = "".join(manifest.utf8_path(path).replace("\n", "\\n") + "\n" for path in stored.paths).encode()
    paths_file, manifest_file = output.with_name(output.name + ".paths"), manifest.manifest_path(output)
    replace_bytes(output, data)
    replace_bytes(paths_file, paths)
    manifest.write(
        manifest_file,
        "faiss",
        stored.metadata,
        {output.name: data, paths_file.name: paths},
        code=packed.name,
        dimension=dimension,
        codes_sha256=manifest.code_digests(stored),
    )
    return [output, paths_file, manifest_file]
