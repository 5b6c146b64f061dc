"""Every command of the page on embeddings, run as it stands there on a few vectors."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import hashzoo

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "embeddings.md"
COMMANDS = re.findall(r"^    hashzoo (.*)$", PAGE.read_text(), re.M)
FEWER = ["--bits", "8", "--jobs", "1", "--epochs", "1", "--no-baselines"]
QUICK = ["--bits", "8", "--jobs", "1", "--methods", "lsh"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("embeddings"), np.random.default_rng(0)
    classes = rng.integers(0, 3, 1500)
    vectors = rng.normal(size=(3, 16))[classes] + rng.normal(size=(1500, 16))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(folder / "emb.npy", unit.astype(np.float32))
    np.save(folder / "queries.npy", unit[:20].astype(np.float16))
    np.save(folder / "classes.npy", classes)
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_every_command_of_the_page_runs(command, place):
    words = shlex.split(command)
    done = hashzoo(*words, *(FEWER if words[0] == "bench" else QUICK if words[0] == "quantize" else []), cwd=place)
    assert done.returncode == 0, done.stderr
    assert "recall@10" in done.stdout or "queries among" in done.stdout or "no findings to fix" in done.stdout
