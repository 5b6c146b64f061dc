"""A dry run of a results folder that has cells."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from hashzoo.cli.main import main
from tests.cli.command import hashzoo

BENCH = ("bench", "digits", "--quick", "--no-baselines", "--results", "r", "--epochs", "1", "--set", "tiny.width=4")


def test_measured_cells_are_done_and_tell_the_time_of_others(tmp_path, monkeypatch, capsys):
    first = hashzoo(*BENCH, "--methods", "lsh,dhn", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def dry(*more: str) -> str:
        main([*BENCH, *more, "--dry-run"])
        return capsys.readouterr().out

    text = dry("--methods", "lsh,dhn,csq")
    lines = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert lines["lsh"][4:7] == lines["dhn"][4:7] == ["0", "1", "0"]
    assert lines["csq"][4:8] == ["1", "0", "0", "unknown"]
    assert "1 cell pending, 2 done, 0 skipped in r" in text
    assert re.search(r"time: about .*s with", dry("--methods", "lsh,dhn", "--seeds", "0,1"))
    assert "2 cells pending, 0 done" in dry("--methods", "lsh,dhn", "--rerun", "all")
    assert "0 cells pending, 2 done" in dry("--methods", "lsh,dhn", "--rerun", "failed")
    assert "time: nothing to do" in dry("--methods", "lsh,dhn")
    for given in (("--rerun", "versions"), ("--rerun", "stale")):  # an older name
        assert "0 cells pending, 2 done" in dry("--methods", "lsh,dhn", *given)
    text = dry("--methods", "lsh,dhn", "--metrics", "p@7,map@all:best")
    assert "2 cells pending, 0 done" in text
    assert text.count("measured again, with metrics that were not measured") == 2
    again = hashzoo(*BENCH, "--methods", "lsh", "--metrics", "map@all,map@all:best", cwd=tmp_path)
    assert "1 finished cell without map@all:best: measured again" in again.stderr + again.stdout
    assert "2 cells pending, 0 done" in dry("--methods", "lsh,dhn", "--set", "train.lr=0.5")


def test_a_folder_that_is_missing_has_no_done_cells_and_another_is_not_told_apart(tmp_path, monkeypatch, capsys):
    for number in range(24):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 10 * number, np.uint8)).save(path)
    bench = ("bench", "folder", "--methods", "lsh", "--bits", "8", "--no-baselines", "--set", "folder.size=16")
    given = (*bench, "--backbone", "pixels", "--results", "r")
    assert hashzoo(*given, "--root", "photos", cwd=tmp_path).returncode == 0
    monkeypatch.chdir(tmp_path)
    main([*given, "--root", "photos", "--dry-run"])
    text = capsys.readouterr().out
    assert "0 cells pending, 1 done" in text
    assert "done: as far as is known without reading images" in text
    main([*given, "--root", "nowhere", "--dry-run"])
    text = capsys.readouterr().out
    assert "1 cell pending, 0 done" in text
    assert "missing: there is no folder" in text
