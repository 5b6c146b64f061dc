"""Images and labels from list files: the user's own lists, or those of published benchmarks.

``root`` is a folder with ``train.txt``, ``test.txt`` or ``query.txt``, and ``database.txt``. A list can be split into
``database0.txt``, ``database1.txt`` and so on, and lists can be in a folder ``test``, like those of HashNet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import ADDED, EnvironmentFailure, SourceFinding, Splits
from hashzoo_plugins.datasets.list_lines import Lines, image_name, read_list
from hashzoo_plugins.datasets.part_names import part_of
from hashzoo_plugins.datasets.paths import ImagePaths
from hashzoo_plugins.datasets.pool import TRAIN_IN_DATABASE, Pool, Shuffle

#: The names of the files of each part, without ``.txt``.
STEMS = {"train": ("train",), "query": ("test", "query"), "database": ("database",)}

#: The largest table of labels, images times classes, that is created from class numbers.
MAX_LABELS = 1 << 31

#: The images of the database: those of the database list, or all listed images except the queries.
Database = Literal["listed", "others"]


def list_files(place: Path, part: str) -> list[Path]:
    """The list files of a part in a folder, in order. Raises EnvironmentFailure if one in a series is missing."""
    for folder in (place, place / "test"):
        for stem in STEMS[part]:
            if (single := folder / f"{stem}.txt").is_file():
                return [single]
            series = {
                int(match[1]): path
                for path in folder.glob(f"{stem}*.txt")
                if (match := re.fullmatch(rf"{stem}(\d{{1,4}})\.txt", path.name))
            }
            for number in range(min([1, *series]), max(series, default=0)):
                if number not in series:
                    raise EnvironmentFailure(
                        f"there is no {folder / f'{stem}{number}.txt'} among {len(series)} list files; put it there"
                    )
            if series:
                return [series[number] for number in sorted(series)]
    return []


@dataclass(frozen=True)
class Listing:
    """All N images in the lists of a benchmark, each once.

    Args:
        names: The name of each image.
        labels: (N, C) float, multi-hot.
        rows: The rows of each part; an image that a list has twice is in the part twice.
        multilabel: Whether images can have several labels.
        class_names: The names of the C classes: the numbers of columns, or the class numbers that occur.
        findings: Class numbers that do not occur, and classes without an image.
    """

    names: list[str]
    labels: Tensor
    rows: Mapping[str, NDArray[np.int64]]
    multilabel: bool
    class_names: tuple[str, ...]
    findings: tuple[SourceFinding, ...] = ()

    @property
    def others(self) -> NDArray[np.int64]:
        """The rows of all images except the queries, each once, in the order of the lists."""
        return np.setdiff1d(np.arange(len(self.names)), self.rows["query"])

    def splits(self, pool: Pool, database: Database, seed: int, validation: float, name: str) -> Splits:
        """The splits of the lists; with ``database="others"`` the database has all images except the queries.

        The validation images, a fraction of the training images, are drawn by ``name`` and ``seed``.
        """
        return pool.splits(
            self.rows["train"],
            self.rows["database"] if database == "listed" else self.others,
            self.rows["query"],
            validation=validation,
            shuffle=Shuffle(name, seed),
            notes={} if database == "listed" else {"database": "all images of the lists but the queries"},
        )


def gather(parts: Mapping[str, Sequence[Path]], strip: str = "") -> Listing:
    """Read the lists of all parts together: an image has the same row, and so the same id, in each part.

    A class number becomes one column per class number that occurs.

    Raises:
        EnvironmentFailure: If the lists contradict each other, by the number of columns or the labels of an image.
    """
    index: dict[str, int] = {}
    every: list[Lines] = []
    rows: dict[str, NDArray[np.int64]] = {}
    for part, files in parts.items():
        own = [read_list(file) for file in files]
        listed_names = [image_name(path, strip) for lines in own for path in lines.paths]
        rows[part] = np.array([index.setdefault(name, len(index)) for name in listed_names], dtype=np.int64)
        every += own
    columns = every[0].labels.shape[1]
    for lines in every:
        if lines.labels.shape[1] != columns:
            raise EnvironmentFailure(
                f"{lines.file} has {lines.labels.shape[1]} labels per line, {every[0].file} {columns}; "
                "the lists of a dataset must have the same classes"
            )
    listed = np.concatenate([lines.labels for lines in every])
    row_of_line = np.concatenate(list(rows.values()))
    occurring = np.arange(columns)
    if columns == 1:
        occurring, places = np.unique(listed[:, 0], return_inverse=True)
        labels = _one_hot(occurring, places, row_of_line, len(index))
        differs = labels[row_of_line, places] == 0
    else:
        labels = _multi_hot(listed, row_of_line, len(index))
        differs = (labels[row_of_line] != listed).any(1)
    if differs.any():
        line = int(np.flatnonzero(differs)[0])
        other = int(np.flatnonzero((row_of_line == row_of_line[line]) & ~differs)[0])
        raise EnvironmentFailure(
            f"{_locate(every, other)} has other labels than the same image in {_locate(every, line)}"
        )
    multilabel = bool((labels.sum(1, dtype=np.int64) != 1).any())
    names = tuple(map(str, occurring.tolist()))
    unused = [names[c] for c in np.flatnonzero(labels.sum(0, dtype=np.int64) == 0)]
    findings = (_gaps(occurring), SourceFinding("class-without-images", len(unused), len(names), tuple(unused[:5])))
    found = tuple(finding for finding in findings if finding.count)
    return Listing(list(index), torch.from_numpy(labels).float(), rows, multilabel, names, found)


def _gaps(occurring: NDArray[np.integer]) -> SourceFinding:
    """The class numbers from 0 to the largest that do not occur."""
    count = int(occurring[-1]) + 1
    missing = np.setdiff1d(np.arange(count), occurring)
    detail = f"{len(occurring)} classes from {occurring[0]} to {occurring[-1]}"
    return SourceFinding("class-numbers", len(missing), count, tuple(map(str, missing[:5].tolist())), detail)


def _one_hot(
    occurring: NDArray[np.integer], places: NDArray[np.int64], row_of_line: NDArray[np.int64], images: int
) -> NDArray[np.uint8]:
    """(N, C) labels from the place of the class of each line (L,) among those that occur; the last line decides."""
    if images * len(occurring) > MAX_LABELS:
        raise EnvironmentFailure(
            f"{images} images with {len(occurring)} classes do not fit in memory; list fewer images or classes"
        )
    numbers = np.zeros(images, np.int64)
    numbers[row_of_line] = places
    labels = np.zeros((images, len(occurring)), np.uint8)
    labels[np.arange(images), numbers] = 1
    return labels


def _multi_hot(listed: NDArray[np.integer], row_of_line: NDArray[np.int64], images: int) -> NDArray[np.uint8]:
    """(N, C) labels from those (L, C) of each line; the last line of an image decides."""
    labels = np.zeros((images, listed.shape[1]), np.uint8)
    labels[row_of_line] = listed
    return labels


def _locate(every: Sequence[Lines], row: int) -> str:
    """The file and the line number of a line, counted over all files."""
    for lines in every:
        if row < len(lines.numbers):
            return f"{lines.file} line {lines.numbers[row]}"
        row -= len(lines.numbers)
    raise IndexError(row)


def lists(
    *,
    root: Path,
    pictures: Path | None = None,
    database: Database = "listed",
    strip: str = "",
    seed: int = 0,
    validation: float = 0.0,
    unlabelled: Annotated[Literal["keep", "drop"], ADDED] = "keep",
) -> Splits:
    """Your own images, from list files in ``root``: each line has a path and its labels as 0 and 1, or its class.

    Paths are relative to ``pictures``, by default ``root``. ``strip`` is a folder: of a longer path, only the part
    after it is used. Missing images are reported when they are read. The dataset is single-label if
    every line has exactly one label. With ``database="others"``, all listed images except the queries are the database,
    including the training images. ``unlabelled="drop"`` leaves training images without a label out of the training set.
    """
    found = {part: list_files(root, part) for part in STEMS}
    for part, stems in STEMS.items():
        if not found[part] and (part != "database" or database == "listed"):
            cure = "" if part != "database" else ', or search all listed images but the queries: database="others"'
            raise EnvironmentFailure(
                f"there is no {' or '.join(f'{s}.txt' for s in stems)} in {root}; put it there{cure}"
            )
    listing = _without_unlabelled(gather(found, strip), unlabelled == "drop")
    findings = (*listing.findings, *_other_lists(root, found))
    base = root if pictures is None else pictures
    images = ImagePaths([base / name for name in listing.names])
    source = f"lists in {root.resolve().name}"
    names, multilabel = listing.class_names, listing.multilabel
    pool = Pool(images, listing.labels, names, source, multilabel=multilabel, names=listing.names)
    data = listing.splits(pool, database, seed, validation, "lists")
    inside = database == "others" and np.isin(listing.rows["train"], listing.others).all()
    notes = {**data.notes, **TRAIN_IN_DATABASE} if inside else data.notes
    return replace(data, notes=notes, findings=findings)


def _other_lists(root: Path, found: Mapping[str, Sequence[Path]]) -> list[SourceFinding]:
    """Lists that are named after parts, such as ``val.txt``, and were not read."""
    read = {file for files in found.values() for file in files}
    places = sorted(file for folder in (root, root / "test") for file in folder.glob("*.txt"))
    other = [file.name for file in places if file not in read and part_of(file.stem)]
    return [SourceFinding("not-read", len(other), len(other) + len(read), tuple(other[:5]))] if other else []


def _without_unlabelled(listing: Listing, drop: bool) -> Listing:
    """The listing with a finding about training images without a label, and without these images if ``drop``."""
    train = listing.rows["train"]
    labelled = (listing.labels[torch.from_numpy(train)].sum(1) > 0).numpy()
    count = int((~labelled).sum())
    if not count:
        return listing
    detail = "left out of the training set" if drop else "kept; lists.unlabelled=drop leaves them out"
    first = tuple(listing.names[row] for row in train[~labelled][:3].tolist())
    finding = SourceFinding("unlabelled-train", count, len(train), first, detail)
    if drop and not labelled.any():
        raise EnvironmentFailure("no training image has a label; leave out lists.unlabelled=drop, or label some")
    rows = {**listing.rows, "train": train[labelled] if drop else train}
    return replace(listing, rows=rows, findings=(*listing.findings, finding))
