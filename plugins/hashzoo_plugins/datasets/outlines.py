"""What is known of datasets before their files are read: sizes, classes, and downloads that are still to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hashzoo import Download, Outline
from hashzoo_plugins.datasets import cifar10, cifar100, miml, mnist, published
from hashzoo_plugins.datasets.archives import ARCHIVES
from hashzoo_plugins.datasets.cifar_files import CIFAR10, CIFAR100
from hashzoo_plugins.datasets.download import Remote, data_folder
from hashzoo_plugins.datasets.longtail import FACTORS, class_sizes

Facts = Callable[[str, Mapping[str, Any]], Outline]


def sizes(train: int | None, database: int | None, query: int | None, classes: int | None, **known: Any) -> Outline:
    """The outline of a dataset with one label per image, unless ``known`` says otherwise."""
    return replace(Outline(train, database, query, classes, multilabel=False, unlabelled=0), **known)


def fixed(known: Outline, folder: str = "", remotes: tuple[Remote, ...] = ()) -> Facts:
    """The outline of a dataset of fixed size, less the images that the option ``validation`` holds out.

    ``folder`` is its data folder, and ``remotes`` are the files that are downloaded there if no root is given.
    """

    def outline(name: str, values: Mapping[str, Any]) -> Outline:
        held_out = float(values.get("validation") or 0.0)
        train = known.train if known.train is None or not held_out else round(known.train * (1 - held_out))
        return replace(known, train=train, downloads=() if values.get("root") else downloads(folder, remotes))

    return outline


#: Sizes in bytes of files whose sizes their downloads do not check.
BYTES = {
    "cifar-10-binary.tar.gz": 170_052_171,
    "cifar-100-binary.tar.gz": 168_513_733,
}


def downloads(folder: str, remotes: tuple[Remote, ...]) -> tuple[Download, ...]:
    """The files of a dataset that its folder does not have yet."""
    place = data_folder(folder)
    return tuple(
        Download(one.urls[0], one.size or BYTES.get(one.path))
        for one in remotes
        if not (place / one.path).exists() and not (one.makes and (place / one.makes).exists())
    )


def outlines() -> dict[str, Facts]:
    """The outlines of all datasets that come with hashzoo, by name."""
    digits, scenes, small, big = (1, 8, 8), (1, 32, 32), (3, 32, 32), (1, 28, 28)
    queries, train = cifar10.QUERIES, cifar10.TRAIN
    found: dict[str, Facts] = {
        "digits.standard": fixed(sizes(500, 1000, 297, 10, shape=digits)),
        "digits.inside": fixed(sizes(500, 1500, 297, 10, shape=digits)),
        "digits.small": fixed(sizes(200, 400, 100, 10, shape=digits)),
        "scenes.standard": fixed(sizes(2000, 4000, 500, 10, shape=scenes, multilabel=True)),
        "scenes.small": fixed(sizes(400, 600, 100, 10, shape=scenes, multilabel=True)),
    }
    for name, files, classes in (("cifar10", CIFAR10, 10), ("cifar100", CIFAR100, 100)):
        remote = (files.remote,)
        learn = train if name == "cifar10" else cifar100.TRAIN
        asked = queries if name == "cifar10" else cifar100.QUERIES
        found[f"{name}.disjoint"] = fixed(
            sizes(learn, 60_000 - asked - learn, asked, classes, shape=small), name, remote
        )
        found[f"{name}.official"] = fixed(sizes(50_000, 50_000, 10_000, classes, shape=small), name, remote)
    remote = (CIFAR10.remote,)
    found["cifar10.inside"] = fixed(sizes(train, 59_000, queries, 10, shape=small), "cifar10", remote)
    for factor in FACTORS:
        tailed = sum(class_sizes(5000, factor, 10))
        found[f"cifar10.lt{factor}"] = fixed(sizes(tailed, 50_000, 10_000, 10, shape=small), "cifar10", remote)
        found[f"imagenette.lt{factor}"] = fixed(sizes(None, None, None, 10), "imagenette", ARCHIVES["imagenette"])
    for idx in (mnist.MNIST, mnist.FASHION):
        parts = tuple(idx.remotes)
        learn, asked = mnist.TRAIN, mnist.QUERIES
        found[f"{idx.name}.disjoint"] = fixed(
            sizes(learn, 70_000 - learn - asked, asked, 10, shape=big), idx.name, parts
        )
        found[f"{idx.name}.official"] = fixed(sizes(60_000, 60_000, 10_000, 10, shape=big), idx.name, parts)
    for pair in range(2, 6):
        found[f"cifar10.unseen-pair{pair}"] = fixed(sizes(4000, 10_000, 1000, 10, shape=small), "cifar10", remote)
    for number in range(1, miml.SPLITS + 1):
        found[f"miml.split{number}"] = fixed(sizes(miml.TRAIN, 800, miml.QUERIES, 5, multilabel=True))
    found["imagenette.standard"] = fixed(sizes(9469, 9469, 3925, 10), "imagenette", ARCHIVES["imagenette"])
    return found | dict.fromkeys(published.BENCHMARKS, published_outline) | _composed()


def _composed() -> dict[str, Facts]:
    """Composed queries of scenes: the images of ``scenes.standard``, and as many queries as the option says."""

    def outline(name: str, values: Mapping[str, Any]) -> Outline:
        return sizes(2000, 4000, int(values.get("queries", 500)), 10, shape=(1, 32, 32), multilabel=True)

    return {f"scenes.{operation}": outline for operation in ("union", "intersection", "difference")}


def published_outline(name: str, values: Mapping[str, Any]) -> Outline:
    """The sizes of the published lists, and the archives that are downloaded if no root is given."""
    one = published.BENCHMARKS[name]
    train, database, query = (one.sizes.get(part) for part in ("train", "database", "query"))
    known = Outline(train, database, query, one.columns, multilabel=one.multilabel)
    files = () if values.get("root") else (one.download or ())
    return replace(
        fixed(known)(name, values),
        downloads=tuple(file for archived in files for file in downloads(archived, ARCHIVES.get(archived, ()))),
    )
