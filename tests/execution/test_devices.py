"""Several processes that train a cell together give what one gives, and end together."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from functools import cache

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from hashzoo.bench.benchmark_file import Benchmark
from hashzoo.bench.job import Execution
from hashzoo.bench.measure import measure
from hashzoo.bench.plan import plan
from hashzoo.errors import DiskError, EndedError, HashzooError, status_of
from hashzoo.execution.worker import measure_on_devices
from hashzoo.factory import FactoryInfo
from hashzoo.method import Card, Deep
from hashzoo.registry import zoo
from hashzoo.run import Run
from hashzoo.testing import synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.training.distributed import ProcessGroup
from hashzoo.types import Output

HOUSE = zoo.load_plugins()


class Memory(nn.Module):
    """Draws codes to what the same images had when they were last seen: a table by image."""

    def __init__(self, setting):
        super().__init__()
        self.register_buffer("table", torch.zeros(setting.pool, setting.bits))

    def forward(self, output, batch):
        assert len(output.code) == len(batch) == len(output.extra["features"])
        terms = {"memory": (output.code - self.table[batch.ids] - 0.1).square().mean()}
        self.table[batch.ids] = output.code.detach()
        return terms


class OwnLoop(Deep):
    """Half a step on each batch, and it joins what the processes saw."""

    card = Card(gathers=True)

    def fit(self, train, run):
        optimizer = run.optimizer(self.backbone, self.head)
        for batch in run.batches(train, weights=torch.ones(len(train))):
            output = run.gathered(self.head(self.backbone(batch.images)), batch)
            run.step(optimizer, {"x": self.loss(output, batch)["memory"] / 2})


def fitted(case, process_group):
    """Losses of every step and final state of one training; Tiny has batch normalization."""
    data, steps = synthetic_splits(), []
    train = replace(data.train.take(torch.arange(50)))  # batches of 16, 16, 16 and 2
    budget = {"epochs": 2, "batch": 16, "lr": 1e-2, "clip": 1.0, "optimizer": "sgd"}
    run = Run(Budget(**budget), 0, process_group=process_group)
    setting = data.setting(8)
    torch.manual_seed(0)
    backbone = HOUSE.backbone("tiny").factory((1, 8, 8), width=4)
    head = HOUSE.heads["norm-tanh"].factory(setting, backbone)
    if case == "memory":
        method = Deep(backbone, head, Memory(setting))
    elif case == "own loop":
        method = OwnLoop(backbone, head, Memory(setting))
    else:
        method = HOUSE.method(case).factory(setting, backbone)
    step = run.step

    def stepped(optimizer, losses, *more):
        step(optimizer, losses)
        steps.append(sum(float(term.detach()) for term in losses.values()))

    run.step = stepped
    method.train()
    with process_group.sync_batch_norm():
        method.fit(train, run)
    process_group.require_equal(
        "the state", torch.stack([value.double().sum() for value in method.state_dict().values()])
    )
    return {"steps": torch.tensor(steps), **method.state_dict()}


@cache
def fitted_alone(case):
    return fitted(case, ProcessGroup())


def normed(process_group):
    """Outputs, gradients and running statistics of batch normalization for a batch."""
    x = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(7, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    process_group.begin_batch(len(x))
    mine, norm = process_group.share(x).requires_grad_(), BatchNormAct2d(3)  # a subclass of torch's with an activation
    with process_group.sync_batch_norm():
        y = norm(mine)
        whole = process_group.gather(Output(y), len(x)).code
        (weights * whole.square()).sum().backward()
    process_group.average_gradients([norm.weight])
    gathered = process_group.gather(Output(mine.grad), len(x)).code / process_group.count
    return {"y": whole, "x": gathered, "weight": norm.weight.grad, "mean": norm.running_mean, "var": norm.running_var}


CASES = ["tanh+dhn", "dhd", "sfdh", "memory", "own loop"]  # pairs; proxies, two views; centers; a table; a loop


def member(rank, folder):
    """One of three processes, then of two: they are reused because starting processes is slow."""
    os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    for count in range(3, max(rank, 1), -1):
        process_group = ProcessGroup(rank, count)
        process_group.join(folder / f"rendezvous {count}", "gloo")
        found = {case: fitted(case, process_group) for case in CASES} | {"norm": normed(process_group)}
        if rank == 0:
            torch.save(found, folder / f"{count}.pt")
        with pytest.raises(HashzooError, match=f"the {count} processes of this cell do not agree on the rank"):
            process_group.require_equal("the rank", torch.tensor([float(rank)]))
        process_group.finish(nn.BatchNorm1d(1))


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Results of two and of three processes; the last batch has two images, too few for three processes."""
    folder = tmp_path_factory.mktemp("together")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    processes = [context.Process(target=member, args=(rank, folder)) for rank in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    return {count: torch.load(folder / f"{count}.pt") for count in (2, 3)}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", CASES)
def test_several_processes_give_the_losses_and_the_state_of_one(case, count, together):
    alone = fitted_alone(case)
    assert len(alone["steps"]) == 8
    for name, value in alone.items():
        torch.testing.assert_close(
            together[count][case][name], value, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("count", [2, 3])
def test_batch_normalisation_is_that_of_the_whole_batch_for_any_module(count, together):
    for name, value in normed(ProcessGroup()).items():
        torch.testing.assert_close(
            together[count]["norm"][name].detach(), value.detach(), msg=lambda m, n=name: f"{n}: {m}"
        )


def test_shares_differ_by_one_image_and_a_batch_of_fewer_than_processes_is_not_divided():
    several = [ProcessGroup(rank, 3) for rank in range(3)]
    assert [len(process_group.share(torch.arange(16))) for process_group in several] == [6, 5, 5]
    assert torch.cat([process_group.share(torch.arange(16)) for process_group in several]).tolist() == list(range(16))
    assert [len(process_group.share(torch.arange(2))) for process_group in several] == [2, 2, 2]


def test_a_loop_that_does_not_join_what_was_seen_takes_no_step():
    run, layer = Run(Budget(), 0), nn.Linear(1, 1)
    run.process_group = ProcessGroup(0, 2)
    run.process_group.begin_batch(8)
    with pytest.raises(ValueError, match=r"does not ask for run\.gathered.* use --devices 1"):
        run.step(run.optimizer(layer), {"x": layer.weight.sum()})


def test_what_a_head_gives_beside_codes_must_have_a_row_for_each_image():
    process_group = ProcessGroup(0, 2)
    process_group.begin_batch(8)
    with pytest.raises(ValueError, match=r"the head's 'code' has shape \(3, 2\) for 4 images"):
        process_group.gather(Output(torch.zeros(3, 2)), 8)


def test_methods_with_a_loop_of_their_own_and_closed_forms_stay_in_one_process():
    found = {name for name, entry in HOUSE.methods.items() if FactoryInfo(entry.factory).distributed}
    assert {"dhn", "csq", "dhd", "sfdh", "two-level-cam", "bcl"} <= found
    own = {"dsdh", "adsh", "dqn", "cnnh", "tsc", "bbn", "lthnet", "hybrid-sc", "multigrain", "dcoh", "classifier"}
    assert not found & {*own, "itq", "lsh", "chance", "unquantized"}
    assert FactoryInfo(OwnLoop).distributed
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": ["dhn", "dsdh"]}
    jobs = plan(Benchmark.model_validate(values), HOUSE, execution=Execution(devices=2), baselines=False)
    assert [job.execution.devices for job in jobs] == [2, 1]


PLUGIN = textwrap.dedent("""
    import os, signal, time
    from pathlib import Path
    from torch import nn
    from hashzoo import deep, hookimpl
    from hashzoo.errors import DiskError

    class Act(nn.Module):
        def __init__(self, setting):
            super().__init__()

        def forward(self, output, batch):
            act, rank = os.environ.get("HASHZOO_TEST_ACT", ""), os.environ.get("LOCAL_RANK")
            loss = (output.code @ output.code.T / 8 - 2 * batch.similar + 1).square().mean()
            if batch.progress >= 0.5 and rank == "1":
                if act == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                if act == "full":
                    raise DiskError("cannot write features: no space left")
                if act == "raises":
                    raise RuntimeError("deliberate")
                if act.startswith("/"):
                    Path(act).touch()
                    time.sleep(1000)
            return {"act": loss}

    @hookimpl
    def hashzoo_methods():
        return {"act": deep("tanh", Act, doc="acts")}
    """)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "act.py").write_text(PLUGIN)
    plugins = (str(tmp_path / "act.py"),)
    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": ["act"]}
    file = Benchmark.model_validate(values | {"train": {"epochs": 4, "batch": 48}, "set": {"tiny": {"width": 4}}})
    (found,) = plan(file, zoo.load_plugins(plugins), baselines=False, execution=Execution(devices=2))
    return found


def quiet(progress, values):
    """Nobody looks."""


def test_a_killed_process_ends_the_cell_with_a_reason_and_another_try_gives_the_same_bytes(job, tmp_path, monkeypatch):
    path = tmp_path / "x.checkpoint"
    monkeypatch.setenv("HASHZOO_TEST_ACT", "killed")
    with pytest.raises(EndedError, match="process 2 of 2 was ended by SIGKILL") as found:
        measure_on_devices(job, quiet, None, Checkpoints(path, job.checkpoint_facts, every=0))
    assert found.value.status == "crashed"
    assert multiprocessing.active_children() == []
    monkeypatch.setenv("HASHZOO_TEST_ACT", "")  # not removed: the fork server may have started with it
    former = Checkpoints(path, job.checkpoint_facts, every=0)
    resumed, rows = measure_on_devices(job, quiet, None, former)
    assert (resumed.provenance["resumed_after_epoch"], resumed.provenance["devices"]) == (2, 2)
    straight, others = measure_on_devices(
        job, quiet, None, Checkpoints(tmp_path / "y.checkpoint", job.checkpoint_facts)
    )
    assert resumed.metrics == straight.metrics
    assert all(rows[name].tobytes() == others[name].tobytes() for name in rows)
    alone, _ = measure(replace(job, execution=replace(job.execution, devices=1)))
    assert alone.metrics == pytest.approx(straight.metrics, abs=0.01)
    assert alone.identity.key == straight.identity.key


def test_what_goes_wrong_in_any_process_is_the_reason_of_the_cell(job, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_TEST_ACT", "raises")
    with pytest.raises(EndedError, match="RuntimeError: deliberate") as found:
        measure_on_devices(job, quiet, None, Checkpoints(tmp_path / "x.checkpoint", job.checkpoint_facts))
    assert status_of(found.value)[0] == "failed"


def test_a_disk_that_refuses_any_process_is_no_failure_of_the_cell(job, tmp_path, monkeypatch):
    monkeypatch.setenv("HASHZOO_TEST_ACT", "full")
    with pytest.raises(DiskError, match="cannot write features: no space left"):
        measure_on_devices(job, quiet, None, Checkpoints(tmp_path / "x.checkpoint", job.checkpoint_facts))


HANGS = """
import pickle, sys
from pathlib import Path
from hashzoo.training.checkpoints import Checkpoints
from hashzoo.execution.worker import measure_on_devices

if __name__ == "__main__":
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    measure_on_devices(job, lambda progress, values: None, None, Checkpoints(Path("none"), job.checkpoint_facts))
"""


def test_processes_end_with_the_one_that_started_them(job, tmp_path):
    import pickle

    (tmp_path / "job").write_bytes(pickle.dumps(job))
    (tmp_path / "hangs.py").write_text(HANGS)
    marker = tmp_path / "here"
    process = subprocess.Popen(
        [sys.executable, "hangs.py", "job"], cwd=tmp_path, start_new_session=True,
        env={**os.environ, "HASHZOO_TEST_ACT": str(marker), "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        for _ in range(1800):
            if marker.exists():
                break
            time.sleep(0.1)
        assert marker.exists()
    finally:
        process.kill()
        process.wait()

    def alive():
        return subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True, check=False).stdout

    for _ in range(100):
        if not alive():
            break
        time.sleep(0.1)
    assert alive() == ""
    assert list(tmp_path.glob("hashzoo-*")) == []
