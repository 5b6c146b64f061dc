"""Datasets and their protocols, named dataset.protocol."""

from collections.abc import Callable

from hashzoo import Outline, Splits, hookimpl
from hashzoo_plugins.datasets import (
    cifar10,
    cifar100,
    composed,
    digits,
    folder,
    imagenette,
    lists,
    longtail,
    miml,
    mnist,
    outlines,
    published,
    scenes,
    unseen,
    vectors,
)


@hookimpl
def hashzoo_datasets() -> dict[str, Callable[..., Splits]]:
    """The protocols of this family."""
    return {
        "digits.standard": digits.standard,
        "digits.inside": digits.inside,
        "digits.small": digits.small,
        "folder": folder.folder,
        "scenes.standard": scenes.standard,
        "scenes.small": scenes.small,
        "cifar10.disjoint": cifar10.disjoint,
        "cifar10.inside": cifar10.inside,
        "cifar10.official": cifar10.official,
        "cifar100.disjoint": cifar100.disjoint,
        "cifar100.official": cifar100.official,
        "fashion-mnist.disjoint": mnist.fashion_disjoint,
        "fashion-mnist.official": mnist.fashion_official,
        "imagenette.standard": imagenette.standard,
        **miml.protocols(),
        "mnist.disjoint": mnist.disjoint,
        "mnist.official": mnist.official,
        "lists": lists.lists,
        "vectors": vectors.vectors,
        **published.protocols(),
        **longtail.protocols("digits", digits.base_splits),
        **longtail.protocols("cifar10", files=cifar10.base_splits),
        **longtail.protocols("imagenette", files=imagenette.base_splits),
        **unseen.protocols(
            "digits", lambda seed, _: digits.base_splits(seed), unseen=3, train=500, queries=80, rooted=False
        ),
        **unseen.protocols("cifar10", cifar10.base_splits, unseen=2, train=4000, queries=1000),
        **unseen.pairs("cifar10", cifar10.base_splits, count=5, train=4000, queries=1000),
        **composed.protocols("scenes", lambda seed, _: scenes.standard(seed=seed), rooted=False),
        **composed.protocols("coco", published.coco),
    }


@hookimpl
def hashzoo_outlines() -> dict[str, Callable[..., Outline]]:
    """Sizes and downloads of these protocols."""
    return dict(outlines.outlines())
