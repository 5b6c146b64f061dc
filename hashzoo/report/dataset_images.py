"""The parts of the page that need the images of a dataset: galleries, heatmaps, confusion matrices, class sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from markupsafe import Markup

from hashzoo.data.vectors import holds_vectors
from hashzoo.errors import HashzooError, first_line
from hashzoo.evaluation.metrics import GROUPS
from hashzoo.registry.open_dataset import reload_data
from hashzoo.report import charts, explanations
from hashzoo.report.gallery import Gallery, ImageSource, build_gallery
from hashzoo.report.thumbnails import Album
from hashzoo.results.by_dataset import DatasetBoard, Results
from hashzoo.types import Splits


@dataclass
class DatasetImages:
    """The parts of one dataset.

    Attributes:
        board: The board of the dataset.
        data: The dataset.
        reason: Why the dataset cannot be loaded.
        unloaded: Why methods that have saved weights cannot be loaded, by the name of the row.
        galleries: A gallery for each code length.
        heatmaps: The heatmaps of each method that is explained.
        confusions: The confusion matrix of each method that is explained.
        notes: Why a method cannot be explained.
        classes: A chart of the number of training images of each class.
    """

    board: DatasetBoard
    data: Splits | None = None
    reason: str = ""
    galleries: list[Gallery] = field(default_factory=list)
    heatmaps: list[explanations.HeatmapRow] = field(default_factory=list)
    confusions: list[explanations.ConfusionMatrix] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unloaded: dict[str, str] = field(default_factory=dict)
    classes: Markup | None = None


@dataclass(frozen=True)
class ImageOptions:
    """What is shown of datasets.

    Attributes:
        names: The rows in galleries.
        explained: The rows whose weights are loaded for heatmaps and confusion matrices.
        queries: The number of queries of a gallery.
        plugins: Plugin files or modules to load.
        root: The folder of the datasets' files, if they were moved.
        log: Called with a line before each method is explained, which takes a while.
        device: The device of the methods that are explained.
    """

    names: Sequence[str]
    explained: Sequence[str]
    queries: int
    plugins: Sequence[str] = ()
    root: Path | None = None
    log: Callable[[str], object] = str
    device: str = "cpu"


def build_images(results: Results, board: DatasetBoard, options: ImageOptions, album: Album) -> DatasetImages:
    """Build the parts of one dataset; only ``reason`` if it cannot be loaded. Thumbnails are added to the album.

    Whatever a dataset or a backbone raises becomes a reason: a page without images is better than no page.
    """
    images = DatasetImages(board)
    cell = next((cell for entry in board.entries for cell in entry.ok_cells), None)
    if cell is None:
        images.reason = "there are no cells that are ok, or only a CSV file of them"
        return images
    try:
        data = images.data = reload_data(cell, options.plugins, options.root)
    except Exception as error:  # the code of a plugin can raise anything
        images.reason = str(error) if isinstance(error, HashzooError) else f"{board.dataset}: {first_line(error)}"
        return images
    if holds_vectors(data.database.images):
        images.data, images.reason = None, "vectors have no images"
        return images
    images.classes = _class_chart(board, data)
    source, middle = ImageSource(board, data, cell.identity.data), len(board.bits) // 2
    # the middle code length first, since later galleries can exceed the limit of the album
    for bits in [*board.bits[middle:], *reversed(board.bits[:middle])] if options.queries else ():
        gallery = build_gallery(results, source, bits, options.names, options.queries, album)
        if gallery.selected:
            images.galleries.append(gallery)
    if data.pairs is None:
        _explain(images, source, results, options)
    return images


def _class_chart(board: DatasetBoard, data: Splits) -> Markup:
    groups = GROUPS if any("/tail" in name for name in board.metrics) and not data.multilabel else ()
    counts, label = data.setting(1).class_counts.numpy(), f"Training images of each class, {board.dataset}"
    return charts.bar_chart(counts, data.class_names, groups, label)


def _explain(images: DatasetImages, source: ImageSource, results: Results, options: ImageOptions) -> None:
    """Add heatmaps and confusion matrices of methods with saved weights, at the longest code length that has any."""
    for bits in reversed(source.board.bits):
        found = explanations.entries_with_weights(results, source, bits, options.explained)
        for entry, file in found:
            options.log(f"computing heatmaps and confusion of {entry.name}: {source.board.dataset}, {bits} bits")
            trained = explanations.load_method(file, options.plugins, options.device)
            if isinstance(trained, str):
                images.unloaded[entry.name] = trained
                continue
            try:
                images.confusions.append(explanations.make_confusion_matrix(entry, trained, source.data))
                images.heatmaps.append(explanations.make_heatmaps(entry, trained, source.data))
            except HashzooError as error:
                images.notes.append(str(error))
        if found:
            return


def list_missing(images: Sequence[DatasetImages]) -> str:
    """One note about everything that the page does not include because it is not on this disk; empty if nothing is."""
    by_reason: dict[str, list[str]] = {}
    for part in images:
        if part.reason:
            by_reason.setdefault(part.reason, []).append(f"the images of {part.board.title}")
        for name, reason in part.unloaded.items():
            by_reason.setdefault(reason, []).append(f"heatmaps and confusion of {name} on {part.board.title}")
    return "; ".join(f"{', '.join(missing)} ({reason})" for reason, missing in by_reason.items())
