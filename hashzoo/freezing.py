"""Frozen backbones: what they see of each picture is computed once, and handed to methods as if it were the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hashzoo import zoo
from hashzoo.bench import Job, build_backbone, data_of, picture_shape
from hashzoo.features import Eye, Looks, Precomputed, StoredFeatures, Tell, digest_of_state, stored
from hashzoo.inspection import Inspection, below
from hashzoo.method import Backbone
from hashzoo.pictures import View
from hashzoo.run import DRAWS, Run, Train
from hashzoo.types import Features, Split, Splits


class Freezer:
    """Puts features in the place of pictures, and a stand-in in that of the backbone; methods do not notice.

    Each of ``backbones``, all alike, may compute in a thread of its own; ``about`` is what tells them from others,
    beside weights and input.
    """

    def __init__(self, run: Run, backbones: Sequence[Backbone], about: Sequence[Any], tell: Tell | None = None) -> None:
        self.run, self.backbones, self.tell, self.maps = run, backbones, tell, run.train.maps
        one = backbones[0]
        network = [digest_of_state(one), repr(one.input), one.map_dims]
        self.about = [*about, *network, run.train.precision, run.device.type]

    def frozen(self, data: Splits, inspection: Inspection) -> tuple[Splits, Backbone]:
        """The splits with features for pictures, extracted where the cache does not have them yet.

        Picture files are seen once, whatever parts are taken of them.
        """
        kept: dict[str, list[np.ndarray]] = {}
        parts = {}
        for part, split in data.parts().items():
            if isinstance(split.images, Tensor):
                arrays = self._arrays(split.images, np.arange(len(split)), 256, [inspection.digests[part]])
                rows = np.arange(len(split))
            else:
                base, rows = below(split.images)
                digest = inspection.pools[part]
                if digest not in kept:
                    good = np.setdiff1d(np.arange(len(base)), list(inspection.unreadable[digest]))
                    kept[digest] = self._arrays(base, good, 64, [digest])
                arrays = kept[digest]
            looks = self._looks(split, inspection.digests[part]) if part == "train" and self.run.train.draws else None
            parts[part] = replace(split, images=StoredFeatures(arrays, rows, looks))
        return replace(data, **parts), Precomputed(self.backbones[0], self.maps)  # type: ignore[arg-type]

    def _arrays(
        self,
        images: Any,
        rows: NDArray[np.int64],
        at_once: int,
        about: list[Any],
        view: View | None = None,
        draw: int = 0,
    ) -> list[np.ndarray]:
        """Features of some rows under a view; the arrays have a row for every picture."""
        split = Split(images, torch.zeros(len(images), 1), torch.arange(len(images)))

        def eye(backbone: Backbone) -> Eye:
            def look(group: NDArray[np.int64]) -> Features:
                return cast(Features, backbone(self.run.prepared(split, group, group * DRAWS + draw, view)))

            return look

        def eyes() -> list[Eye]:
            return [eye(self.run.place(backbone).eval()) for backbone in self.backbones]

        groups = [rows[start : start + at_once] for start in range(0, len(rows), at_once)]
        name, maps = json.dumps([*self.about, *about, at_once]), self.maps and view is None
        return stored(eyes, groups, len(images), maps=maps, name=name, tell=self.tell)

    def _looks(self, split: Split, digest: str) -> Looks:
        """Features of the training pictures under views, so many random draws of each view, kept as features are."""
        base, places = below(split.images) if not isinstance(split.images, Tensor) else (split.images, None)
        rows = np.arange(len(split)) if places is None else places
        known: dict[str, list[np.ndarray]] = {}

        def looks(view: View, at: NDArray[np.int64], seeds: NDArray[np.int64]) -> Features:
            name = named(view)
            if name not in known:
                known[name] = [
                    self._arrays(base, np.unique(rows), 64, [digest, f"draw {draw} of {name}"], view, draw)[0]
                    for draw in range(self.run.train.draws)
                ]
            drawn = seeds % self.run.train.draws
            pooled = np.stack([known[name][draw][row] for draw, row in zip(drawn, at, strict=True)])
            return Features(torch.from_numpy(pooled))

        return looks


def named(view: View) -> str:
    """What tells a view from others: all that its repr shows, or where its function stands.

    ValueError for a view that neither tells, such as a function made inside another.

    >>> from hashzoo.pictures import crop_flip
    >>> named(crop_flip)
    'hashzoo.pictures.crop_flip'
    """
    text = repr(view)
    if " at 0x" not in text:
        return text
    name = f"{getattr(view, '__module__', '')}.{getattr(view, '__qualname__', '<')}"
    if "<" in name:
        raise ValueError(
            f"the view {text} cannot be told from others, so its features cannot be stored; give [train] draws = 0, "
            "or make the view of transforms that show their options"
        )
    return name


def about(job: Job, house: zoo.Zoo) -> list[Any]:
    """What a job's backbone is called, how it was asked for, and its code."""
    code = zoo.code_digest(house.backbone(job.identity.backbone).factory)
    return [job.identity.backbone, job.identity.backbone_options, code]


def warm(job: Job, threads: int, tell: Tell) -> None:
    """Extract the features that cells will want, by several threads; what is there already costs nothing."""
    torch.set_num_threads(1)  # of each computing thread
    train, house = Train.model_validate(job.identity.budget), zoo.load(job.plugins)
    data, inspection = data_of(job, house)
    shape, seed = picture_shape(data), job.identity.seed
    count = threads if job.device == "cpu" else 1
    made = [build_backbone(house, job.identity.backbone, shape, job.backbone_options, seed) for _ in range(count)]
    run = Run(train, seed, to=made[0].input, device=job.device, workers=job.workers)
    Freezer(run, made, about(job, house), tell).frozen(data, inspection)
