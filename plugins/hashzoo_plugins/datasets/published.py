"""Benchmarks by published list files: ImageNet-100, COCO, NUS-WIDE, MIRFLICKR-25k and VOC 2012.

``root`` is a folder with the images, as the lists name them. The list files lie in it, in its folder ``lists``, or,
for several protocols on the same images, in ``lists/hashnet``, ``lists/csq`` and so on. The parts are those of the
lists, faults included; the numbers of their lines are checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hashzoo import EnvironmentFailure, Splits
from hashzoo_plugins.datasets import archives, class_names, mirflickr
from hashzoo_plugins.datasets.carve import Pool
from hashzoo_plugins.datasets.lists import NAMES, Database, Listed, files, gather
from hashzoo_plugins.datasets.paths import Paths

_HASHNET = "https://github.com/thuml/HashNet"
_CSQ = "https://github.com/yuanli2333/Hadamard-Matrix-for-hashing"
_SWUXYJ = "https://github.com/swuxyj/DeepHash-pytorch"


@dataclass(frozen=True)
class Published:
    """A benchmark that somebody published as list files.

    ``sizes`` are the lines of each part; a part that is not in it is not checked, as its list was not to be had.
    ``lists`` and ``database`` say where the list files are. ``below`` are the folders of root that the paths may go on
    from. With ``concepts``, the labels are MIRFLICKR's annotations and not those of the lists.
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
    download: tuple[str, str] | None = None  # the archives of images and lists, where both may be had


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
        "ImageNet-100 by HashNet's lists: 5,000 queries, 13,000 to train on, inside the database of 128,503.",
        sizes={"train": 13_000, "query": 5000, "database": 128_503},
        lists=f"{_HASHNET}/tree/master/caffe/data/imagenet",
    ),
    "imagenet100.csq": _imagenet(
        "ImageNet-100 by CSQ's lists: 4,983 queries, 13,000 to train on.",
        sizes={"train": 13_000, "query": 4983},
        lists=f"{_CSQ}/tree/master/data/imagenet",
        database=f"the README of {_CSQ} links it",
    ),
    "coco.hashnet": _coco(
        "COCO by HashNet's lists: 5,000 queries, which are all in the database of 112,218; 10,000 others to train on.",
        sizes={"train": 10_000, "query": 5000, "database": 112_218},
        lists=f"{_HASHNET}/tree/master/caffe/data/coco",
        download=("coco", "coco-lists"),
    ),
    "coco.csq": _coco(
        "COCO by CSQ's lists: 5,000 queries, 9,992 to train on.",
        sizes={"train": 9992, "query": 5000},
        lists=f"{_CSQ}/tree/master/data/coco",
        database=f"it is not in the repository; the README of {_HASHNET}/tree/master/pytorch links COCO's",
    ),
    "nus-wide-21.csq": _nus(
        "NUS-WIDE, its 21 most frequent concepts, by CSQ's lists: 2,040 queries, 10,455 to train on.",
        columns=21,
        sizes={"train": 10_455, "query": 2040},
        lists=f"{_CSQ}/tree/master/data/nus_wide",
        database=f"it is not in the repository; ask its authors: {_CSQ}/issues",
    ),
    "nus-wide-21.swuxyj": _nus(
        "NUS-WIDE, its 21 most frequent concepts, by swuxyj's lists: 2,100 queries, 10,500 to train on.",
        columns=21,
        sizes={"train": 10_500, "query": 2100},
        lists=f"{_SWUXYJ}/tree/master/data/nuswide_21",
        database="code.py beside them makes it: all images of NUS-WIDE-21 but the queries",
    ),
    "nus-wide-81.hashnet": _nus(
        "NUS-WIDE, all 81 concepts, by HashNet's lists: 5,000 queries, 10,000 to train on; one in five has no label.",
        columns=81,
        sizes={"train": 10_000, "query": 5000},
        lists=f"{_HASHNET}/tree/master/pytorch/data/nuswide_81",
        database=f"join database0.txt to database7.txt of {_HASHNET}/tree/master/caffe/data/nuswide_81/test",
        classes=class_names.NUS_WIDE_81,
    ),
    "mirflickr.standard": _mirflickr(
        "MIRFLICKR-25k with 38 labels by swuxyj's lists: 1,000 queries, 4,000 to train on, 20,000 in the database.",
    ),
    "mirflickr-38.standard": _mirflickr(
        "MIRFLICKR-25k, the parts of mirflickr.standard, its 38 labels with their names, from the annotations.",
        concepts=mirflickr.ALL,
    ),
    "mirflickr-24.standard": _mirflickr(
        "MIRFLICKR-25k, the parts of mirflickr.standard, with the 24 labels in the wide sense, from the annotations.",
        concepts=mirflickr.POTENTIAL,
    ),
    "voc2012.standard": Published(
        "VOC 2012 by swuxyj's lists: 1,000 queries, 4,000 to train on, the 6,540 others as the database.",
        images="VOC 2012",
        columns=20,
        sizes={"train": 4000, "query": 1000, "database": 6540},
        lists=f"{_SWUXYJ}/tree/master/data/voc2012",
        classes=class_names.VOC,
        download=("voc2012", "voc2012-lists"),
    ),
}


def folders(name: str, benchmark: Published, root: Path | None) -> tuple[Path, Path]:
    """The folder of the images and that of the list files, downloaded where they can be and no root is given.

    EnvironmentFailure saying what to put where.
    """
    if root is None and benchmark.download:
        images, lists = benchmark.download
        try:
            return archives.folder(images), archives.folder(lists)
        except EnvironmentFailure as error:
            raise EnvironmentFailure(
                f"{error} that holds the unpacked images of {benchmark.images} and, in its folder lists, the list "
                f"files of {benchmark.lists}"
            ) from error
    if root is None:
        raise EnvironmentFailure(
            f"{name} needs files of your own: name with root a folder with the images of {benchmark.images} and, "
            f"in its folder lists, the list files of {benchmark.lists}"
        )
    for place in (root / "lists" / name.partition(".")[2], root / "lists", root):
        if files(place, "train"):
            return root, place
    raise EnvironmentFailure(
        f"there is no train.txt in {root} nor in {root / 'lists'}; {name} has it from {benchmark.lists}"
    )


def _read(name: str, benchmark: Published, place: Path) -> Listed:
    found = {part: files(place, part) for part in NAMES}
    for part in NAMES:
        if not found[part]:
            where = benchmark.database if part == "database" and benchmark.database else f"see {benchmark.lists}"
            raise EnvironmentFailure(f"there is no {NAMES[part][0]}.txt in {place}, which {name} needs; {where}")
    listed = gather(found)
    if (columns := listed.labels.shape[1]) != benchmark.columns:
        raise EnvironmentFailure(
            f"the lists in {place} have {columns} labels a line, those of {name} {benchmark.columns}"
        )
    for part, expected in benchmark.sizes.items():
        if (size := len(listed.rows[part])) != expected:
            raise EnvironmentFailure(
                f"the {part} lists in {place} name {size:,} images, those of {name} {expected:,}; "
                f"take them from {benchmark.lists}"
            )
    return listed


def build(
    name: str,
    *,
    root: Path | None = None,
    database: Database = "listed",
    seed: int = 0,
    validation: float = 0.0,
) -> Splits:
    """The parts of a published benchmark. EnvironmentFailure where its files are not there or are not those."""
    benchmark = BENCHMARKS[name]
    where, place = folders(name, benchmark, root)
    listed = _read(name, benchmark, place)
    base = next((b for b in benchmark.below if (where / b / listed.names[0]).is_file()), benchmark.below[0])
    labels = listed.labels
    if benchmark.concepts:
        labels = mirflickr.of_images(listed.names, where, benchmark.concepts)
    pool = Pool(
        Paths([where / base / one for one in listed.names]),
        labels,
        benchmark.concepts or benchmark.classes or _synsets(listed) or tuple(map(str, range(benchmark.columns))),
        benchmark.images,
        multilabel=benchmark.multilabel,
        pretraining=benchmark.pretraining,
        names=listed.names,
    )
    made = listed.splits(pool, database, seed, validation, name)
    if "database" in benchmark.sizes or database != "listed":
        return made
    return replace(made, notes={**made.notes, "database list": "of your own; its size was not to be checked"})


def _synsets(listed: Listed) -> tuple[str, ...]:
    """ImageNet's names of the classes, where the training images are called by them, as ``n02256656_1.JPEG``."""
    seen: dict[int, set[str]] = {c: set() for c in range(listed.labels.shape[1])}
    classes = listed.labels.argmax(1)
    for row in listed.rows["train"].tolist():
        seen[int(classes[row])].add(Path(listed.names[row]).name.partition("_")[0])
    every = [next(iter(names)) for names in seen.values() if len(names) == 1]
    return tuple(every) if len(set(every)) == len(seen) and all(re.fullmatch(r"n\d{8}", one) for one in every) else ()


def protocols() -> dict[str, Callable[..., Splits]]:
    """All of them by name."""
    made: dict[str, Callable[..., Splits]] = {}
    for name, benchmark in BENCHMARKS.items():
        one = partial(build, name)
        one.__doc__ = benchmark.doc
        made[name] = one
    return made


def coco(seed: int, root: Path | None) -> Splits:
    """What composed queries are drawn from."""
    return build("coco.hashnet", root=root, seed=seed)
