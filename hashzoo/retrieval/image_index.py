"""Images that can be searched: their codes in a file, with the method that encodes the queries."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from hashzoo.data import image_paths
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.hamming.counting import pack
from hashzoo.index import Scan
from hashzoo.retrieval import code_file, engines
from hashzoo.retrieval.code_file import Gathered, KeptCodes
from hashzoo.retrieval.encoder import Encoder, ImageLike, load_encoder
from hashzoo.types import Codes, Operation, ProgressCallback, Ranking


@dataclass(frozen=True)
class Hit:
    """An image that was found: its row in the index, its file, and how far its code is from the query's."""

    row: int
    path: Path
    distance: float


def open_index(
    file: str | os.PathLike[str],
    *,
    run: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    engine: str = "auto",
    device: str = "cpu",
    plugins: Sequence[str] = (),
) -> ImageIndex:
    """The index that ``hashzoo index build`` wrote, ready to be searched.

    ``run`` is the cell that it was built with and ``root`` the folder of its images, where they are no longer where
    they were; ``plugins`` are loaded. EnvironmentFailure where the file is damaged, or the method is not the one that
    the index was built with; UsageError where there is no such file or cell, or the engine cannot serve it.
    """
    kept = code_file.read(Path(file))
    made_with = kept.about["run"]
    if run is None and not Path(made_with["cell"]).is_file():
        raise UsageError(f"{file} was built with {made_with['cell']}, which is gone; say where it is with --run")
    encoder = load_encoder(made_with["cell"] if run is None else run, device=device, plugins=plugins)
    found = encoder.about()["run"]
    if (found["key"], found["state"]) != (made_with["key"], made_with["state"]):
        raise EnvironmentFailure(
            f"{file} was built with another method than {encoder.cell}: their codes cannot be compared; name the cell "
            "that it was built with with --run, or build it anew"
        )
    return ImageIndex(kept, encoder, None if root is None else Path(root), engine)


@final
class ImageIndex:
    """Codes of images and their paths, searched with images, codes, or two images composed.

    :func:`hashzoo.open_index` makes it. ``encoder`` is the method, ``about`` what it was made with, ``engine`` the name
    of what searches, ``integer`` whether distances count bits, ``code`` the name of the one code that
    they compare whole ("" where neighbours are told apart otherwise).
    """

    def __init__(self, kept: KeptCodes, encoder: Encoder, root: Path | None = None, engine: str = "auto") -> None:
        self.encoder, self.about, self._kept = encoder, kept.about, kept
        self.root = Path(kept.about["root"]) if root is None else root
        index = encoder.trained.method.index()
        self.integer = isinstance(index, Scan) and index.distance.integer
        code = self.code = engines.hamming(index)
        # lists are there where they were asked for, or where there are many images
        self.engine = engines.chosen(engine, engines.LISTED if "ivf.of" in kept.arrays else 0, code)
        self._search: Callable[[Codes, int], Ranking]
        if self.engine == "exact":
            for part in kept.parts():
                index.add(part)
            self._search = index.search
        else:
            packed = kept.packed(code)[2]
            ways = engines.Flat(packed) if self.engine == "faiss-flat" else engines.Listed(packed, lists_in(kept, code))
            self._search = partial(_through, ways, code)

    def __len__(self) -> int:
        return len(self._kept)

    def name(self, row: int) -> str:
        """The path of the image in a row, from ``root`` on."""
        return self._kept.paths[row]

    def path(self, row: int) -> Path:
        """The file of the image in a row."""
        return self.root / self._kept.paths[row]

    def codes(self, row: int) -> Codes:
        """The stored codes (1, K) of the image in a row."""
        return self._kept.some(row, row + 1)

    def ranking(self, query: Codes, k: int) -> Ranking:
        """The k nearest rows (Q, k) to encoded queries; equal distances by row. Row -1 where lists hold fewer."""
        return self._search(query, min(k, len(self)))

    def search(self, query: ImageLike | Sequence[ImageLike] | Codes, k: int = 20) -> list[list[Hit]]:
        """The k nearest images to each query, nearest first; queries are what ``encode`` takes, or codes."""
        ranking = self.ranking(query if isinstance(query, dict) else self.encoder.encode(query), k)
        pairs = zip(ranking.rows.tolist(), ranking.distances.tolist(), strict=True)
        return [
            [Hit(row, self.path(row), far) for row, far in zip(rows, distances, strict=True) if row >= 0]
            for rows, distances in pairs
        ]

    def compose(self, operation: Operation, a: ImageLike, b: ImageLike, k: int = 20) -> list[Hit]:
        """The k nearest images to what either (``union``), both (``intersection``) or only the first shows."""
        first, second = (codes for one in (a, b) for _, codes in self.encoder.encoding([one]))
        (found,) = self.search(self.encoder.compose(operation, first, second), k)
        return found


def _through(engine: engines.Flat | engines.Listed, code: str, query: Codes, k: int) -> Ranking:
    rows, distances = engine.search(pack(query[code].numpy()), k)
    return Ranking(torch.from_numpy(rows), torch.from_numpy(distances))


def lists_in(kept: KeptCodes, code: str) -> engines.Lists:
    """The lists that an index was built with. UsageError where it has none, EnvironmentFailure where they do not
    fit.
    """
    if "ivf.of" not in kept.arrays:
        raise UsageError("this index has no lists; build it with --engine faiss-ivf, or search it with --engine exact")
    centers, of, probes = (kept.arrays[f"ivf.{name}"] for name in ("centers", "of", "probes"))
    width = kept.packed(code)[2].shape[1]
    if (
        (centers.dtype, centers.shape[1:], of.dtype, of.shape) != (np.uint8, (width,), np.int32, (len(kept),))
        or not ((of >= 0) & (of < len(centers))).all()
        or not 1 <= int(probes) <= len(centers)
    ):  # faiss would write where they point
        raise EnvironmentFailure("the lists of this index do not fit its codes; build it anew")
    return engines.Lists(centers, of, int(probes))


def gathered(
    encoder: Encoder,
    images: Sequence[Path],
    only: Sequence[str] | None = None,
    tell: ProgressCallback | None = None,
    *,
    stop: bool = False,
) -> tuple[KeptCodes, list[str]]:
    """The codes of files and folders of images, and a line for each image that does not decode and is left out.

    ``only`` are the names of the codes that are wanted. UsageError where something does not exist, EnvironmentFailure
    where no image decodes or, with ``stop``, where one does not.
    """
    root, relative = image_paths.find_images(images)
    collected, places, refused = Gathered(only), list[int](), list[str]()
    files: list[ImageLike] = [root / path for path in relative]
    for some, codes in encoder.encoding(files, None if stop else lambda _, why: refused.append(why), tell):
        collected.add(codes)
        places += some
    if not places:
        raise EnvironmentFailure(f"none of {len(relative)} images decodes: {refused[0]}")
    return collected.kept(encoder.about(), root, [relative[place] for place in places]), refused


def build(
    encoder: Encoder,
    images: Sequence[Path],
    engine: str = "auto",
    tell: ProgressCallback | None = None,
    *,
    stop: bool = False,
) -> tuple[KeptCodes, list[str]]:
    """What an index of files and folders of images keeps, and a line for each image that is left out.

    With lists where the engine, chosen as by :func:`hashzoo.retrieval.engines.chosen`, is ``faiss-ivf``. Errors as of
    :func:`gathered`, and UsageError where the engine cannot serve the method.
    """
    index = encoder.trained.method.index()
    code = engines.hamming(index)
    engines.chosen(engine, 0, code)  # what cannot be is said before anything is encoded
    kept, refused = gathered(encoder, images, index.reads(), tell, stop=stop)
    return with_lists(kept, code, engine), refused


def with_lists(kept: KeptCodes, code: str, engine: str) -> KeptCodes:
    """The same codes, cut into lists where their number or the engine asks for it."""
    if engines.chosen(engine, len(kept), code) != "faiss-ivf":
        return kept
    made = engines.lists(kept.packed(code)[2])
    cut: dict[str, np.ndarray[Any, Any]] = {
        "ivf.centers": made.centers,
        "ivf.of": made.of,
        "ivf.probes": np.array(made.probes),
    }
    return replace(kept, arrays={**kept.arrays, **cut})
