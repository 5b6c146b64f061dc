"""Extract the features that cells share, once, before the cells start."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection

from hashzoo.bench import frozen_features
from hashzoo.bench.job import Job
from hashzoo.execution.local import GRACE
from hashzoo.execution.processes import isolate, spawn
from hashzoo.storage.files import canonical_json
from hashzoo.types import ProgressCallback


def extract_features(jobs: Sequence[Job], show: Callable[[str], AbstractContextManager[ProgressCallback]]) -> None:
    """Extract the features of image files that jobs share, with all cores, before the jobs start.

    Each extraction runs in a process of its own. Errors are ignored here: the cells report them.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        first.setdefault(shared_features(job), job)
    first.pop("", None)
    for job in first.values():
        process, ours = spawn(_extract, job)
        try:
            with (
                show(f"features of {job.identity.dataset} by {job.identity.backbone}") as progress,
                suppress(EOFError, OSError),
            ):
                while True:
                    progress(*ours.recv())
        finally:
            ours.close()  # its next report fails, and it cleans up and ends
            process.join(GRACE)
            process.kill()
            process.join()


def shared_features(job: Job) -> str:
    """A key that jobs with the same features of image files share; empty if there are none."""
    identity, found = job.identity, job.inputs.inspection
    if job.refusal or not job.inputs.stored or found is None or not found.pools:
        return ""
    random = identity.seed if identity.backbone_options.get("weights", "random") == "random" else 0
    parts = [identity.backbone, identity.backbone_options, random, sorted(set(found.pools.values()))]
    return canonical_json([*parts, identity.budget["maps"], identity.budget["precision"]])


def _extract(job: Job, pipe: Connection, environment: dict[str, str]) -> None:
    isolate(environment)
    with suppress(Exception):
        frozen_features.warm(job, os.cpu_count() or 1, lambda done, total: pipe.send((done, total)))
