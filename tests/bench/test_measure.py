"""Ways to ask, groups of classes, and threads."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hashzoo_plugins.datasets.composed import draw
from safetensors.torch import load_file

from hashzoo import Hamming, Scan
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan, refusal, require_feasible
from hashzoo.errors import UsageError
from hashzoo.evaluation.metrics import parse
from hashzoo.evaluation.scoring import class_groups, query_codes, score_queries
from hashzoo.registry import zoo
from hashzoo.results.warnings import ONE_A_CLASS, list_warnings
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.feature_store import FrozenBackbone

HOUSE = zoo.load_plugins()


def job_of(method, **changes):
    """The one job of a method on the small digits, at 8 bits."""
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": [method]}
    (job,) = plan(Benchmark.model_validate(values | changes), HOUSE, baselines=False)
    return job


def test_a_cell_computes_with_as_many_threads_as_it_says():
    code = (
        "import torch; from hashzoo.training.process_state import limit_threads; limit_threads(1); "
        "print(torch.get_num_threads())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"  # numba's start sets it for torch too


def test_class_groups_are_thirds_by_training_images():
    data = HOUSE.dataset("digits.lt50").factory()
    found = class_groups(data)
    classes = data.query.labels.argmax(1).numpy()
    assert {name: sorted({*classes[rows]}) for name, rows in found.items()} == {
        "head": [0, 1, 2, 3],
        "medium": [4, 5, 6],
        "tail": [7, 8, 9],
    }


def test_the_score_of_a_group_is_the_mean_over_its_queries():
    data = synthetic_splits()
    index, codes = Scan(Hamming("code")), lambda n: {"code": torch.rand(n, 16, generator=g) < 0.5}
    g = torch.Generator().manual_seed(0)
    index.add(codes(len(data.database)))
    found, _ = score_queries(index, {"": codes(len(data.query))}, data, ("map@all", "map@all/head", "map@all/tail"), {})
    for name, rows in class_groups(data).items():
        if name != "medium":
            expected = found.per_query["map@all"][rows].mean()
            assert found.means[f"map@all/{name}"] == pytest.approx(expected, abs=1e-12)


def test_each_way_to_ask_is_scored_against_the_composed_labels():
    data = draw(synthetic_splits(multilabel=True), "difference", 60, 0, "proper")
    g = torch.Generator().manual_seed(0)
    codes = {
        n: {"code": torch.rand(len(s), 16, generator=g) < 0.5} for n, s in (("d", data.database), ("q", data.query))
    }
    index = Scan(Hamming("code"))
    index.add(codes["d"])
    lsh = HOUSE.method("lsh").factory(data.setting(16), Probe())
    asked = query_codes(lsh, codes["q"], data)
    names = ("ndcg@10", "ndcg@10/first", "ndcg@10/second", "ndcg@10/bitwise")
    found, _ = score_queries(index, asked, data, names, {})
    for part, rows in (("first", data.pairs.first), ("second", data.pairs.second)):
        alone = replace(data, query=replace(data.query.take(rows), labels=data.pairs.labels), pairs=None)
        plain, _ = score_queries(index, {"": {"code": codes["q"]["code"][rows]}}, alone, ("ndcg@10",), {})
        np.testing.assert_allclose(found.per_query[f"ndcg@10/{part}"], plain.per_query["ndcg@10"], atol=1e-12)
    assert found.means["ndcg@10"] == found.means["ndcg@10/bitwise"]  # a method without operators
    a, b = (codes["q"]["code"][rows] for rows in (data.pairs.first, data.pairs.second))
    assert torch.equal(asked["bitwise"]["code"], a & ~b)


def test_a_part_that_does_not_exist_is_named_with_the_nearest():
    assert parse("ndcg@100/bitwise").base == "ndcg@100"
    with pytest.raises(UsageError, match="did you mean 'map@all/tail'"):
        parse("map@all/tial")


def test_parts_that_the_data_does_not_have_are_refused_before_training():
    plain = Benchmark(name="x", dataset="digits.small", backbone="tiny", methods=["lsh"], metrics=["map@all/first"])
    with pytest.raises(UsageError, match="has no composed queries"):
        plan(plain, HOUSE)
    several = Benchmark(name="x", dataset="scenes.small", backbone="tiny", methods=["lsh"], metrics=["map@all/tail"])
    with pytest.raises(UsageError, match="several labels"):
        plan(several, HOUSE)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"methods": ["saliency+dhn"], "backbone": "pixels"}, "saliency needs a feature map"),
        ({"methods": ["multigrain"], "backbone": "pixels"}, "feature maps at 3 resolutions"),
        ({"methods": ["two-level-cam"], "train": {"backbone": "frozen", "maps": False}}, "[train] maps = true"),
        ({"methods": ["dcoh"]}, "dcoh needs several labels per image"),
        ({"methods": ["tsc"], "dataset": "scenes.small"}, "tsc takes one label per image"),
        ({"methods": ["tanh+sfdh"]}, "needs a head with class scores"),
        ({"methods": ["tanh+two-level"]}, "use the head two-level"),
    ],
)
def test_what_a_method_needs_and_lacks_is_one_line_before_training(changes, says):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8]} | changes
    jobs = plan(Benchmark.model_validate(values), HOUSE)
    assert all(job.refusal for job in jobs)
    with pytest.raises(UsageError) as refused:
        require_feasible(jobs, values["methods"])
    (name,) = values["methods"]
    assert says in str(refused.value)
    assert name.split("+")[0] in str(refused.value) or name in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_method_refused_by_one_data_set_of_two_is_no_error():
    jobs = []
    for dataset in ("digits.small", "scenes.small"):
        jobs += plan(Benchmark(name="x", dataset=dataset, backbone="tiny", bits=[8], methods=["dcoh"]), HOUSE)
    require_feasible(jobs, ["dcoh"])
    assert [bool(job.refusal) for job in jobs] == [True, False]


def test_a_method_may_have_a_backbone_of_its_own():
    file = Benchmark(
        name="x",
        dataset="digits.small",
        methods=["lsh", "dhn", "sfdh"],
        bits=[8],
        backbones={"deep": "tiny", "shallow": "pixels", "sfdh": "dual-stream.small"},
    )
    found = {job.identity.method: job.identity.backbone for job in plan(file, HOUSE)}
    assert found == {"lsh": "pixels", "dhn": "tiny", "sfdh": "dual-stream.small"}
    wrong = file.model_copy(update={"backbones": {"deep": "tiny", "sfhd": "pixels"}})
    with pytest.raises(UsageError, match="did you mean 'sfdh'"):
        plan(wrong, HOUSE)


def test_what_changes_for_one_data_set_changes_for_that_one_only():
    file = Benchmark(
        name="x",
        dataset=["digits.small", "digits.lt50"],
        backbone="tiny",
        train={"epochs": 3, "lr": 0.1},
        on={"digits.lt50": {"metrics": ["map@all/tail"], "train": {"epochs": 7}}},
    )
    first, second = file.each()
    assert (first.dataset, first.train.epochs, first.metrics) == ("digits.small", 3, ["map@all"])
    assert (second.dataset, second.train.epochs, second.train.lr) == ("digits.lt50", 7, 0.1)
    assert second.metrics == ["map@all/tail"]


@pytest.mark.parametrize(
    ("method", "options"), [("swin-dual-stream", {"ranking": "weighted"}), ("swin-dual-stream-c", {})]
)
def test_a_ranking_that_uses_the_classifier_is_marked_on_its_row(method, options):
    cell, _ = measure(job_of(method, train={"epochs": 1}, set={method: options}))
    assert cell.facts["marks"] == "uses the classifier"
    assert cell.facts["stored_bits"] == 8 + 32 * 10


def test_a_method_that_stores_the_predicted_class_has_the_warning_of_one_code_per_class():
    cell, _ = measure(job_of("classifier", train={"epochs": 1}))
    assert cell.facts["distinct_codes"] <= cell.facts["database_classes"] == 10
    assert ONE_A_CLASS in list_warnings(cell)
    other, _ = measure(job_of("lsh"))
    assert other.facts["distinct_codes"] > 10
    assert ONE_A_CLASS not in list_warnings(other)


def test_a_method_that_fails_when_built_is_no_refusal():
    entry = HOUSE.method("lsh")

    class Broken:
        name, card = "x", entry.card

        def factory(self, setting, backbone):
            raise RuntimeError("a fault, not a refusal")

    assert refusal(Broken(), synthetic_splits(), Probe(), 8, {}) == ""


def test_the_quick_form_is_quick_on_every_data_set():
    from hashzoo.bench.overrides import Overrides

    file = Benchmark(
        name="x",
        dataset=["digits.small", "digits.lt50"],
        backbone="tiny",
        on={"digits.lt50": {"bits": [32], "train": {"epochs": 60, "lr": 0.5}}},
        quick={"epochs": 1, "bits": [8], "seeds": [4]},
    )
    for part, _ in Overrides(quick=True).apply(file, HOUSE):
        assert (part.train.epochs, part.bits, part.seeds) == (1, [8], [4])
    assert part.train.lr == 0.5


def test_weights_of_any_stream_stand_in_the_key_by_what_they_are_and_not_by_path(tmp_path):
    from safetensors.torch import save_file
    from torchvision import models

    keys = {}
    full = models.squeezenet1_1(weights=None).state_dict()
    for name, shift in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        save_file({n: v + shift for n, v in full.items()}, tmp_path / f"{name}.safetensors")
        options = {
            "local": "torchvision/squeezenet1_1",
            "context": "tiny",
            "size": 64,
            "local_weights": str(tmp_path / f"{name}.safetensors"),
        }
        job = job_of("dhn", backbone="dual-stream", set={"dual-stream": options})
        keys[name] = job.identity.backbone_options["local_weights"]
    assert keys["a"] != keys["c"]
    assert str(tmp_path) not in keys["a"]


def test_a_frozen_network_sees_the_views_of_methods_that_learn_from_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))

    def of(method, backbone):
        budget = {"epochs": 1, "batch": 250, "backbone": backbone}
        job = job_of(method, train=budget)
        cell, _ = measure(job, keep=tmp_path / f"{method}-{backbone}.safetensors")
        return cell.provenance["last"], load_file(tmp_path / f"{method}-{backbone}.safetensors")

    seen, weights = of("dhd", "frozen")
    assert seen["distillation"] > 1e-4  # two views of an image differ
    assert not [name for name in weights if name.startswith("backbone")]  # what learns nothing is no part of it
    twice, _ = of("dhd", "stored")
    assert twice["distillation"] < 1e-5
    for backbone in ("frozen", "stored"):  # one view is the same whether it was stored or not
        assert of("csq", backbone)[0] == of("csq", "stored")[0]


def test_a_frozen_network_stays_as_it_was_while_a_method_trains_on_views():
    inner = Probe()
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    standing = FrozenBackbone(inner, maps=False)
    standing.train()
    features = standing(torch.randn(8, 1, 12, 12))
    assert not features.pooled.requires_grad
    assert (features.maps, standing.map_dims, list(standing.parameters())) == ((), (), [])
    assert all(torch.equal(value, before[name]) for name, value in inner.state_dict().items())


def test_frozen_features_of_other_maps_are_other_features(tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_CACHE", str(tmp_path))
    found = {}
    for taps in ("stages", "convolutions"):
        options = {
            "torchvision/squeezenet1_1": {"weights": "random", "taps": taps, "size": 64},
            "multigrain": {"warmup": 1.0},
        }
        budget = {"epochs": 1, "backbone": "frozen"}
        job = job_of("multigrain", backbone="torchvision/squeezenet1_1", train=budget, set=options)
        found[taps] = measure(job)[0].status
    assert found == {"stages": "ok", "convolutions": "ok"}


def test_metrics_of_codes_stand_in_the_cell_and_have_no_values_by_query():
    names = ["bit-balance", "distinct", "quantization", "transfer", "transfer@50"]
    cell, arrays = measure(job_of("dhn", metrics=["map@all", *names], train={"epochs": 2}))
    assert list(cell.metrics) == ["map@all", *names]
    assert 0 < cell.metrics["bit-balance"] <= 0.5
    assert cell.metrics["transfer"] > 0.3
    kept = {"gallery_queries", "gallery_rows", "gallery_distances", "bit_means"}
    assert set(arrays) == {"map@all", "pr_precision", "pr_recall", "distances_relevant", "distances_other", *kept}
    alone, arrays = measure(job_of("dhn", metrics=names, train={"epochs": 2}))
    assert alone.metrics == {name: cell.metrics[name] for name in names}
    assert "map@all" not in arrays


def test_a_method_without_bits_has_no_metrics_of_codes():
    cell, arrays = measure(job_of("unquantized", metrics=["map@all", "distinct", "transfer"]))
    assert np.isnan([cell.metrics["distinct"], cell.metrics["transfer"]]).all()
    assert "distances_relevant" not in arrays


def test_the_selected_state_is_looked_at_too():
    changes = {"set": {"digits.small": {"validation": 0.2}}, "train": {"epochs": 2, "select": "map@all"}}
    cell, _ = measure(job_of("dhn", metrics=["map@all", "distinct"], **changes))
    assert 0 < cell.metrics["distinct/selected"] <= 1


def test_metrics_of_codes_are_refused_where_they_make_no_sense():
    composed = Benchmark(name="x", dataset="scenes.union", backbone="tiny", methods=["lsh"], metrics=["distinct"])
    with pytest.raises(UsageError, match=r"scenes\.union has composed queries; distinct is a metric of codes"):
        plan(composed, HOUSE)
    with pytest.raises(UsageError, match="'distinct' is not a ranking metric; use one such as 'map@all'"):
        job_of("dhn", train={"select": "distinct"})
    with pytest.raises(UsageError, match="did you mean 'map@all'"):
        job_of("dhn", train={"select": "mpa@all"})
