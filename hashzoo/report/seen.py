"""What kept weights can show: where a method looks, and what it takes for what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from hashzoo.bench.examples import spread
from hashzoo.errors import HashzooError
from hashzoo.evaluation.scoring import encode
from hashzoo.registry import saved_method
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.report import charts
from hashzoo.report.draw import confusion_shares
from hashzoo.report.gallery import labels
from hashzoo.report.results import DatasetBoard, Entry, Results
from hashzoo.report.thumbnails import encoded, image_of
from hashzoo.retrieval.heatmaps import compute_heatmaps
from hashzoo.retrieval.overlay import blend, to_pil
from hashzoo.types import Split, Splits

IMAGES = 5  # in which a method's looks are shown
SIDE = 88
AT = 100  # the first places that are counted
DATABASE, QUERIES = 1000, 200  # images that are counted at most, since each has to go through the network


@dataclass(frozen=True)
class Look:
    """Images beside themselves under the map of where a method looks, as data URIs, with what they are of."""

    entry: Entry
    images: Sequence[tuple[str, str, str]]  # plain, under the map, labels


@dataclass(frozen=True)
class Taken:
    """What a method takes for what; ``of`` says of how many images."""

    entry: Entry
    chart: Markup
    of: str


def with_weights(
    results: Results, board: DatasetBoard, bits: int, names: Sequence[str], digest: str
) -> list[tuple[Entry, Path]]:
    """The rows, in the order of ``names``, of which a seed that went well keeps its weights; where its cell lies.

    Cells count that were measured on data of the fingerprint ``digest``.
    """
    rows = {entry.name: entry for entry in board.at(bits)}
    found = []
    for name in names:
        well = rows[name].ok if name in rows else []
        files = [results.file(cell) for cell in well if cell.identity.data == digest]
        file = next((one for one in files if saved_method.path_of(one).is_file()), None)
        if file is not None:
            found.append((rows[name], file))
    return found


def look(entry: Entry, kept: TrainedMethod, data: Splits) -> Look:
    """Where a trained method looks in a few queries. UsageError where it looks at no place."""
    rows = spread(len(data.query), IMAGES).tolist()
    images = [image_of(data.query, row) for row in rows]
    seen, where = compute_heatmaps(kept, images)
    made = []
    for row, image, place in zip(rows, seen.numpy(), where.numpy(), strict=True):
        plain = to_pil(image)
        made.append((_big(plain), _big(blend(plain, place)), labels(data.query.labels[row], data.class_names)))
    return Look(entry, made)


def _big(image: Image.Image) -> str:
    share = max(1, SIDE // max(image.size))
    grown = image.resize((image.width * share, image.height * share), Image.Resampling.NEAREST)
    return encoded(grown, SIDE)[0]


def taken(entry: Entry, kept: TrainedMethod, data: Splits) -> Taken:
    """What queries of each class find among the first places, by an even sample of images where there are many."""
    database, query = _some(data.database, DATABASE), _some(data.query, QUERIES)
    fewer = replace(data, database=database, query=query, pairs=None)
    index = kept.method.index()
    index.add(encode(kept.run, kept.method, database, ids=kept.method.card.saw_database))
    at = min(AT, max(1, len(database) // 20))
    shares = confusion_shares(index, encode(kept.run, kept.method, query), fewer, at)
    names = list(data.class_names)
    said = f"what queries of each class find with {entry.name}"
    of = f"the first {at} of {len(database):,} images, {len(query):,} queries"
    if len(database) < len(data.database):
        of += f" (an even sample of {len(data.database):,} and {len(data.query):,})"
    return Taken(entry, charts.matrix(shares[: len(names), : len(names)], names, said), of)


def _some(split: Split, most: int) -> Split:
    return split if len(split) <= most else split.take(torch.from_numpy(spread(len(split), most).astype(np.int64)))


def opened(file: Path, plugins: Sequence[str]) -> TrainedMethod | str:
    """The trained method beside a cell, or the line that says why it cannot be had."""
    try:
        return saved_method.read(file, plugins=plugins)
    except HashzooError as error:
        return str(error)
