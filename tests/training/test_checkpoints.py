"""Checkpoints: an interrupted training resumes from the last one and gives the same result."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.errors import EnvironmentFailure
from hashzoo.execution import scheduler
from hashzoo.execution.worker import log_of
from hashzoo.registry import zoo
from hashzoo.results import store
from hashzoo.run import Run
from hashzoo.testing import synthetic_splits
from hashzoo.training import checkpoints
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import Checkpoints, checkpoint_path

HOUSE = zoo.load_plugins()


def job_of(method, validation=0.0, sets=(), **train):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": [method]}
    budget = {"epochs": 4, "batch": 20, **train}
    options = {"digits.small": {"validation": validation}, "tiny": {"width": 4}, **dict(sets)}
    (job,) = plan(Benchmark.model_validate(values | {"train": budget, "set": options}), HOUSE, baselines=False)
    return job


class EndedError(Exception):
    """A simulated power failure."""


def ended_after(epoch, job, path):
    """Interrupt a measurement during an epoch: the last checkpoint is that of the epoch before."""

    def report(progress, values):
        if progress >= epoch / 4 and "images/s" not in values:
            raise EndedError

    with pytest.raises(EndedError):
        measure(job, report, checkpoints=Checkpoints(path, job.checkpoint_facts, every=0))


def same(one, other):
    (a, rows), (b, others) = one, other
    assert json.dumps(a.metrics) == json.dumps(b.metrics)
    assert a.provenance["last"] == b.provenance["last"]
    assert rows.keys() == others.keys()
    assert all(rows[name].tobytes() == others[name].tobytes() for name in rows)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("tanh+dhn", {}),
        ("norm-tanh+dch", {"optimizer": "sgd", "schedule": "step"}),
        ("orthohash", {"augment": "shift", "clip": 1.0}),
        ("sfdh", {"sets": {"sfdh": {"weighting": "dwa"}}.items()}),
        ("dhd", {"optimizer": "adamw", "weight_decay": 0.01}),  # two views
        ("cnnh", {}),  # learns codes of its own before the common loop
        ("csq", {"backbone": "frozen"}),
        ("csq", {"validation": 0.3, "select": "map@all"}),
        ("csq", {"validation": 0.3, "select": "map@all", "ema": 0.9}),
    ],
)
def test_an_interrupted_training_resumes_and_gives_the_same_bytes(method, changes, tmp_path, capsys):
    job, path = job_of(method, **changes), tmp_path / "x.checkpoint"
    straight = measure(job)
    ended_after(3, job, path)
    former = Checkpoints(path, job.checkpoint_facts, every=0)
    resumed = measure(job, checkpoints=former)
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert resumed[0].provenance["resumed_after_epoch"] == 2
    assert former.seconds > 0
    same(resumed, straight)
    assert resumed[0].facts.get("selected_epoch") == straight[0].facts.get("selected_epoch")
    again = Checkpoints(path, job.checkpoint_facts, every=0)  # of a training that was interrupted after its last epoch
    same(measure(job, checkpoints=again), straight)
    assert again.epoch == 4


KILLED = """
import os, signal, sys
from pathlib import Path
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.bench.measure import measure
from tests.training.test_checkpoints import job_of

def report(progress, values):
    if progress >= 0.75:
        os.kill(os.getpid(), signal.SIGKILL)

job = job_of("tanh+dhn")
measure(job, report, checkpoints=Checkpoints(Path(sys.argv[1]), job.checkpoint_facts, every=0))
"""


def test_a_killed_process_leaves_a_checkpoint_to_resume_from(tmp_path):
    path = tmp_path / "x.checkpoint"
    found = subprocess.run([sys.executable, "-c", KILLED, path], check=False, capture_output=True, timeout=120)
    assert found.returncode == -9, found.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["x.checkpoint"]
    job = job_of("tanh+dhn")
    same(measure(job, checkpoints=Checkpoints(path, job.checkpoint_facts)), measure(job))


@pytest.fixture
def written(tmp_path):
    job, path = job_of("tanh+dhn"), tmp_path / "x.checkpoint"
    ended_after(3, job, path)
    return job, path


def begun(job, path):
    """The epoch to resume from, and whether the method is unchanged."""
    data, run = synthetic_splits(), Run(Budget(), 0)
    torch.manual_seed(0)
    backbone = HOUSE.backbone("tiny").factory((1, 8, 8), width=4)
    method = HOUSE.method("tanh+dhn").factory(replace(data.setting(8), classes=10), backbone)
    run.optimizer(method)
    before = [value.clone() for value in method.state_dict().values()]
    epoch = Checkpoints(path, job.checkpoint_facts).restore(run, method)
    unchanged = all(torch.equal(a, b) for a, b in zip(before, method.state_dict().values(), strict=True))
    return epoch, unchanged


def test_a_damaged_checkpoint_is_ignored(written, capsys):
    job, path = written
    sound = path.read_bytes()
    assert begun(job, path) == (2, False)
    draw = np.random.default_rng(0)
    places = [*range(0, 40), *draw.integers(len(sound), size=60).tolist(), len(sound) - 1]
    for place in places:
        flipped = bytearray(sound)
        flipped[place] ^= 1 << draw.integers(8)
        path.write_bytes(flipped)
        assert begun(job, path) == (0, True), place
    for length in (0, 1, 7, 8, 100, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        assert begun(job, path) == (0, True), length
    assert capsys.readouterr().out.count("x.checkpoint ignored: damaged") == len(places) + 7


@pytest.mark.parametrize("change", [{"devices": 2}, {"device": "cuda"}, {"identity": job_of("tanh+dch").identity}])
def test_a_checkpoint_of_another_cell_or_device_is_ignored(written, change, capsys):
    job, path = written
    device = {name: value for name, value in change.items() if name != "identity"}
    other = replace(job, identity=change.get("identity", job.identity), execution=replace(job.execution, **device))
    assert begun(other, path) == (0, True)
    assert "ignored: written for" in capsys.readouterr().out


def test_a_checkpoint_of_a_changed_method_is_ignored(written, capsys):
    job, path = written
    run, method = Run(Budget(), 0), nn.Linear(2, 2)
    assert Checkpoints(path, job.checkpoint_facts).restore(run, method) == 0
    assert "it does not match the method" in capsys.readouterr().out


def test_a_full_disk_does_not_stop_the_training(tmp_path, monkeypatch, capsys):
    def full(path, data):
        raise EnvironmentFailure(f"cannot write {path}: No space left on device; free some space")

    monkeypatch.setattr(checkpoints, "replace_bytes", full)
    job = job_of("tanh+dhn")
    same(measure(job, checkpoints=Checkpoints(tmp_path / "x.checkpoint", job.checkpoint_facts, every=0)), measure(job))
    assert "no checkpoint after epoch 1: cannot write" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_short_trainings_and_loops_that_cannot_resume_write_no_checkpoint(tmp_path):
    for method, every in (("tanh+dhn", 60), ("dsdh", 0), ("bbn", 0), ("multigrain", 0)):
        job, path = job_of(method), tmp_path / f"{method}.checkpoint"
        measure(job, checkpoints=Checkpoints(path, job.checkpoint_facts, every=every))
        assert not path.exists()


def test_interleaved_loops_write_no_checkpoint(tmp_path):
    job, data, path = job_of("tanh+dhn"), synthetic_splits().train, tmp_path / "x.checkpoint"
    run = Run(Budget(epochs=2), 0, checkpoints=Checkpoints(path, job.checkpoint_facts, every=0))
    run.resume(nn.Linear(2, 2))
    list(zip(run.batches(data), run.batches(data), strict=True))
    assert not path.exists()
    run.resume(nn.Linear(2, 2))
    list(run.batches(data))
    assert path.exists()


def test_the_log_of_a_cell_reports_a_damaged_checkpoint_and_a_finished_cell_has_none(tmp_path):
    job = job_of("tanh+dhn")
    store.prepare(tmp_path)
    path = checkpoint_path(store.path(tmp_path, job.identity, job.benchmark))
    path.write_bytes(b"nothing of the kind")
    (cell,) = scheduler.run_cells([job], tmp_path, event=lambda *_: None)
    assert cell.status == "ok", cell.reason
    assert "ignored: damaged" in log_of(job, tmp_path).read_text()
    assert not path.exists()
