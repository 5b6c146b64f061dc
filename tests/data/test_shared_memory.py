"""Images are read by background processes whether or not there is shared memory for them, with the same batches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hashzoo import Input, Split
from hashzoo.data import transforms

SIDE = 64


class Images:
    """Images that are not in memory, made from their number."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        return Image.fromarray(np.random.default_rng(int(row)).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def loaded(workers, count=10):
    split = Split(Images(count), torch.eye(2)[torch.arange(count) % 2], torch.arange(count))
    rows = torch.arange(count).split(4) if count else ()
    views = [None, transforms.augmentation("crop-flip")]
    return list(
        transforms.load_views(split, rows, rows, views, Input(size=SIDE, channels=3), transforms.Workers(workers))
    )


@pytest.mark.parametrize("free", [0, 1 << 40])
def test_batches_are_the_same_with_and_without_shared_memory(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    expected, found = loaded(0), loaded(2)
    assert len(found) == len(expected) == 3
    for batch, other in zip(found, expected, strict=True):
        assert all(torch.equal(view, same) for view, same in zip(batch, other, strict=True))


def test_no_rows_give_no_batches():
    assert loaded(2, count=0) == []


def test_the_needed_memory_is_four_times_that_of_waiting_batches(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert transforms.shared_memory_suffices(250)
    assert not transforms.shared_memory_suffices(251)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root")
def test_a_small_shared_memory_does_not_make_workers_hang():
    code = textwrap.dedent("""
        from tests.data.test_shared_memory import loaded
        print(len(loaded(2, 40)))
    """)
    script = 'mount --make-rprivate / && mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script, sys.executable, code],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if (done.returncode in (1, 77) and "mount" in done.stderr + done.stdout) or "unshare" in done.stderr:
        pytest.skip("cannot mount a small /dev/shm here")
    assert (done.returncode, done.stdout) == (0, "10\n"), done.stderr
