"""What the source methods claim, on scenes and with the budget of ``source-methods``: minutes each, so slow."""

from __future__ import annotations

import pytest
import torch

from hashzoo import Hamming, Scan
from hashzoo.bench.benchmark_file import read
from hashzoo.bench.job import Execution
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.evaluation.scoring import encode, evaluate_index
from hashzoo.registry import saved_method, zoo
from hashzoo.registry.open_dataset import reload_data
from hashzoo.results import store
from hashzoo.retrieval.heatmaps import pointing_game


def jobs(dataset, methods, seed, keep=False):
    (part,) = read("source-methods").model_copy(update={"dataset": dataset, "methods": methods}).each()
    return plan(
        part.model_copy(update={"seeds": [seed]}),
        zoo.load_plugins(),
        baselines=False,
        execution=Execution(save_weights=keep),
    )


@pytest.mark.slow
def test_on_a_long_tail_the_dual_stream_beats_itq_and_dhn_on_all_classes_and_on_rare_ones():
    found = {}
    for job in jobs("digits.lt50", ["swin-dual-stream", "itq", "dhn"], 0):
        found[job.identity.method] = measure(job)[0].metrics
    ours = found.pop("swin-dual-stream")
    for theirs in found.values():
        assert ours["map@all"] > theirs["map@all"]
        assert ours["map@all/tail"] > theirs["map@all/tail"]


@pytest.mark.slow
def test_unions_by_operators_beat_bits_and_single_images():
    (job,) = jobs("scenes.union", ["dcoh"], 0)
    found = measure(job)[0].metrics
    assert found["ndcg@100"] > 0.1 + max(found[f"ndcg@100/{part}"] for part in ("bitwise", "first", "second"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_attended_region_is_a_digit_and_masked_ranking_beats_the_coarse_code(seed, tmp_path):
    (job,) = jobs("scenes.standard", ["two-level-cam"], seed, keep=True)
    store.prepare(tmp_path)
    path = store.path(tmp_path, job.identity, job.benchmark)
    cell, arrays = measure(job, keep=saved_method.path_of(path))
    kept, data = saved_method.read(store.write(tmp_path, cell, arrays)), reload_data(cell, (), None)
    with torch.no_grad():
        looks = torch.cat([kept.method.attention(batch) for batch in kept.run.blank(data.query)])
    center = torch.zeros(len(looks), 32, 32)
    center[:, 16, 16] = 1
    found = pointing_game(looks, data.query.boxes, (32, 32))
    prior = pointing_game(center, data.query.boxes, (32, 32))
    coarse = Scan(Hamming("global"))
    coarse.add(encode(kept.run, kept.method, data.database))
    alone, _ = evaluate_index(coarse, encode(kept.run, kept.method, data.query), data, ("map@100",), {})
    print(f"seed {seed}: pointing {found:.3f}, center {prior:.3f}; map@100 {cell.metrics['map@100']:.4f}, "
          f"global code alone {alone.means['map@100']:.4f}")  # fmt: skip
    assert found >= 0.8 > prior
    assert cell.metrics["map@100"] > alone.means["map@100"]
