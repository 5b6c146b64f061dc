"""A small board of real cells, its bundle, and what a forger changes in a bundle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from hashzoo.api.bench import Request, list_jobs
from hashzoo.bench.measure import measure
from hashzoo.execution.base import Silent
from hashzoo.execution.sweep import keep_splits
from hashzoo.results import bundle, packed, store
from hashzoo.results.cell import Identity
from hashzoo.storage.files import sha256


def measured_board(folder: Path) -> Path:
    """Two cells with their arrays and their split, measured in this process."""
    jobs = list_jobs(Request("digits", quick=True, methods=["itq", "lsh"], baselines=False), "cpu", Silent())
    for job in jobs:
        store.write(folder, *measure(job))
    keep_splits(jobs, folder)
    return folder


def sealed(folder: Path) -> Path:
    """Write the manifest and the environment anew, as a forger does who knows the format."""
    cells = [store.read(file) for file in store.files(folder)]
    (folder / bundle.ENVIRONMENT).write_text(json.dumps(bundle.environment(cells)))
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    files = {name: (folder / name).read_bytes() for name in names if not name.startswith(bundle.MANIFEST)}
    (folder / bundle.MANIFEST).write_text(json.dumps(bundle.manifest(cells, files)))
    return folder


def forged(original: Path, target: Path, change, arrays=None) -> Path:
    """A copy of a bundle with ``change`` applied to its first cell, and its arrays replaced; all digests match."""
    shutil.copytree(original, target)
    lines = [json.loads(line) for line in (target / packed.NAME).read_text().splitlines()]
    members = {line["arrays"]: store.content(target / "cells" / line["name"])[1] for line in lines if line["arrays"]}
    for line in lines:
        del line["checksum"]
    first = lines[0]
    change(first["cell"])
    if arrays is not None:
        del members[first["arrays"]]
        first["arrays"] = sha256(arrays) if arrays else None
        members |= {first["arrays"]: arrays} if arrays else {}
    identity = Identity(**first["cell"]["identity"])
    first["name"] = store.path(target, identity, first["cell"]["benchmark"]).name
    packed.write(target / packed.NAME, lines, members)
    return sealed(target)
