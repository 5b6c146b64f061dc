"""Whether a dataset and a method can give a score at all, before anything is trained."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hashzoo.data.split_file import query_labels, relevant_counts
from hashzoo.errors import UsageError
from hashzoo.evaluation.metrics import GROUPS, ExtraMetrics, parse
from hashzoo.evaluation.scoring import class_groups
from hashzoo.method import Deep, Method
from hashzoo.types import Setting, Splits


def require_relevant(name: str, data: Splits, metrics: Sequence[str], select: str, extra: ExtraMetrics) -> None:
    """Raise UsageError if every score of a dataset would be NaN, or that of the validation images.

    Args:
        name: The name of the dataset.
        data: Its splits.
        metrics: The metrics to compute.
        select: The metric that selects an epoch; empty if none does.
        extra: The metrics of plugins.
    """
    relevant = relevant_counts(query_labels(data), data.database.labels) > 0
    if not relevant.any():
        raise UsageError(
            f"none of the {len(relevant):,} queries of {name} has a relevant item, so every score would be nan: no "
            "database image shares a label with a query; add images of their classes to the database"
        )
    parts = {parse(metric, extra).part for metric in metrics}
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
