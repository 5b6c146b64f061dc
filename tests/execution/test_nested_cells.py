"""Cells of nested lengths in a sweep: one training, one lease, nothing left over, also after a crash."""

from __future__ import annotations

import pytest

import hashzoo
from hashzoo.api.bench import Request, prepare
from hashzoo.bench.measure import measure
from hashzoo.execution.leases import Leases
from hashzoo.execution.scheduler import Queue
from hashzoo.execution.worker import checkpoint_of
from hashzoo.results import store
from hashzoo.training.checkpoints import Checkpoints

SETTING = {"dataset": "digits.small", "bits": [4, 8], "epochs": 1, "baselines": False, "nested": True}


def request(folder, **changes):
    return Request("digits", methods=["csq"], results=folder, device="cpu", **SETTING | changes)


def finished(folder):
    return sorted(file.suffix for file in (folder / "cells").iterdir() if not file.name.startswith("."))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A folder whose training was finished when its process was killed, before a cell was written; then a sweep."""
    folder = tmp_path_factory.mktemp("nested")
    store.prepare(folder)
    short, _ = jobs = prepare(request(folder)).jobs
    path = checkpoint_of(short, folder)
    cell, _ = measure(short, checkpoints=Checkpoints(path, short.checkpoint_facts))
    assert [checkpoint_of(job, folder) for job in jobs] == [path, path]
    board = hashzoo.benchmark(
        "digits", methods=["csq"], results=folder, jobs=2, progress=False, device="cpu", **SETTING
    )
    return folder, cell, board


def test_all_lengths_take_the_training_that_was_finished_before_a_crash(measured):
    _, cell, board = measured
    assert [one.status for one in board.cells] == ["ok", "ok"]
    assert {one.timings["fit_seconds"] for one in board.cells} == {cell.timings["fit_seconds"]}
    assert {one.provenance["trained"] for one in board.cells} == {cell.provenance["trained"]}
    (short,) = (one for one in board.cells if one.identity.bits == 4)
    assert short.metrics == cell.metrics


def test_when_the_last_length_is_measured_its_training_is_removed(measured):
    folder, *_ = measured
    assert finished(folder) == [".json", ".json", ".npz", ".npz"]


def test_a_second_sweep_measures_nothing_and_removes_a_training_that_a_killed_one_left(measured):
    folder, _, board = measured
    left = checkpoint_of(prepare(request(folder)).jobs[0], folder)
    left.write_bytes(b"left")
    again = hashzoo.benchmark("digits", methods=["csq"], results=folder, progress=False, device="cpu", **SETTING)
    assert sorted(one.created for one in again.cells) == sorted(one.created for one in board.cells)
    assert not left.exists()


def test_a_length_waits_while_the_training_runs_for_another_and_starts_when_it_is_over(tmp_path):
    store.prepare(tmp_path)
    jobs = prepare(request(tmp_path)).jobs
    with Leases(tmp_path / "cells") as leases:
        queue = Queue(jobs, tmp_path, leases)
        first, _ = queue.take()
        assert first is jobs[0]
        assert queue.take() == (None, [])
        queue.release(first)
        assert queue.take()[0] is jobs[1]


def test_a_shard_has_all_lengths_of_a_training(tmp_path):
    seeds = {"seeds": [0, 1, 2]}
    whole = prepare(request(tmp_path, **seeds)).jobs
    parts = [prepare(request(tmp_path, shard=(part, 2), **seeds)).jobs for part in (1, 2)]
    found = [[(job.identity.seed, job.identity.bits) for job in part] for part in parts]
    assert found == [[(0, 4), (0, 8), (2, 4), (2, 8)], [(1, 4), (1, 8)]]
    assert {job.identity.key for part in parts for job in part} == {job.identity.key for job in whole}
    alone = prepare(request(tmp_path, shard=(1, 2), nested=False, **seeds)).jobs
    assert [(job.identity.seed, job.identity.bits) for job in alone] == [(0, 4), (2, 4), (1, 8)]
