"""What large sets take: memory that does not grow with the images but for what is said, and blocks of a database."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console

from hashzoo import Cosine, Hamming, Scan, distance
from hashzoo.api.watch import Watch, encoding_progress
from hashzoo.data.transforms import load_views
from hashzoo.evaluation.metrics import evaluate
from hashzoo.evaluation.scoring import encode
from hashzoo.hamming import counting
from hashzoo.hamming.counting import hamming_counts
from hashzoo.hamming.distances import nearest
from hashzoo.hamming.packing import pack
from hashzoo.hamming.relevance import relevance
from hashzoo.index import Cascade
from hashzoo.run import Run
from hashzoo.testing import synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.types import Input, Split

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "speed" / "scale.py"
MIB = 2**20

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")


@pytest.fixture(scope="module")
def scale():
    spec = importlib.util.spec_from_file_location("scale", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["scale"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scale"]


def measured(*arguments):
    """What the script says of itself in a process of its own."""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(found.stdout.splitlines()[-1])


def flat(scale, folder, sizes, dim):
    """The memory that encoding takes beyond the data is that of the codes while their array doubles, and no more."""
    file = folder / "features.npy"
    scale.write_features(file, sizes[-1], dim)
    small, large = (measured("encode", file, size) for size in sizes)
    codes = scale.BITS // 8
    assert large["codes"] == codes * large["items"]
    room = 2 * codes * large["items"] + 6 * MIB  # of the allocator
    assert large["grown"] - small["grown"] < room
    assert 4 * dim * (large["items"] - small["items"]) > 4 * room  # features that were kept would show


@needs_proc
def test_the_memory_of_encoding_grows_by_the_codes_alone(scale, tmp_path):
    flat(scale, tmp_path, (10**4, 10**5), 256)


@needs_proc
@pytest.mark.slow
def test_the_memory_of_encoding_a_million_grows_by_the_codes_alone(scale, tmp_path):
    flat(scale, tmp_path, (10**4, 10**6), 512)


@needs_proc
@pytest.mark.slow
def test_ten_million_codes_are_evaluated_and_searched_in_four_gibibytes():
    found = measured("planted", 10**7, "--threads", 2)  # compares with NumPy what it finds
    assert found["peak"] < 4 * 2**30
    assert found["recall of planted"] > 0.5


def test_planted_items_are_found_and_score_as_a_plain_ranking_does(scale):
    pytest.importorskip("numpy", "2.0", reason="the script counts bits with numpy 2")
    task = scale.planted(1000, queries=4, each=20)
    expected = []
    for q, query in enumerate(task.queries):
        distance = np.unpackbits(query ^ task.database, axis=1).sum(axis=1)
        relevant = task.labels == q
        assert (np.sort(distance[task.rows[q]]) == np.sort(task.flips[q])).all()
        rng, scores = np.random.default_rng(q), []
        for _ in range(300):  # orders of what is tied
            hits = np.flatnonzero(relevant[np.lexsort((rng.random(1000), distance))])
            scores.append(((np.arange(20) + 1) / (hits + 1)).mean())
        expected.append(np.mean(scores))
    found = evaluate(task.queries, task.database, task.query_labels, task.labels, ["map@all"], 64)
    np.testing.assert_allclose(found.per_query["map@all"], expected, atol=0.02)
    assert scale.large(1000, [1], queries=4)["recall of planted"] > 0.5  # and all its own comparisons


@pytest.mark.parametrize("off", [False, True])
@pytest.mark.parametrize("bits", [12, 64, 70, 128])
@pytest.mark.parametrize("graded", [False, True])
def test_counts_of_blocks_are_those_of_the_whole_database(bits, graded, off, monkeypatch):
    monkeypatch.setenv("HASHZOO_NUMBA", "off" if off else "on")
    rng = np.random.default_rng(bits)
    queries, database = pack(rng.random((5, bits)) < 0.5), pack(rng.random((210, bits)) < 0.5)
    pairs = relevance(rng.random((5, 11)) < 0.3, rng.random((210, 11)) < 0.3)
    whole = hamming_counts(queries, database, bits, pairs, graded)
    monkeypatch.setattr(counting, "_ITEMS", 32)
    parts = hamming_counts(queries, database, bits, pairs, graded)
    assert np.array_equal(parts.items, whole.items)
    assert np.array_equal(parts.relevant, whole.relevant)
    assert not graded or np.array_equal(parts.grades, whole.grades)


@pytest.mark.parametrize(("bits", "k"), [(6, 1), (6, 9000), (16, 100), (64, 10), (64, 9000), (150, 50)])
@pytest.mark.parametrize("order", ["any", "near ones last", "near ones first"])
def test_neighbours_in_many_tiles_are_those_of_a_stable_sort(bits, k, order):
    rng = np.random.default_rng(bits + k)
    queries, database = rng.random((35, bits)) < 0.5, rng.random((9000, bits)) < 0.5  # nine tiles, three groups
    if order != "any":
        near = (queries[0] ^ database).sum(axis=1)
        database = database[np.argsort(near if order == "near ones first" else -near)]
    rows, distances = nearest(pack(queries), pack(database), k)
    for q in (0, 15, 16, 34):
        distance = (queries[q] ^ database).sum(axis=1)
        expected = np.argsort(distance, kind="stable")[:k]
        assert np.array_equal(rows[q], expected)
        assert np.array_equal(distances[q], distance[expected])


def indexes():
    g = torch.Generator().manual_seed(0)

    def codes(count):
        bits = {name: torch.rand(count, 16, generator=g) < 0.5 for name in ("code", "local", "mask")}
        return bits | {"real": torch.randn(count, 4, generator=g)}

    made = [Scan(Hamming("code", mask="mask")), Scan(Cosine("real")), Cascade(Hamming("code"), Hamming("local"), 9)]
    database = codes(50)
    for one in made:
        for rows in torch.arange(50).split(7):
            one.add({name: values[rows] for name, values in database.items()})
    return made, codes(11)


@pytest.mark.parametrize("which", range(3))
def test_few_queries_at_a_time_give_what_all_together_give(which, monkeypatch):
    made, query = indexes()
    rng = np.random.default_rng(0)
    pairs = relevance(rng.integers(0, 3, 11), rng.integers(0, 3, 50))
    whole, ranking = made[which].counts(query, pairs, graded=True), made[which].search(query, 9)
    monkeypatch.setattr(distance, "PAIRS", 120)  # two queries at a time
    parts, ranks = made[which].counts(query, pairs, graded=True), made[which].search(query, 9)
    assert np.array_equal(parts.items, whole.items)
    assert np.array_equal(parts.relevant, whole.relevant)
    assert np.array_equal(parts.grades, whole.grades)
    assert torch.equal(ranks.rows, ranking.rows)
    torch.testing.assert_close(ranks.distances, ranking.distances)


def test_images_are_asked_for_as_they_are_needed():
    asked = []

    def groups():
        for start in range(0, 30, 3):
            asked.append(start)
            yield torch.arange(start, start + 3)

    class Images(list):
        """Not a tensor, as images on disk are not."""

    split = Split(Images(torch.zeros(30, 3, 4, 4, dtype=torch.uint8)), torch.zeros(30, 2), torch.arange(30))
    loaded = load_views(split, groups(), (torch.arange(3) for _ in range(10)), [None], Input())
    assert next(loaded)[0].shape == (3, 3, 4, 4)
    assert asked == [0]
    assert len(list(loaded)) == 9


def test_rows_of_a_split_take_eight_bytes_a_image():
    split = Split(["a", "b", "c"], torch.zeros(3, 2), torch.arange(3)).take(torch.tensor([2, 0]))
    assert (split.images.rows.dtype, split.images.rows.nbytes) == (np.int64, 16)
    assert list(split.images) == ["c", "a"]


def test_a_long_encoding_says_how_far_it_is_and_how_fast(monkeypatch):
    monkeypatch.setattr("hashzoo.evaluation.scoring.REPORT_SECONDS", -1.0)
    said = []
    run = Run(Budget(epochs=1), 0)
    run.report = lambda progress, values: said.append(values)

    class Ones(torch.nn.Module):
        def encode(self, batch):
            return {"code": torch.ones(len(batch), 8, dtype=torch.bool)}

    encode(run, Ones(), synthetic_splits().train, 100)
    assert [(values["encoded"], values["of"]) for values in said] == [(100, 240), (200, 240), (240, 240)]
    assert all(values["images/s"] > 0 for values in said)
    assert encoding_progress(said[0]).startswith("100 of 240 encoded, ")


def cell_to_come(key: str = "key"):
    identity = SimpleNamespace(dataset="digits", method="lsh", bits=8, backbone="pixels", budget={}, key=key)
    return SimpleNamespace(metrics=("map@all",), identity=identity, title="lsh 8 bits seed 0", refusal="")


@pytest.mark.parametrize("live", [False, True])
def test_a_sweep_shows_what_is_being_encoded_and_how_fast(live, monkeypatch, capsys):
    monkeypatch.setattr("hashzoo.api.watch.EVERY", -1.0)
    job = cell_to_come()
    watch = Watch(Console(force_terminal=live, width=120), [job])
    watch.event(job, "started", None)
    watch.event(job, "progress", (0.5, {"pair": 0.1}))
    assert watch.bar.tasks[0].description == "lsh 8 bits seed 0"
    watch.event(job, "progress", (1.0, {"encoded": 512, "of": 1024, "images/s": 256.0}))
    line = "lsh 8 bits seed 0: 512 of 1024 encoded, 256 images/s, about 2 s left"
    assert watch.bar.tasks[0].description == line
    assert capsys.readouterr().out == ("" if live else line + "\n")


def test_the_last_line_of_a_sweep_has_no_time_left(capsys):
    jobs = [cell_to_come("first"), cell_to_come("second")]
    watch = Watch(Console(force_terminal=False), jobs)
    for job in jobs:
        done = SimpleNamespace(
            metrics={"map@all": 0.5}, status="ok", identity=job.identity, provenance={"seconds": 3.0}
        )
        watch.event(job, "done", done)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "[1/2] lsh 8 bits seed 0: map@all 0.5000; about 3s left"
    assert last == "[2/2] lsh 8 bits seed 0: map@all 0.5000"
