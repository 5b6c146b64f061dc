"""The processes that read images in the background, over several passes."""

from __future__ import annotations

import os

import psutil
import pytest
import torch

from hashzoo import Input, Split
from hashzoo.data import transforms

TARGET = Input(size=4, channels=3)


class Images:
    """Images that are not in memory; one pixel is the process that reads them."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, row):
        pid = os.getpid()
        image = torch.full((3, 4, 4), int(row), dtype=torch.uint8)
        image[0, 0, :4] = torch.tensor([pid >> 24, pid >> 16 & 255, pid >> 8 & 255, pid & 255])
        return image


def split_of(count):
    return Split(Images(count), torch.eye(2)[torch.arange(count) % 2], torch.arange(count))


def raw(images, target):
    return images


@pytest.fixture
def read(monkeypatch):
    """Pass over a split: the rows that were read, and the processes that read them."""
    monkeypatch.setattr(transforms, "prepare", raw)

    def run(split, workers, order=None):
        rows = (torch.arange(len(split)) if order is None else order).split(3)
        found = [batch for (batch,) in transforms.load_views(split, rows, rows, [None], TARGET, workers)]
        images = torch.cat(found).long()
        pids = (images[:, 0, 0] * torch.tensor([1 << 24, 1 << 16, 1 << 8, 1])).sum(1)
        return images[:, 1, 1, 1].tolist(), set(pids.tolist())

    return run


def test_the_processes_of_a_split_serve_all_its_passes_in_any_order(read):
    split, workers = split_of(12), transforms.Workers(2)
    first, pids = read(split, workers)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert first == list(range(12))
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert read(split, workers, order) == (order.tolist(), pids)


def test_the_processes_of_splits_that_were_read_long_ago_end(read):
    workers = transforms.Workers(1)
    splits = [split_of(6) for _ in range(transforms.Workers.KEPT + 1)]
    readers = [next(iter(read(split, workers)[1])) for split in splits]
    assert len(set(readers)) == len(readers)
    alive = [psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in readers]
    assert alive == [False] + [True] * transforms.Workers.KEPT
    assert read(splits[0], workers)[0] == list(range(6))


def test_a_pass_that_is_left_before_its_end_and_two_at_a_time_disturb_no_other(read):
    split, workers = split_of(12), transforms.Workers(1)
    rows = torch.arange(12).split(3)
    left = transforms.load_views(split, rows, rows, [None], TARGET, workers)
    assert next(left)[0][:, 1, 1, 1].tolist() == [0, 1, 2]
    assert read(split, workers)[0] == list(range(12))  # while the other one waits
    assert [batch[0, 1, 1, 1].item() for (batch,) in left] == [3, 6, 9]
    del left
    assert read(split, workers)[0] == list(range(12))
