"""Frozen backbones: the features of each image are computed once and passed to methods in place of the image."""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo.backbone import Backbone
from hashzoo.bench.job import Job, load_job_data, load_zoo
from hashzoo.data.image_files import DECODER, ImageFiles
from hashzoo.data.integrity import Inspection, resolve_rows
from hashzoo.registry.build import build_backbone, image_shape
from hashzoo.registry.source import code_digest
from hashzoo.registry.zoo import Zoo
from hashzoo.run import Run
from hashzoo.training.budget import MAX_DRAWS, Budget
from hashzoo.training.feature_store import (
    Extractor,
    FeatureRequest,
    PrecomputedBackbone,
    Rows,
    StoredFeatures,
    ViewFeatures,
    load_or_extract,
    state_digest,
)
from hashzoo.training.process_state import deterministic
from hashzoo.types import Features, ProgressCallback, Split, Splits, View

MOST = 8  # copies of a backbone that compute features at a time


class Freezer:
    """Replaces images by features and the backbone by an identity; methods are not affected.

    Args:
        run: Places the backbone and prepares images.
        backbone: The frozen backbone.
        about: What identifies the backbone in the cache, beside its weights and input.
        progress: Called while features are extracted.
        copies: Builds further copies of the backbone, each of which extracts features of image files in a thread.

    Attributes:
        weights: The digest of the backbone.
        seconds: Time spent on features of views after the splits were frozen, reading the cache included.
    """

    def __init__(
        self,
        run: Run,
        backbone: Backbone,
        about: Sequence[Any],
        progress: ProgressCallback | None = None,
        copies: Callable[[], Sequence[Backbone]] = list,
    ) -> None:
        self.run, self.backbone, self.progress, self.copies = run, backbone, progress, copies
        self.seconds = 0.0
        self.weights = state_digest(backbone)
        network = [self.weights, repr(backbone.input), backbone.map_dims]
        made_with = [torch.__version__, PIL.__version__, DECODER]
        drafted = ["draft"] if run.train.draft else []  # keeps the keys of features without
        self.about = [*about, *network, run.train.precision, run.device.type, *made_with, *drafted]

    def frozen(self, data: Splits, inspection: Inspection) -> tuple[Splits, Backbone]:
        """The splits with features in place of images, extracted unless the cache has them.

        All image files of a pool are extracted at once, so that other splits of the same files find them in the cache.
        """
        pools: dict[str, list[Rows]] = {}
        parts = {}
        for part, split in data.parts().items():
            base, rows = resolve_rows(split.images)
            if isinstance(base, Tensor):
                digest, good = inspection.digests[part], rows
                arrays = self._arrays(base, good, 256, [digest])
            else:
                digest = inspection.pools[part]
                good = np.setdiff1d(np.arange(len(base)), list(inspection.unreadable[digest]))
                if digest not in pools:
                    pools[digest] = self._arrays(base, good, 64, [digest])
                arrays = pools[digest]
            views = self._view_features(base, rows, digest) if part == "train" and self.run.train.draws else None
            parts[part] = replace(split, images=StoredFeatures(arrays, rows, views))
        return replace(data, **parts), PrecomputedBackbone(self.backbone, self.run.train.maps)  # type: ignore[arg-type]

    def _arrays(
        self,
        images: Any,
        rows: NDArray[np.int64],
        at_once: int,
        about: list[Any],
        view: View | None = None,
        draw: int = 0,
    ) -> list[Rows]:
        """Features of some rows. With a view, one array row each; without, one for every image, zero for the others."""
        split = Split(images, torch.zeros(len(images), 1), torch.arange(len(images)))

        def extractor(backbone: Backbone) -> Extractor:
            placed = self.run.place(backbone).eval()

            def extract(group: NDArray[np.int64]) -> Features:
                wanted = group if view is None else rows[group]
                return placed(self.run.prepared(split, wanted, wanted * MAX_DRAWS + draw, view))

            return extract

        def extractors() -> list[Extractor]:
            # a random view seeds the global generator, so it is computed by one thread
            several = self.copies() if isinstance(images, ImageFiles) and view is None else []
            return [extractor(backbone) for backbone in [self.backbone, *several]]

        places, size = (rows, len(images)) if view is None else (np.arange(len(rows)), len(rows))
        groups = [places[start : start + at_once] for start in range(0, len(places), at_once)]
        name, maps = json.dumps([*self.about, *about, at_once]), self.run.train.maps and view is None
        return load_or_extract(extractors, FeatureRequest(groups, size, maps), name, self.progress)

    def _view_features(self, base: Any, rows: NDArray[np.int64], digest: str) -> ViewFeatures:
        """Cached features of the training images under views: ``draws`` random draws of each view."""
        known: dict[str, list[Rows]] = {}
        own = np.unique(rows)
        about = [digest, hashlib.sha256(own.astype("<i8").tobytes()).hexdigest()]

        def features(view: View, at: NDArray[np.int64], seeds: NDArray[np.int64]) -> Features:
            name = view_name(view)
            if name not in known:
                started = time.perf_counter()
                known[name] = [
                    self._arrays(base, own, 64, [*about, f"draw {draw} of {name}"], view, draw)[0]
                    for draw in range(self.run.train.draws)
                ]
                self.seconds += time.perf_counter() - started
            drawn = seeds % self.run.train.draws
            places = np.searchsorted(own, at)
            pooled = np.stack([known[name][draw][place] for draw, place in zip(drawn, places, strict=True)])
            return Features(torch.from_numpy(pooled))

        return features


def view_name(view: View) -> str:
    """A text that identifies a view: its options and the digest of its code.

    The repr of the view must show all its options, as that of a dataclass or of a torchvision transform does; a
    function must be defined in a module. ValueError for any other view.

    >>> from hashzoo.data.transforms import crop_flip
    >>> view_name(crop_flip).startswith("hashzoo.data.transforms.crop_flip ")
    True
    """
    function = inspect.isfunction(view)
    shows = function or is_dataclass(view) or type(view).__module__.startswith("torchvision.transforms.v2")
    text = f"{view.__module__}.{view.__qualname__}" if inspect.isfunction(view) else repr(view)
    if not shows or "<" in text:
        raise ValueError(
            f"the view {text} does not show its options, so its features cannot be cached; give [train] draws = 0, or "
            "make the view a dataclass, a transform of torchvision, or a function in a module"
        )
    where = f"{type(view).__module__}." if not function else ""
    if "torchvision" in where:
        import torchvision

        return f"{where}{text} {torchvision.__version__}"
    return f"{where}{text} {code_digest(view if function else type(view))}"


def about(job: Job, zoo: Zoo) -> list[Any]:
    """What identifies the backbone of a job in the cache: its name, its options and the digest of its code."""
    code = code_digest(zoo.backbone(job.identity.backbone).factory)
    return [job.identity.backbone, job.identity.backbone_options, code]


def warm(job: Job, threads: int, progress: ProgressCallback) -> None:
    """Fill the cache with the features that cells need, with several threads."""
    budget, zoo = Budget.model_validate(job.identity.budget), load_zoo(job.inputs)
    data, inspection = load_job_data(job, zoo)
    shape, seed, execution = image_shape(data), job.identity.seed, job.execution

    def build(count: int) -> list[Backbone]:
        name = job.identity.backbone
        return [build_backbone(zoo, name, shape, job.inputs.backbone_options, seed) for _ in range(count)]

    with deterministic(execution.deterministic):
        (first,) = build(1)
        run = Run(budget, seed, to=first.input, device=execution.device, workers=execution.workers)
        more = min(threads, MOST) - 1 if execution.device == "cpu" else 0
        Freezer(run, first, about(job, zoo), progress, lambda: build(more)).frozen(data, inspection)
