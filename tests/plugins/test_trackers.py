"""Who hears of finished cells, and that a sweep does not depend on them."""

from __future__ import annotations

import io
import re
import struct
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hashzoo.execution.trackers import TrackerThreads
from hashzoo.registry import zoo
from hashzoo.results.cell import Cell, Identity
from tests.cli.command import hashzoo

ROOT = Path(__file__).parents[2]
CELL = Cell(
    identity=Identity(
        dataset="digits.small", dataset_options={}, backbone="tiny", backbone_options={"weights": "random"},
        method="norm-tanh+dhn", hyperparameters={"weight": 0.25, "layers": [1, 2], "margin": None}, bits=8, seed=3,
        budget={"epochs": 2, "lr": 0.1}, protocol=1, code="c", data="d",
    ),
    benchmark="paper/some",
    status="ok",
    metrics={"map@all": 0.5, "map@5:hits": float("nan")},
    timings={"fit_seconds": 1.5},
    facts={"stored_bits": 8, "marks": "m"},
)  # fmt: skip
BAD = replace(CELL, identity=replace(CELL.identity, seed=4), status="crashed", reason="ended by SIGKILL", metrics={})


class Heard:
    def __init__(self, act=lambda cell: None):
        self.act, self.cells, self.closed = act, [], False

    def finished(self, cell):
        self.act(cell)
        self.cells.append(cell)

    def close(self):
        self.closed = True


class HeardOfEpochs(Heard):
    def __init__(self):
        super().__init__()
        self.epochs = []

    def epoch(self, job, number, values):
        self.epochs.append((job.identity.key, number, values, len(self.cells)))


def told(trackers, cells, patience=5.0):
    said = io.StringIO()
    with TrackerThreads(trackers, lambda text: said.write(f"{text}\n"), patience) as telling:
        for cell in cells:
            telling.finished(cell)
    return said.getvalue().splitlines()


def test_every_tracker_hears_of_every_cell_in_turn_and_of_the_end():
    heard = Heard(), Heard()
    assert told(dict(zip("ab", heard, strict=True)), [CELL, BAD]) == []
    assert [one.cells for one in heard] == [[CELL, BAD]] * 2
    assert all(one.closed for one in heard)


def test_one_that_raises_is_named_once_and_the_others_go_on():
    def fail(cell):
        raise ConnectionError("no route")

    other = Heard()
    said = told({"far": Heard(fail), "near": other}, [CELL, BAD, CELL])
    assert said == ["tracker far failed and receives no more cells: ConnectionError: no route"]
    assert len(other.cells) == 3


def test_one_that_hangs_keeps_neither_the_sweep_nor_the_others_waiting():
    stuck, other = threading.Event(), Heard()
    began = time.monotonic()
    said = told({"slow": Heard(lambda cell: stuck.wait(60)), "near": other}, [CELL, BAD, CELL], patience=0.3)
    assert time.monotonic() - began < 5
    assert said == ["tracker slow is 3 cells behind; the sweep ends without it"]
    assert len(other.cells) == 3
    stuck.set()


def test_epochs_go_to_the_trackers_that_take_them_while_the_cell_is_trained(tmp_path):
    from hashzoo.bench.benchmark_file import Benchmark
    from hashzoo.bench.plan import plan
    from hashzoo.execution.sweep import Sweep, sweep

    values = {"name": "x", "dataset": "digits.small", "backbone": "tiny", "bits": [8], "methods": ["csq"]}
    file = Benchmark.model_validate(values | {"train": {"epochs": 3, "batch": 64}, "set": {"tiny": {"width": 4}}})
    jobs = plan(file, zoo.load_plugins(), baselines=False)
    live, plain = HeardOfEpochs(), Heard()
    [cell], _ = sweep(jobs, tmp_path, Sweep(trackers={"live": live, "plain": plain}))
    assert [cells.identity.key for cells in plain.cells] == [cell.identity.key]
    assert [(key, number, before) for key, number, _, before in live.epochs] == [
        (cell.identity.key, number, 0) for number in (1, 2, 3)
    ]
    assert [values for _, _, values, _ in live.epochs] == [epoch["loss"] for epoch in cell.curve]


CURVE = [{"loss": {"pair": 0.5}}, {"loss": {"pair": 0.25}, "validation": {"map@all": 0.7}}]
LEARNED = replace(CELL, identity=replace(CELL.identity, seed=7), provenance={"curve": CURVE})
LAST = {"pair": 0.25, "validation map@all": 0.7}


def test_an_unknown_tracker_is_named_with_the_nearest_and_one_that_fails_harms_no_cell(tmp_path):
    (tmp_path / "bad.py").write_text(
        "from hashzoo import hookimpl\n"
        "class Bad:\n"
        "    'Fails.'\n"
        "    def __init__(self, folder): pass\n"
        "    def finished(self, cell): raise RuntimeError('deliberate')\n"
        "    def close(self): pass\n"
        "@hookimpl\n"
        "def hashzoo_finished(): return {'bad': Bad}\n"
    )
    common = ("bench", "digits", "--quick", "--no-baselines", "--methods", "lsh", "--seeds", "0,1", "--results", "r",
              "--plugin", "bad.py", "--track")  # fmt: skip
    result = hashzoo(*common, "bda", cwd=tmp_path, timeout=900)
    assert (result.returncode, result.stderr) == (2, "hashzoo: no tracker 'bda'; did you mean 'bad'?\n")
    result = hashzoo(*common, "bad", cwd=tmp_path, timeout=900)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("tracker bad failed and receives no more cells: RuntimeError: deliberate") == 1
    assert "[2/2] lsh" in result.stdout


def test_the_tracker_of_the_documentation_works(tmp_path):
    text = (ROOT / "docs" / "howto" / "write-tracker.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "hashzoo_finished" in block]
    (command,) = re.findall(r"^    hashzoo (.*--track tally.*)$", text, re.M)
    (tmp_path / "tally.py").write_text(code)
    result = hashzoo(
        *command.split(), "--quick", "--methods", "lsh", "--no-baselines", "--results", "r", cwd=tmp_path, timeout=900
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "r" / "counts.txt").read_text() == "{'ok': 1}\n"


def test_tensorboard_has_a_run_a_cell_with_its_scores(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = zoo.load_plugins().tracker("tensorboard").factory(tmp_path)
    for cell in (CELL, BAD, CELL):  # the same again takes the place of the first
        tracker.finished(cell)
    tracker.close()
    good, bad = sorted((tmp_path / "tensorboard").iterdir())
    assert good.name == f"paper_some.norm-tanh+dhn.8.3.{CELL.identity.key}"
    read = EventAccumulator(str(good)).Reload()
    found = {tag: [event.value for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert found == {"scores/map@all": [0.5], "timings/fit_seconds": [1.5], "facts/stored_bits": [8.0]}
    text = EventAccumulator(str(bad)).Reload()
    (event,) = text.Tensors("cell/text_summary")
    assert "| reason | ended by SIGKILL |" in event.tensor_proto.string_val[0].decode()


@pytest.mark.parametrize("streamed", [0, 1, 2])
def test_tensorboard_has_every_epoch_once_whether_or_not_they_were_streamed(streamed, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = zoo.load_plugins().tracker("tensorboard").factory(tmp_path)
    for number, values in list(enumerate(({"pair": 0.5}, LAST), 1))[:streamed]:
        tracker.epoch(LEARNED, number, values)  # a cell has the name of its job
    if streamed:
        read = EventAccumulator(str(next((tmp_path / "tensorboard").iterdir()))).Reload()
        assert len(read.Scalars("training/pair")) == streamed
    tracker.finished(LEARNED)
    tracker.close()
    read = EventAccumulator(str(next((tmp_path / "tensorboard").iterdir()))).Reload()
    assert [(event.step, event.value) for event in read.Scalars("training/pair")] == [(1, 0.5), (2, 0.25)]
    assert [event.step for event in read.Scalars("training/validation map@all")] == [2]


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy and alembic, about how MLflow uses them
@pytest.mark.parametrize("streamed", [0, 1, 2])
def test_mlflow_has_every_epoch_once_whether_or_not_they_were_streamed(streamed, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = zoo.load_plugins().tracker("mlflow").factory(tmp_path)
    for number, values in list(enumerate(({"pair": 0.5}, LAST), 1))[:streamed]:
        tracker.epoch(LEARNED, number, values)
    tracker.finished(LEARNED)
    tracker.close()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("paper/some").experiment_id])
    history = client.get_metric_history(run.info.run_id, "training/pair")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]
    assert run.info.status == "FINISHED"


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy and alembic, about how MLflow uses them
def test_mlflow_has_a_run_a_cell_with_what_was_asked(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    tracker = zoo.load_plugins().tracker("mlflow").factory(tmp_path / "r")
    (tmp_path / "r").mkdir()
    for cell in (CELL, BAD):
        tracker.finished(cell)
    tracker.close()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'r' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("paper/some")
    bad, good = client.search_runs([experiment.experiment_id])
    assert good.data.metrics == {"scores/map_at_all": 0.5, "timings/fit_seconds": 1.5, "facts/stored_bits": 8.0}
    assert good.data.params["method.weight"] == "0.25"
    assert good.data.params["key"] == CELL.identity.key
    assert (good.info.status, bad.info.status) == ("FINISHED", "FAILED")
    assert bad.data.params["reason"] == "ended by SIGKILL"
    assert {file.name for file in tmp_path.iterdir()} == {"r"}  # nothing where the sweep was started


def records(data: bytes) -> list[bytes]:
    """The records of a wandb file: LevelDB's log, in blocks of 32 KiB behind a header of 7 bytes."""
    found, part, at = [], b"", 7
    while at + 7 <= len(data):
        if (left := (1 << 15) - at % (1 << 15)) < 7:  # what is left of a block is padding
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        part, at = part + data[at + 7 : at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            found.append(part)
            part = b""
    return found


def wandb_runs(folder, record_type):
    """What the files of wandb say: configuration, summary and exit code by name, and the steps by name."""
    found, steps = {}, {}
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        name = ""
        for record in map(record_type.FromString, records(file.read_bytes())):
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name or name
                found.setdefault(name, {}).update({u.key: u.value_json for u in record.run.config.update})
            if record.WhichOneof("record_type") == "config":
                found[name].update({u.key: u.value_json for u in record.config.update})
            if record.WhichOneof("record_type") == "summary":
                found[name].update({u.key or "/".join(u.nested_key): u.value_json for u in record.summary.update})
            if record.WhichOneof("record_type") == "history":
                logged = {u.key or "/".join(u.nested_key): u.value_json for u in record.history.item}
                steps.setdefault(name, []).append((logged.get("_step"), logged.get("training/pair")))
            if record.WhichOneof("record_type") == "exit":
                found[name]["exit"] = record.exit.exit_code
    return found, steps


@pytest.mark.filterwarnings("ignore")  # of pydantic and protobuf, about how wandb uses them
def test_wandb_keeps_a_run_a_cell_here(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    tracker = zoo.load_plugins().tracker("wandb").factory(tmp_path)
    tracker.epoch(CELL, 1, {"pair": 0.5})
    for cell in (CELL, BAD, LEARNED):
        tracker.finished(cell)
    tracker.close()
    until = time.monotonic() + 30
    while True:  # wandb writes the end of a run in a process of its own
        found, steps = wandb_runs(tmp_path, Record)
        if sum("exit" in values for values in found.values()) == 3 or time.monotonic() > until:
            break
        time.sleep(0.2)
    (good, bad, _) = [values for _, values in sorted(found.items())]
    assert sorted(steps.values()) == [[("1", "0.5")], [("1", "0.5"), ("2", "0.25")]]
    assert good["scores/map@all"] == "0.5"
    assert good["method.weight"] == "0.25"
    assert (good["exit"], bad["exit"]) == (0, 1)
    assert bad["reason"] == '"ended by SIGKILL"'
