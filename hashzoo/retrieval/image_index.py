"""Searchable images: their codes in a file, and the method that encodes queries."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import torch

from hashzoo.data import image_paths
from hashzoo.distance import PackedDistance, hamming_of
from hashzoo.errors import EnvironmentFailure, UnknownItemError, UsageError
from hashzoo.hamming.multi_index import RadiusSearch
from hashzoo.hamming.packing import pack
from hashzoo.index import Scan
from hashzoo.retrieval import engines
from hashzoo.retrieval.code_file import CodeCollector, StoredCodes
from hashzoo.retrieval.encoder import Encoder, ImageLike, TrainedEncoder
from hashzoo.retrieval.hit import Hit
from hashzoo.retrieval.index_folder import read_codes
from hashzoo.retrieval.index_search import searcher
from hashzoo.retrieval.index_snapshot import Snapshot, names_at
from hashzoo.retrieval.vector_encoder import load_any_encoder
from hashzoo.types import Codes, Operation, ProgressCallback, Ranking

E = TypeVar("E", bound=TrainedEncoder)


def open_index(
    file: str | os.PathLike[str] | Snapshot,
    *,
    run: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    plugins: Sequence[str] = (),
    weights: Mapping[str, float] | None = None,
) -> ImageIndex:
    """Open an index that ``hashzoo index build`` wrote.

    Args:
        file: The index: a file, a folder, whose last state is opened, or a state of a folder, such as
            ``hashzoo.IndexFolder("my.index").snapshot("year > 2020")``.
        run: The ``.json`` of the cell whose method built the index; needed if the cell was moved.
        root: The folder of the images; needed if they were moved.
        engine: ``"exact"``, ``"faiss-flat"``, ``"faiss-ivf"``, or ``"auto"`` to choose one by the size of the index.
        device: Where queries are encoded; a name as for :func:`hashzoo.load_encoder`.
        plugins: Plugin files or modules to load. They must include every such plugin that the cell was measured with.
        weights: Weights of stored binary codes to rank by, by name; see :meth:`ImageIndex.by`. None ranks as the method
            does.

    Returns:
        The index.

    Raises:
        UsageError: If there is no such file, cell or code, or the engine cannot search the index.
        EnvironmentFailure: If the file is damaged, or the method is not the one that built the index.
    """
    stored = file.stored() if isinstance(file, Snapshot) else read_codes(Path(file))
    file = file.path if isinstance(file, Snapshot) else file
    if stored.of_vectors:
        raise UsageError(
            f"{file} holds codes of vectors, not of images; use hashzoo search or hashzoo.open_vector_index"
        )
    encoder = open_encoder(Encoder, stored, file, run, device=device, plugins=plugins)
    return ImageIndex(stored, encoder, None if root is None else Path(root), engine, weights)


def open_encoder(
    kind: type[E],
    stored: StoredCodes,
    file: str | os.PathLike[str],
    run: str | os.PathLike[str] | None,
    *,
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> E:
    """The encoder, of a kind, that made the codes of a file; arguments as for :func:`open_index`."""
    builder = stored.metadata["run"]
    if run is None:
        run = builder["cell"] if Path(builder["cell"]).is_file() else builder.get("hub")
    if run is None:
        raise UsageError(f"the cell {builder['cell']} of {file} does not exist; name its new path with --run")
    encoder = load_any_encoder(run, device=device, plugins=plugins)
    current = encoder.describe()["run"]
    if not isinstance(encoder, kind) or (current["key"], current["state"]) != (builder["key"], builder["state"]):
        raise EnvironmentFailure(
            f"{file} was built with another method than that of {encoder.cell}, so codes cannot be compared; name the "
            "cell that built it with --run, or build the index again"
        )
    return encoder


@final
class ImageIndex:
    """Codes of N images, searched with images, codes, or compositions of two images.

    Created by :func:`hashzoo.open_index`; ``len(index)`` is N.

    Attributes:
        encoder: The method that encodes queries.
        metadata: The description of the encoder when the index was built, as JSON values.
        root: The folder that the stored paths are relative to.
        engine: The name of the search engine.
        integer: Whether distances are numbers of bits.
        code: The name of the single code whose Hamming distance ranks the images; empty if the method ranks in another
            way.
    """

    def __init__(
        self,
        stored: StoredCodes,
        encoder: Encoder,
        root: Path | None = None,
        engine: str = "auto",
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.encoder, self.metadata, self._stored = encoder, stored.metadata, stored
        self.root = Path(stored.metadata["root"]) if root is None else root
        index = encoder.trained.method.index()
        own = engines.hamming_code(index)
        if weights is not None:
            for name in weights:
                stored.packed_code(name)  # refuses a name that is not that of a binary code
            index = Scan(hamming_of(weights))
        self.integer = isinstance(index, Scan) and isinstance(index.distance, PackedDistance)
        self.code = engines.hamming_code(index)
        self.engine, self._search = searcher(stored, index, engine, own)
        self._near: RadiusSearch | None = None

    def __len__(self) -> int:
        return len(self._stored)

    def name(self, row: int) -> str:
        """The path of the image in a row, relative to ``root``."""
        return self._stored.paths[row]

    def id(self, row: int) -> str:
        """The id of the image in a row: its own one in an index folder, or its path relative to ``root``."""
        return (self._stored.ids or self._stored.paths)[row]

    def row(self, item: str) -> int:
        """The row of the image of an id. Raises UsageError if there is none."""
        ids = self._stored.ids or self._stored.paths
        try:
            return ids.index(item)
        except ValueError:
            raise UnknownItemError("the index", item) from None

    def path(self, row: int) -> Path:
        """The file of the image in a row."""
        return self.root / self._stored.paths[row]

    def codes(self, row: int) -> Codes:
        """The stored codes of the image in a row: (1, K) bool, or (1, ...) values."""
        return self._stored.codes(row, row + 1)

    def by(self, weights: Mapping[str, float]) -> ImageIndex:
        """The same images, ranked by other codes that the method stores, such as those of grains.

        Args:
            weights: Weight of each code, by name. With one code, distances are numbers of differing bits; with several,
                sums of the shares of differing bits times the weights, found by an exact scan.

        Returns:
            An index that shares the stored codes with this one.

        Raises:
            UsageError: If a code does not exist or is not binary, or no weight is positive.
        """
        return ImageIndex(self._stored, self.encoder, self.root, weights=weights)

    def rank(self, queries: Codes, k: int) -> Ranking:
        """Find the nearest rows of encoded queries.

        Args:
            queries: Codes of Q images, as :meth:`Encoder.encode` returns them.
            k: Number of rows to return for each query.

        Returns:
            Rows and distances, both (Q, k), nearest first and equal distances ordered by row. Row -1 marks a place that
            the engine ``faiss-ivf`` could not fill.
        """
        if not len(self):
            count = len(next(iter(queries.values())))
            return Ranking(torch.empty(count, 0, dtype=torch.long), torch.empty(count, 0))
        return self._search(queries, min(k, len(self)))

    def search(self, queries: ImageLike | Sequence[ImageLike] | Codes, k: int = 20) -> list[list[Hit]]:
        """Find the nearest images of each query.

        Args:
            queries: Images as :meth:`Encoder.encode` takes them, or codes that it returned.
            k: Number of images to return for each query.

        Returns:
            For each query, up to k hits, nearest first.

        Raises:
            EnvironmentFailure: If a query does not decode.
        """
        ranking = self.rank(queries if isinstance(queries, dict) else self.encoder.encode(queries), k)
        return [self._hits(*pair) for pair in zip(ranking.rows.tolist(), ranking.distances.tolist(), strict=True)]

    def within(
        self, queries: ImageLike | Sequence[ImageLike] | Codes, radius: int, k: int | None = None
    ) -> list[list[Hit]]:
        """Find the images whose codes differ from that of each query in at most a number of bits.

        Args:
            queries: Images as :meth:`Encoder.encode` takes them, or codes that it returned.
            radius: The largest number of differing bits.
            k: Most images to return for each query; None returns all.

        Returns:
            For each query, the hits, nearest first.

        Raises:
            UsageError: If the index does not rank by the Hamming distance of one code.
            EnvironmentFailure: If a query does not decode.
        """
        if not self.code:
            raise UsageError(
                f"{self.metadata['method']} does not rank by the Hamming distance of one code, so there is no radius; "
                "leave it out, or name a binary code"
            )
        codes = queries if isinstance(queries, dict) else self.encoder.encode(queries)
        if self._near is None:
            self._near = RadiusSearch(self._stored.packed_code(self.code).rows)
        found = self._near.within(pack(codes[self.code].numpy()), k, radius)
        return [self._hits(rows.tolist(), distances.tolist()) for rows, distances in found]

    def _hits(self, rows: list[int], distances: list[float]) -> list[Hit]:
        known = [(row, distance) for row, distance in zip(rows, distances, strict=True) if row >= 0]
        paths = names_at(self._stored.paths, [row for row, _ in known])
        ids = paths if self._stored.ids is None else names_at(self._stored.ids, [row for row, _ in known])
        return [
            Hit(row, self.root / path, distance, name)
            for (row, distance), path, name in zip(known, paths, ids, strict=True)
        ]

    def compose(self, operation: Operation, a: ImageLike, b: ImageLike, k: int = 20) -> list[Hit]:
        """Find the nearest images of a query that is composed of two images.

        Args:
            operation: ``"union"`` looks for what either image shows, ``"intersection"`` for what both show, and
                ``"difference"`` for what only the first shows.
            a: The first image.
            b: The second image.
            k: Number of images to return.

        Returns:
            Up to k hits, nearest first.

        Raises:
            EnvironmentFailure: If an image does not decode.
        """
        first, second = (codes for image in (a, b) for _, codes in self.encoder.encode_batches([image]))
        (hits,) = self.search(self.encoder.compose(operation, first, second), k)
        return hits


def encode_files(
    encoder: Encoder,
    images: Sequence[Path],
    names: Sequence[str] | None = None,
    progress: ProgressCallback | None = None,
    *,
    strict: bool = False,
) -> tuple[StoredCodes, list[str]]:
    """Encode image files and all images in folders.

    Args:
        encoder: The encoder.
        images: Files and folders.
        names: The codes to keep; None keeps all.
        progress: Called with the number of images processed and their total.
        strict: Raise for an image that does not decode, instead of skipping it.

    Returns:
        The codes, and a message for each image that was skipped. If folders of thumbnails and copies were passed over,
        the metadata of the codes has the number of images in them by the name of the folder, as ``passed_over``.

    Raises:
        UsageError: If a path does not exist.
        EnvironmentFailure: If no image decodes or, with ``strict``, if one does not.
    """
    found = image_paths.find_images(images)
    if strict and found.left_out:
        raise EnvironmentFailure(f"{found.left_out[0]} ({len(found.left_out)} such files in total)")
    root, paths = found.root, found.images
    collector, rows, skipped = CodeCollector(names), list[int](), [*found.left_out]
    files: list[ImageLike] = [root / path for path in paths]
    on_unreadable = None if strict else lambda _, reason: skipped.append(reason)
    for indices, codes in encoder.encode_batches(files, on_unreadable, progress):
        collector.add(codes)
        rows += indices
    if not rows:
        raise EnvironmentFailure(f"none of {len(paths)} images decodes: {skipped[len(found.left_out)]}")
    metadata = encoder.describe()
    if found.passed_over:
        metadata = {**metadata, "passed_over": dict(found.passed_over)}
    return collector.finish(metadata, root, [paths[row] for row in rows]), skipped


def build(
    encoder: Encoder,
    images: Sequence[Path],
    engine: str = "auto",
    progress: ProgressCallback | None = None,
    *,
    strict: bool = False,
) -> tuple[StoredCodes, list[str]]:
    """Build the content of an index; :func:`hashzoo.retrieval.code_file.write` writes it to a file.

    Args:
        encoder: The method that encodes the images, and later the queries.
        images: Image files, and folders, which stand for all images below them.
        engine: As for :func:`open_index`. The index gets lists if this is, or ``"auto"`` chooses, ``"faiss-ivf"``.
        progress: Called with the number of images processed and their total.
        strict: Raise for an image that does not decode, instead of skipping it.

    Returns:
        The content, and a message for each image that was skipped.

    Raises:
        UsageError: If a path does not exist, or the engine cannot search codes of this method.
        EnvironmentFailure: If no image decodes or, with ``strict``, if one does not.
    """
    index = encoder.trained.method.index()
    code = engines.hamming_code(index)
    engines.select_engine(engine, 0, code)  # an engine that cannot be used is refused before anything is encoded
    stored, skipped = encode_files(encoder, images, index.reads(), progress, strict=strict)
    return add_lists(stored, code, engine), skipped


def add_lists(stored: StoredCodes, code: str, engine: str) -> StoredCodes:
    """The same codes, with lists if the engine is, or ``"auto"`` chooses, ``"faiss-ivf"``."""
    if engines.select_engine(engine, len(stored), code) != "faiss-ivf":
        return stored
    lists = engines.build_lists(stored.packed_code(code).rows)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "ivf.centers": lists.centers,
        "ivf.of": lists.assignments,
        "ivf.probes": np.array(lists.probes),
    }
    return replace(stored, arrays={**stored.arrays, **arrays})
