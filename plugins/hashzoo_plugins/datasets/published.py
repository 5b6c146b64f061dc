"""Benchmarks with published list files: ImageNet-100, COCO, NUS-WIDE, MIRFLICKR-25k and VOC 2012.

``root`` is a folder with the images under their names in the lists. The list files are in it, in its folder ``lists``,
or, for several protocols on the same images, in ``lists/hashnet``, ``lists/csq`` and so on. The splits are exactly
those of the lists, including their errors; the numbers of lines are checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets import archives, class_names, mirflickr
from hashzoo_plugins.datasets.lists import STEMS, Database, Listing, gather, list_files
from hashzoo_plugins.datasets.paths import ImagePaths
from hashzoo_plugins.datasets.pool import Pool

_HASHNET = "https://github.com/thuml/HashNet"
_CSQ = "https://github.com/yuanli2333/Hadamard-Matrix-for-hashing"
_SWUXYJ = "https://github.com/swuxyj/DeepHash-pytorch"


@dataclass(frozen=True)
class Published:
    """A benchmark with published list files.

    Args:
        doc: The description of the protocol.
        images: The name of the dataset, which is the source of its rows.
        columns: The number of labels.
        sizes: The number of lines of each part. A part without an entry is not checked, since its list is not public.
        lists: Where the list files are published.
        database: Where the database list is, if elsewhere.
        classes: The names of the classes.
        pretraining: Names of datasets for pretrained weights that contain these images.
        below: Folders in root that the paths can be relative to.
        concepts: MIRFLICKR concepts, whose official annotations replace the labels of the lists.
        multilabel: Whether images can have several labels.
        download: The names of the archives of the images and the lists, if both can be downloaded.
    """

    doc: str
    images: str
    columns: int
    sizes: Mapping[str, int]
    lists: str
    database: str = ""
    classes: tuple[str, ...] = ()
    pretraining: tuple[str, ...] = ()
    below: tuple[str, ...] = (".",)
    concepts: tuple[str, ...] = ()
    multilabel: bool = True
    download: tuple[str, str] | None = None


_imagenet = partial(Published, images="ImageNet-100", columns=100, pretraining=("ImageNet",), multilabel=False)
_coco = partial(Published, images="COCO 2014", columns=80, classes=class_names.COCO)
_nus = partial(Published, images="NUS-WIDE")
_mirflickr = partial(
    Published,
    images="MIRFLICKR-25k",
    columns=38,
    sizes={"train": 4000, "query": 1000, "database": 20_000},
    lists=f"{_SWUXYJ}/tree/master/data/mirflickr",
    below=(".", "mirflickr"),
    download=("mirflickr", "mirflickr-lists"),
)

BENCHMARKS: dict[str, Published] = {
    "imagenet100.hashnet": _imagenet(
        "ImageNet-100, HashNet's lists: 5,000 queries, 13,000 training images inside the database of 128,503.",
        sizes={"train": 13_000, "query": 5000, "database": 128_503},
        lists=f"{_HASHNET}/tree/master/caffe/data/imagenet",
    ),
    "imagenet100.csq": _imagenet(
        "ImageNet-100, CSQ's lists: 4,983 queries, 13,000 training images.",
        sizes={"train": 13_000, "query": 4983},
        lists=f"{_CSQ}/tree/master/data/imagenet",
        database=f"the README of {_CSQ} links it",
    ),
    "coco.hashnet": _coco(
        "COCO, HashNet's lists: 5,000 queries, all inside the database of 112,218; 10,000 other training images.",
        sizes={"train": 10_000, "query": 5000, "database": 112_218},
        lists=f"{_HASHNET}/tree/master/caffe/data/coco",
        download=("coco", "coco-lists"),
    ),
    "coco.csq": _coco(
        "COCO, CSQ's lists: 5,000 queries, 9,992 training images.",
        sizes={"train": 9992, "query": 5000},
        lists=f"{_CSQ}/tree/master/data/coco",
        database=f"it is not in the repository; the README of {_HASHNET}/tree/master/pytorch links COCO's",
    ),
    "nus-wide-21.csq": _nus(
        "NUS-WIDE, 21 most frequent concepts, CSQ's lists: 2,040 queries, 10,455 training images.",
        columns=21,
        sizes={"train": 10_455, "query": 2040},
        lists=f"{_CSQ}/tree/master/data/nus_wide",
        database=f"it is not in the repository; ask its authors: {_CSQ}/issues",
    ),
    "nus-wide-21.swuxyj": _nus(
        "NUS-WIDE, 21 most frequent concepts, swuxyj's lists: 2,100 queries, 10,500 training images.",
        columns=21,
        sizes={"train": 10_500, "query": 2100},
        lists=f"{_SWUXYJ}/tree/master/data/nuswide_21",
        database="code.py in the same folder creates it from all images of NUS-WIDE-21 except the queries",
    ),
    "nus-wide-81.hashnet": _nus(
        "NUS-WIDE, all 81 concepts, HashNet's lists: 5,000 queries, 10,000 training images; one in five has no label.",
        columns=81,
        sizes={"train": 10_000, "query": 5000},
        lists=f"{_HASHNET}/tree/master/pytorch/data/nuswide_81",
        database=f"join database0.txt to database7.txt of {_HASHNET}/tree/master/caffe/data/nuswide_81/test",
        classes=class_names.NUS_WIDE_81,
    ),
    "mirflickr.standard": _mirflickr(
        "MIRFLICKR-25k, 38 labels, swuxyj's lists: 1,000 queries, 4,000 training images, a database of 20,000.",
    ),
    "mirflickr-38.standard": _mirflickr(
        "MIRFLICKR-25k, the splits of mirflickr.standard with the names of its 38 labels, from the annotations.",
        concepts=mirflickr.ALL,
    ),
    "mirflickr-24.standard": _mirflickr(
        "MIRFLICKR-25k, the splits of mirflickr.standard with the 24 labels in the wide sense, from the annotations.",
        concepts=mirflickr.POTENTIAL,
    ),
    "voc2012.standard": Published(
        "VOC 2012, swuxyj's lists: 1,000 queries, 4,000 training images, the 6,540 other images as the database.",
        images="VOC 2012",
        columns=20,
        sizes={"train": 4000, "query": 1000, "database": 6540},
        lists=f"{_SWUXYJ}/tree/master/data/voc2012",
        classes=class_names.VOC,
        download=("voc2012", "voc2012-lists"),
    ),
}


def find_folders(name: str, benchmark: Published, root: Path | None) -> tuple[Path, Path]:
    """The folders of the images and of the list files, downloaded if possible and no root is given.

    Raises:
        EnvironmentFailure: If files are missing; the message says which files to put where.
    """
    if root is None and benchmark.download:
        images, lists = benchmark.download
        try:
            return archives.fetch_folder(images), archives.fetch_folder(lists)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(
                f"{error} that holds the unpacked images of {benchmark.images} and, in a folder lists, the list "
                f"files of {benchmark.lists}"
            ) from error
    if root is None:
        raise EnvironmentFailure(
            f"{name} needs files that cannot be downloaded: set root to a folder with the images of {benchmark.images} "
            f"and, in a folder lists, the list files of {benchmark.lists}"
        )
    for place in (root / "lists" / name.partition(".")[2], root / "lists", root):
        if list_files(place, "train"):
            return root, place
    raise EnvironmentFailure(
        f"there is no train.txt in {root} or {root / 'lists'}; get the lists of {name} from {benchmark.lists}"
    )


def _read_lists(name: str, benchmark: Published, place: Path) -> Listing:
    """The lists of a benchmark, with the sizes that it has."""
    found = {part: list_files(place, part) for part in STEMS}
    for part in STEMS:
        if not found[part]:
            where = benchmark.database if part == "database" and benchmark.database else f"see {benchmark.lists}"
            raise EnvironmentFailure(f"there is no {STEMS[part][0]}.txt in {place}, which {name} needs; {where}")
    listing = gather(found)
    if (columns := listing.labels.shape[1]) != benchmark.columns:
        raise EnvironmentFailure(
            f"the lists in {place} have {columns} labels per line, those of {name} {benchmark.columns}; "
            f"get them from {benchmark.lists}"
        )
    for part, expected in benchmark.sizes.items():
        if (size := len(listing.rows[part])) != expected:
            raise EnvironmentFailure(
                f"the {part} lists in {place} have {size:,} images, those of {name} {expected:,}; "
                f"get them from {benchmark.lists}"
            )
    return listing


def build(
    name: str,
    *,
    root: Path | None = None,
    database: Database = "listed",
    seed: int = 0,
    validation: float = 0.0,
) -> Splits:
    """The splits of a published benchmark. Raises EnvironmentFailure if its files are missing or different."""
    benchmark = BENCHMARKS[name]
    images, lists = find_folders(name, benchmark, root)
    listing = _read_lists(name, benchmark, lists)
    base = next((b for b in benchmark.below if (images / b / listing.names[0]).is_file()), benchmark.below[0])
    labels = listing.labels
    if benchmark.concepts:
        labels = mirflickr.image_annotations(listing.names, images, benchmark.concepts)
    pool = Pool(
        ImagePaths([images / base / one for one in listing.names]),
        labels,
        benchmark.concepts or benchmark.classes or _synsets(listing) or tuple(map(str, range(benchmark.columns))),
        benchmark.images,
        multilabel=benchmark.multilabel,
        pretraining=benchmark.pretraining,
        names=listing.names,
    )
    data = listing.splits(pool, database, seed, validation, name)
    if "database" in benchmark.sizes or database != "listed":
        return data
    return replace(data, notes={**data.notes, "database list": "of your own; its size was not to be checked"})


def _synsets(listing: Listing) -> tuple[str, ...]:
    """The ImageNet ids of the classes, if the names of the training images have them, such as ``n02256656_1.JPEG``."""
    ids: dict[int, set[str]] = {c: set() for c in range(listing.labels.shape[1])}
    classes = listing.labels.argmax(1)
    for row in listing.rows["train"].tolist():
        ids[int(classes[row])].add(Path(listing.names[row]).name.partition("_")[0])
    every = [next(iter(names)) for names in ids.values() if len(names) == 1]
    return tuple(every) if len(set(every)) == len(ids) and all(re.fullmatch(r"n\d{8}", one) for one in every) else ()


def protocols() -> dict[str, Callable[..., Splits]]:
    """All published benchmarks by name."""
    found: dict[str, Callable[..., Splits]] = {}
    for name, benchmark in BENCHMARKS.items():
        protocol = partial(build, name)
        protocol.__doc__ = benchmark.doc
        found[name] = protocol
    return found


def coco(seed: int, root: Path | None) -> Splits:
    """The basis of composed queries."""
    return build("coco.hashnet", root=root, seed=seed)
