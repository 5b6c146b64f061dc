"""Whether a dataset and a method can give a score at all, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.backbone import Backbone
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.data.split_file import query_labels, relevant_counts
from hashzoo.errors import UsageError
from hashzoo.evaluation.code_metrics import code_metrics
from hashzoo.evaluation.metrics import ASKINGS, GAINS, GROUPS, ExtraMetrics, parse
from hashzoo.evaluation.scoring import class_groups
from hashzoo.method import Deep, Method
from hashzoo.registry.zoo import Entry, Zoo
from hashzoo.training.budget import Budget
from hashzoo.types import Setting, Splits

Options = Mapping[str, Any]


@dataclass(frozen=True)
class MetricFacts:
    """What metrics depend on, as far as it is known: None is not known.

    ``has_validation`` says whether the dataset has the option, ``held_out`` whether it has validation images,
    ``composed`` whether its queries are composed, ``labelled`` whether it has labels, and ``exact`` whether exact
    neighbours are known.
    """

    has_validation: bool
    multilabel: bool | None = None
    held_out: bool | None = None
    composed: bool | None = None
    labelled: bool | None = None
    exact: bool | None = None


def check_metrics(benchmark: Benchmark, zoo: Zoo, facts: MetricFacts) -> None:
    """Raise UsageError unless the metrics, and the one that selects an epoch, fit the dataset."""
    (name,), extra = benchmark.datasets, zoo.metric_functions()
    select = benchmark.train.select
    parts = {parse(metric, extra).part for metric in [*benchmark.metrics, *filter(None, [select])]}
    if code_metrics([select], extra):
        raise UsageError(f"[train] select = {select!r} is not a ranking metric; use one such as 'map@all'")
    if select and parse(select, extra).by_neighbours:
        raise UsageError(f"[train] select = {select!r} needs exact neighbours of training images; use 'map@all'")
    exact, by_label = _by_truth([*benchmark.metrics, *filter(None, [select])], extra)
    if facts.exact is False and exact:
        raise UsageError(
            f"{name} has no exact neighbours, which {exact[0]} counts; use a metric of labels such as map@all, or add "
            '[truth] neighbours = "backbone" to the benchmark file'
        )
    if facts.labelled is False and by_label:
        raise UsageError(
            f"{name} has no labels, which {by_label[0]} needs; use --metrics recall@10, or give labels to its items"
        )
    if facts.multilabel and parts & set(GROUPS):
        raise UsageError(f"{name} has several labels per image; metrics such as /{GROUPS[0]} need one label per image")
    if select and facts.held_out is False:
        fix = f"give --set {name}.validation=0.1" if facts.has_validation else "use a dataset with that option"
        raise UsageError(f"train.select needs validation images, and {name} holds none out; {fix}")
    composed = set(ASKINGS) | set(GAINS)
    parts |= {parse(metric, extra).gain for metric in [*benchmark.metrics, *filter(None, [select])]}
    if facts.composed is False and parts & composed:
        raise UsageError(f"{name} has no composed queries; metrics such as /{ASKINGS[0]} need a dataset that has them")
    if facts.composed and (single := code_metrics(benchmark.metrics, extra)):
        raise UsageError(f"{name} has composed queries; {next(iter(single))} is a metric of codes of single images")


def _by_truth(metrics: Sequence[str], extra: ExtraMetrics) -> tuple[list[str], list[str]]:
    """The metrics of exact neighbors, and those of labels; metrics of codes are neither."""
    ranking = [name for name in metrics if name not in code_metrics(metrics, extra)]
    exact = [name for name in ranking if parse(name, extra).by_neighbours]
    return exact, [name for name in ranking if name not in exact]


def require_neighbours(name: str, data: Splits, metrics: Sequence[str], extra: ExtraMetrics) -> None:
    """Raise UsageError if there are not more items in the database than the neighbors that a metric counts."""
    for metric in _by_truth(metrics, extra)[0]:
        k, items = parse(metric, extra).cut or 0, len(data.database)
        if k >= items:
            raise UsageError(
                f"{metric} counts {k:,} neighbours of each query, and the database of {name} has {items:,} items; use "
                f"recall@{max(1, min(10, items - 1))}, or more items"
            )


def require_relevant(name: str, data: Splits, metrics: Sequence[str], select: str, extra: ExtraMetrics) -> None:
    """Raise UsageError if every score of a dataset would be NaN, or that of the validation images.

    Args:
        name: The name of the dataset.
        data: Its splits.
        metrics: The metrics to compute.
        select: The metric that selects an epoch; empty if none does.
        extra: The metrics of plugins.
    """
    if not _by_truth(metrics, extra)[1] and not select:
        return
    relevant = relevant_counts(query_labels(data), data.database.labels) > 0
    if not relevant.any():
        raise UsageError(
            f"none of the {len(relevant):,} queries of {name} has a relevant item, so every score would be nan: no "
            "database image shares a label with a query; add images of their classes to the database"
        )
    parts = {parse(metric, extra).part for metric in _by_truth(metrics, extra)[1]}
    if parts and parts <= set(GROUPS):
        members = class_groups(data)
        if not any((members[part] & relevant).any() for part in parts):
            raise UsageError(
                f"no query of {name} that {', '.join(metrics)} counts has a relevant item, so every score would be "
                f"nan; add another metric, such as map@all"
            )
    if select and data.validation is not None and _without_relevant(data.validation.labels, data.train.labels).all():
        raise UsageError(
            f"no validation image of {name} shares a label with a training image, so train.select = {select!r} would "
            "be nan in every epoch; hold out other images, or leave out train.select"
        )


def _without_relevant(query: Tensor, database: Tensor) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(relevant_counts(query[:, : database.shape[1]], database) == 0)


@dataclass(frozen=True)
class Unlabelled:
    """How many of the training images of a dataset have no label, and how the user can leave them out.

    ``None`` stands for a number that is not known.
    """

    count: int | None = None
    images: int | None = None
    cure: str = ""

    @classmethod
    def of(cls, data: Splits, dataset: str, options: Container[str]) -> Unlabelled:
        """Those of splits; ``dataset`` is the name of their dataset and ``options`` are its options."""
        return cls(unlabelled_images(data), len(data.train), leave_out(dataset, options))


def unlabelled_images(data: Splits) -> int:
    """The number of training images without a label."""
    return int(((data.train.labels > 0).sum(1) == 0).sum())


def leave_out(dataset: str, options: Container[str]) -> str:
    """The option of a dataset that leaves out training images without a label; empty if it has none."""
    return f"; leave them out with --set {dataset}.unlabelled=drop" if "unlabelled" in options else ""


def unlabelled_refusal(method: Method, setting: Setting, found: Unlabelled) -> str:
    """Why a method cannot be trained on the images without a label, in one line; empty if it can, or there are none.

    The loss sees a made-up batch in which one image has no label. ``setting`` is that which the method was built from.
    """
    if not found.count or not isinstance(method, Deep):
        return ""
    try:
        method.rehearse(setting, unlabelled=True)
    except ValueError as error:
        reason = str(error).split("\n")[0].partition(";")[0]
        images = "" if found.images is None else f"of the {found.images:,} "
        return f"{reason}, and {found.count:,} {images}training images have none{found.cure}"
    return ""


def trial(
    entry: Entry, setting: Setting, backbone: Backbone, values: Options, check: Callable[[Method], str] = lambda _: ""
) -> str:
    """Why a method cannot be built for a setting and a backbone, or what ``check`` says of it; empty if it can."""
    name = entry.name
    with torch.random.fork_rng(devices=[]):
        try:
            method = entry.factory(setting, backbone, **values)
            if isinstance(method, Deep):
                method.rehearse(setting)
            return check(method)
        except ValueError as error:
            reason = str(error).split("\n")[0]
            return reason if name in reason else f"{name}: {reason}"
        except (Exception, SystemExit):
            return ""


def stored_views_refusal(entry: Entry, setting: Setting, backbone: Backbone, values: Options, budget: Budget) -> str:
    """Why a method cannot learn from stored draws of views, which have no feature maps; empty if it can."""
    if budget.backbone == "full" or not budget.draws or not (entry.card.views or budget.augment != "none"):
        return ""
    pooled = copy(backbone)
    pooled.map_dims = ()
    if not backbone.map_dims or not trial(entry, setting, pooled, values):
        return ""
    return (
        f"{entry.name} learns from feature maps of views, and [train] draws = {budget.draws} stores their pooled "
        "features only; set draws = 0"
    )
