"""Nested lengths in a benchmark: keys, refusals, one training for all cells, and codes that are prefixes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hashzoo.bench import measure as measuring
from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.plan import plan
from hashzoo.bench.preview import preview
from hashzoo.errors import UsageError
from hashzoo.evaluation.scoring import concatenate, encode_batches
from hashzoo.registry import saved_method, zoo
from hashzoo.registry.nested import build_method, keep_prefix, nest
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.run import Run
from hashzoo.testing import Probe, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import Checkpoints

HOUSE = zoo.load_plugins()


def benchmark(methods, bits=(4, 8), controls=(), sets=(), **train):
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": list(bits), "methods": list(methods)}
    options = {"tiny": {"width": 4}, **dict(sets)}
    budget = {"epochs": 1, "nested": "conflict", **train}
    return Benchmark.model_validate(values | {"controls": list(controls), "train": budget, "set": options})


def jobs_of(*methods, base=None, **given):
    return plan(benchmark(methods, **given), HOUSE, base=base, baselines=bool(given.get("controls")))


def test_the_key_and_the_row_of_a_cell_name_the_lengths_that_were_trained_together():
    short, long = jobs_of("csq", base=Budget(epochs=1))
    assert short.identity.budget["nested"] == "conflict:4/8"
    assert short.row.settings == "width=4 nested=conflict:4/8"
    assert short.training == long.training == long.identity
    alone, *_ = jobs_of("csq", nested="")
    other, *_ = jobs_of("csq", bits=(4, 8, 16))
    equal, *_ = jobs_of("csq", nested="equal")
    strong, *_ = jobs_of("csq", nested_distillation=1.0)
    keys = [one.identity.key for one in (short, long, alone, other, equal, strong)]
    assert len(set(keys)) == len(keys)
    seen = preview(benchmark(["csq"]), HOUSE, baselines=False).cells
    assert [one.identity.budget for one in seen] == [one.identity.budget for one in (short, long)]


def test_a_single_length_is_the_ordinary_cell():
    (nested,), (plain,) = jobs_of("csq", bits=[8]), jobs_of("csq", bits=[8], nested="")
    assert nested.identity.key == plain.identity.key
    assert not nested.nested


def test_shallow_and_reference_methods_are_measured_as_without_it():
    found = {job.identity.method: job for job in jobs_of("lsh", controls=["classifier"])}
    plain = {job.identity.method: job for job in jobs_of("lsh", controls=["classifier"], nested="")}
    assert {name: job.identity.key for name, job in found.items()} == {n: j.identity.key for n, j in plain.items()}
    assert not any(job.refusal for job in found.values())


@pytest.mark.parametrize(
    ("method", "reason"),
    [("adsh", "its own training loop"), ("two-level-cam", "its own codes"), ("classifier", "no loss of codes")],
)
def test_a_method_that_cannot_take_part_is_skipped_with_the_reason_and_others_go_on(method, reason):
    found = jobs_of(method, "csq")
    refused = [job.refusal for job in found if job.identity.method == method]
    assert (
        refused == [f"{method} has {reason}, so it cannot serve nested lengths; leave it out, or leave out nested"] * 2
    )
    assert not any(job.refusal for job in found if job.identity.method == "csq")
    seen = preview(benchmark([method, "csq"]), HOUSE, baselines=False).cells
    assert [one.refusal for one in seen] == [job.refusal for job in found]


def test_a_length_that_a_method_refuses_refuses_all_lengths_of_its_training():
    reasons = [job.refusal for job in jobs_of("dhd", bits=(1, 8))]
    assert "norm = 'layer' needs codes of two bits" in reasons[0]
    assert reasons[1] == f"{reasons[0]} (nested with 1 bits)"


def test_a_function_that_makes_a_method_with_its_own_loop_is_refused_when_it_is_built():
    def make(setting, backbone):
        return HOUSE.method("adsh").factory(setting, backbone)

    with pytest.raises(UsageError, match="mine has its own training loop"):
        nest("mine", make, synthetic_splits().setting(8), Probe(), {}, ("equal", (4, 8), 0.1))


@pytest.mark.parametrize("nested", ["conflict", "equal"])
def test_one_training_gives_every_length_and_the_shorter_code_is_a_prefix(nested, tmp_path, monkeypatch):
    short, long = jobs_of("csq", nested=nested, sets={"digits.small": {"validation": 0.2}}.items(), select="map@all")
    store.prepare(tmp_path)
    checkpoint, cells, codes = tmp_path / "x.checkpoint", list[Cell](), {}
    for job in (short, long):
        job = replace(job, metrics=("map@all",))
        path = store.path(tmp_path, job.identity, "x")
        kept = saved_method.path_of(path)
        cell, arrays = measuring.measure(job, keep=kept, checkpoints=Checkpoints(checkpoint, job.checkpoint_facts))
        cells.append(cell)
        store.write(tmp_path, cell, arrays)
        monkeypatch.setattr(Run, "step", None)  # nothing is trained again
        read = saved_method.read(path)
        data = HOUSE.dataset("digits.small").factory()
        codes[job.identity.bits] = concatenate(encode_batches(read.run, read.method, data.query, "query"))["code"]
    first, second = cells
    assert {job.training.key for job in (short, long)} == {long.identity.key}
    assert codes[4].shape[1] == 4
    assert torch.equal(codes[4], codes[8][:, :4])
    assert (first.facts["stored_bits"], second.facts["stored_bits"]) == (4, 8)
    assert first.facts["marks"] == second.facts["marks"] == "nested"
    assert first.timings["fit_seconds"] == second.timings["fit_seconds"] > 0
    assert first.provenance["trained"] == second.provenance["trained"]
    assert first.curve == second.curve
    assert {"center 4", "center 8", "distillation 4"} <= first.curve[0]["loss"].keys()
    assert "map@all/selected" in second.metrics


def test_a_loss_that_quantization_adds_is_added_at_every_length():
    cell, _ = measuring.measure(jobs_of("csq", quantization="hswd")[0])
    assert {"added hswd 4", "added hswd 8"} <= cell.curve[0]["loss"].keys()


def test_each_length_has_its_own_centers_and_the_state_of_the_loss_is_trained():
    setting = synthetic_splits().setting(8)
    method = build_method(HOUSE.method("csq"), setting, Probe(), {}, Budget(nested="equal:4/8"))
    centers = [one.centers.shape[1] for one in method.loss.by_length.values()]
    assert centers == [4, 8]
    keep_prefix(method, 4)
    assert "head.layer.weight" in method.state_dict()


def test_training_with_one_length_gives_the_parameters_of_ordinary_training():
    data, entry = synthetic_splits(), HOUSE.method("norm-tanh+dhd")
    states = []
    for lengths in ((), (8,)):
        torch.manual_seed(0)
        run = Run(Budget(epochs=2, batch=8), 0)
        backbone = Probe()
        method = (
            nest("plain", entry.factory, data.setting(8), backbone, {}, ("conflict", lengths, 0.1))
            if lengths
            else entry.factory(data.setting(8), backbone)
        )
        method.fit(data.train, run)
        states.append([value.clone() for value in method.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))
