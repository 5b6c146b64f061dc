"""What saved weights show: where a method looks, and which classes its queries retrieve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from markupsafe import Markup
from PIL import Image

from hashzoo.bench.examples import spread
from hashzoo.errors import HashzooError, first_line
from hashzoo.evaluation.scoring import encode
from hashzoo.registry import saved_method
from hashzoo.registry.saved_method import TrainedMethod
from hashzoo.report import charts
from hashzoo.report.draw import confusion_shares
from hashzoo.report.gallery import ImageSource, label_names
from hashzoo.report.thumbnails import encode_image, split_image
from hashzoo.results.by_dataset import BoardEntry, Results
from hashzoo.retrieval.heatmaps import compute_heatmaps
from hashzoo.retrieval.overlay import blend, to_pil
from hashzoo.types import Split, Splits

HEATMAP_COUNT = 5
HEATMAP_SIDE = 88  # pixels
MAX_RESULTS = 100  # first results of a query that are counted
MAX_DATABASE, MAX_QUERIES = 1000, 200  # images that are encoded for a confusion matrix


@dataclass(frozen=True)
class HeatmapRow:
    """Queries and their heatmaps by one method; ``images`` has data URIs of both, and the names of the labels."""

    entry: BoardEntry
    images: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class ConfusionMatrix:
    """The classes that queries of each class retrieve; ``sample`` says what was counted."""

    entry: BoardEntry
    chart: Markup
    sample: str


def entries_with_weights(
    results: Results, source: ImageSource, bits: int, names: Sequence[str]
) -> list[tuple[BoardEntry, Path]]:
    """The named rows of one code length with saved weights of a seed, and the file of that seed's cell.

    Cells measured on other data than that of the source are skipped.
    """
    rows = {entry.name: entry for entry in source.board.entries_at(bits)}
    found = []
    for name in names:
        cells = rows[name].ok_cells if name in rows else []
        files = [results.file(cell) for cell in cells if cell.identity.data == source.digest]
        file = next((one for one in files if saved_method.path_of(one).is_file()), None)
        if file is not None:
            found.append((rows[name], file))
    return found


def make_heatmaps(entry: BoardEntry, trained: TrainedMethod, data: Splits) -> HeatmapRow:
    """The heatmaps of a few queries. Raises UsageError if the method has none."""
    rows = spread(len(data.query), HEATMAP_COUNT).tolist()
    shown, heatmaps = compute_heatmaps(trained, [split_image(data.query, row) for row in rows])
    images = []
    for row, image, heatmap in zip(rows, shown.numpy(), heatmaps.numpy(), strict=True):
        plain = to_pil(image)
        labels = label_names(data.query.labels[row], data.class_names)
        images.append((_enlarged_uri(plain), _enlarged_uri(blend(plain, heatmap)), labels))
    return HeatmapRow(entry, images)


def _enlarged_uri(image: Image.Image) -> str:
    scale = max(1, HEATMAP_SIDE // max(image.size))
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    return encode_image(enlarged, HEATMAP_SIDE)[0]


def make_confusion_matrix(entry: BoardEntry, trained: TrainedMethod, data: Splits) -> ConfusionMatrix:
    """The classes among the first results of queries of each class, from an even sample if there are many images."""
    database, query = _sample(data.database, MAX_DATABASE), _sample(data.query, MAX_QUERIES)
    index = trained.method.index()
    index.add(encode(trained.run, trained.method, database, ids=trained.method.card.saw_database))
    results = min(MAX_RESULTS, max(1, len(database) // 20))
    sampled = replace(data, database=database, query=query, pairs=None)
    shares = confusion_shares(index, encode(trained.run, trained.method, query), sampled, results)
    names = list(data.class_names)
    sample = f"the first {results} of {len(database):,} images, {len(query):,} queries"
    if len(database) < len(data.database):
        sample += f" (an even sample of {len(data.database):,} and {len(data.query):,})"
    label = f"classes that queries of each class retrieve with {entry.name}"
    return ConfusionMatrix(entry, charts.matrix_chart(shares[: len(names), : len(names)], names, label), sample)


def _sample(split: Split, size: int) -> Split:
    """At most ``size`` evenly spaced images of a split."""
    return split if len(split) <= size else split.take(torch.from_numpy(spread(len(split), size).astype(np.int64)))


def load_method(file: Path, plugins: Sequence[str], device: str = "cpu") -> TrainedMethod | str:
    """The trained method of a cell, or the reason why it cannot be loaded."""
    try:
        return saved_method.read(file, device, plugins)
    except HashzooError as error:
        return str(error)
    except Exception as error:  # the code of a plugin, such as a backbone that cannot download its weights here
        return f"{file.name}: {first_line(error)}"
