"""Extract the features that cells share, once, before the cells start."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection

from hashzoo.bench import frozen_features
from hashzoo.bench.job import Job
from hashzoo.execution.local import GRACE
from hashzoo.execution.processes import alone, spawn
from hashzoo.storage.files import canonical_json
from hashzoo.types import ProgressCallback


def extract_features(jobs: Sequence[Job], tell: Callable[[str], AbstractContextManager[ProgressCallback]]) -> None:
    """Extract the features of image files that jobs share before they start, each by all cores; once for all.

    In a process each, like a cell. What goes wrong here is left to the cells, each of which will say it.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(shared_features(job), job)
    first.pop("", None)
    for job in first.values():
        process, ours = spawn(_extract, job)
        try:
            with (
                tell(f"features of {job.identity.dataset} by {job.identity.backbone}") as said,
                suppress(EOFError, OSError),
            ):
                while True:
                    said(*ours.recv())
        finally:
            ours.close()  # so that the next word ends it, and it cleans up behind itself
            process.join(GRACE)
            process.kill()
            process.join()


def shared_features(job: Job) -> str:
    """What jobs with the same features of image files have in common; empty where there is nothing to share."""
    identity, found = job.identity, job.inspection
    if job.refusal or not job.stored or found is None or not found.pools:
        return ""
    random = identity.seed if identity.backbone_options.get("weights", "random") == "random" else 0
    parts = [identity.backbone, identity.backbone_options, random, sorted(set(found.pools.values()))]
    return canonical_json([*parts, identity.budget["maps"], identity.budget["precision"]])


def _extract(job: Job, pipe: Connection, surroundings: dict[str, str]) -> None:
    alone(surroundings)
    with suppress(Exception):
        frozen_features.warm(job, os.cpu_count() or 1, lambda done, total: pipe.send((done, total)))
