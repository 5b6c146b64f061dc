"""Codes as an ``IndexBinaryFlat`` of faiss, row by row."""

from __future__ import annotations

from pathlib import Path

from hashzoo.export import manifest
from hashzoo.retrieval.code_file import KeptCodes
from hashzoo.retrieval.engines import faiss
from hashzoo.storage.files import replace_bytes


def export(kept: KeptCodes, output: Path, code: str = "") -> list[Path]:
    """Write the index of one code, the first unless named, its paths, one a line, and the manifest.

    A line break in a path is written as backslash and n. Where K is no multiple of 8, the last byte ends in zeros; they
    add nothing to a distance. UsageError where the method stores no bits; EnvironmentFailure where faiss is not
    installed.
    """
    name, _, packed = kept.packed(code)
    library = faiss()
    index = library.IndexBinaryFlat(8 * packed.shape[1])
    index.add(packed)
    data = library.serialize_index_binary(index).tobytes()
    paths = "".join(manifest.text(path).replace("\n", "\\n") + "\n" for path in kept.paths).encode()
    named = output.with_name(output.name + ".paths")
    replace_bytes(output, data)
    replace_bytes(named, paths)
    manifest.write(
        manifest.beside(output),
        "faiss",
        kept.about,
        {output.name: data, named.name: paths},
        code=name,
        dimension=8 * packed.shape[1],
        codes_sha256=manifest.digests(kept),
    )
    return [output, named, manifest.beside(output)]
