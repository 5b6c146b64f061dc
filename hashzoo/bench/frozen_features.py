"""Frozen backbones: what they see of each image is computed once, and handed to methods as if it were the image."""

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
from hashzoo.bench.job import Job, load_job_data
from hashzoo.data.image_files import DECODER, ImageFiles
from hashzoo.data.integrity import Inspection, resolve_rows
from hashzoo.registry import zoo
from hashzoo.registry.build import build_backbone, image_shape
from hashzoo.registry.source import code_digest
from hashzoo.run import Run
from hashzoo.training.budget import MAX_DRAWS, Budget
from hashzoo.training.feature_store import (
    Extractor,
    FeatureRequest,
    PrecomputedBackbone,
    StoredFeatures,
    ViewFeatures,
    load_or_extract,
    state_digest,
)
from hashzoo.training.process_state import deterministic
from hashzoo.types import Features, ProgressCallback, Split, Splits, View

MOST = 8  # copies of a backbone that look at images at once


class Freezer:
    """Puts features in the place of images, and a stand-in in that of the backbone; methods do not notice.

    ``about`` is what tells the backbone from others, beside weights and input. ``copies`` makes more like it: each then
    computes in a thread of its own where images are files. ``seconds`` counts what views took since the splits were
    made, reading them from the cache included.
    """

    def __init__(
        self,
        run: Run,
        backbone: Backbone,
        about: Sequence[Any],
        tell: ProgressCallback | None = None,
        copies: Callable[[], Sequence[Backbone]] = list,
    ) -> None:
        self.run, self.backbone, self.tell, self.copies, self.seconds = run, backbone, tell, copies, 0.0
        self.weights = state_digest(backbone)
        network = [self.weights, repr(backbone.input), backbone.map_dims]
        made_with = [torch.__version__, PIL.__version__, DECODER]
        self.about = [*about, *network, run.train.precision, run.device.type, *made_with]

    def frozen(self, data: Splits, inspection: Inspection) -> tuple[Splits, Backbone]:
        """The splits with features for images, extracted where the cache does not have them yet.

        Image files are seen once, all that a part is taken of, so that other protocols on them find theirs there.
        """
        pools: dict[str, list[np.ndarray]] = {}
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
            looks = self._looks(base, rows, digest) if part == "train" and self.run.train.draws else None
            parts[part] = replace(split, images=StoredFeatures(arrays, rows, looks))
        return replace(data, **parts), PrecomputedBackbone(self.backbone, self.run.train.maps)  # type: ignore[arg-type]

    def _arrays(
        self,
        images: Any,
        rows: NDArray[np.int64],
        at_once: int,
        about: list[Any],
        view: View | None = None,
        draw: int = 0,
    ) -> list[np.ndarray]:
        """Features of some rows: with a view one array row each, without one for every image, the others zero."""
        split = Split(images, torch.zeros(len(images), 1), torch.arange(len(images)))

        def eye(backbone: Backbone) -> Extractor:
            placed = self.run.place(backbone).eval()

            def look(group: NDArray[np.int64]) -> Features:
                asked = group if view is None else rows[group]
                return placed(self.run.prepared(split, asked, asked * MAX_DRAWS + draw, view))

            return look

        def eyes() -> list[Extractor]:
            # several threads may ask image files only, and no random view, which seeds the generator of all
            several = self.copies() if isinstance(images, ImageFiles) and view is None else []
            return [eye(backbone) for backbone in [self.backbone, *several]]

        places, size = (rows, len(images)) if view is None else (np.arange(len(rows)), len(rows))
        groups = [places[start : start + at_once] for start in range(0, len(places), at_once)]
        name, maps = json.dumps([*self.about, *about, at_once]), self.run.train.maps and view is None
        return load_or_extract(eyes, FeatureRequest(groups, size, maps), name, self.tell)

    def _looks(self, base: Any, rows: NDArray[np.int64], digest: str) -> ViewFeatures:
        """Features of the training images under views, so many random draws of each view, kept as features are."""
        known: dict[str, list[np.ndarray]] = {}
        own = np.unique(rows)
        about = [digest, hashlib.sha256(own.astype("<i8").tobytes()).hexdigest()]

        def looks(view: View, at: NDArray[np.int64], seeds: NDArray[np.int64]) -> Features:
            name = named(view)
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

        return looks


def named(view: View) -> str:
    """What tells a view from others: what it is made of, and the code of it.

    Its repr must show all of its options, as that of a dataclass or of torchvision's transforms does; a function must
    stand in a module. ValueError for any other view.

    >>> from hashzoo.data.transforms import crop_flip
    >>> named(crop_flip).startswith("hashzoo.data.transforms.crop_flip ")
    True
    """
    function = inspect.isfunction(view)
    shows = function or is_dataclass(view) or type(view).__module__.startswith("torchvision.transforms.v2")
    text = f"{view.__module__}.{view.__qualname__}" if inspect.isfunction(view) else repr(view)
    if not shows or "<" in text:
        raise ValueError(
            f"the view {text} cannot be told from others, so its features cannot be stored; give [train] draws = 0, or "
            "make the view a dataclass, a transform of torchvision, or a function in a module"
        )
    where = f"{type(view).__module__}." if not function else ""
    if "torchvision" in where:
        import torchvision

        return f"{where}{text} {torchvision.__version__}"
    return f"{where}{text} {code_digest(view if function else type(view))}"


def about(job: Job, house: zoo.Zoo) -> list[Any]:
    """What a job's backbone is called, how it was asked for, and its code."""
    code = code_digest(house.backbone(job.identity.backbone).factory)
    return [job.identity.backbone, job.identity.backbone_options, code]


def warm(job: Job, threads: int, tell: ProgressCallback) -> None:
    """Extract the features that cells will want, by several threads; what is there already is only read."""
    train, house = Budget.model_validate(job.identity.budget), zoo.load_plugins(job.plugins)
    data, inspection = load_job_data(job, house)
    shape, seed = image_shape(data), job.identity.seed

    def made(count: int) -> list[Backbone]:
        name = job.identity.backbone
        return [build_backbone(house, name, shape, job.backbone_options, seed) for _ in range(count)]

    with deterministic(job.deterministic):
        (first,) = made(1)
        run = Run(train, seed, to=first.input, device=job.device, workers=job.workers)
        more = min(threads, MOST) - 1 if job.device == "cpu" else 0
        Freezer(run, first, about(job, house), tell, lambda: made(more)).frozen(data, inspection)
