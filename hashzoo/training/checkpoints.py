"""Checkpoints of long trainings, saved after an epoch: after a crash, the same cell resumes from the last one.

A checkpoint is one file of tensors and JSON, with a digest of both.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hashzoo._version import __version__
from hashzoo.errors import EnvironmentFailure
from hashzoo.storage.files import replace_bytes
from hashzoo.storage.tensors import read_tensors, tensor_bytes
from hashzoo.training.averaging import WeightAverage
from hashzoo.training.curve import Curve
from hashzoo.training.scaling import LossScaler

EVERY = 60.0  # seconds between checkpoints; a crash loses at most these and the rest of an epoch


class Stateful(Protocol):
    """State outside a method that changes from epoch to epoch; it is saved and restored with the method."""

    def state(self) -> dict[str, Tensor]:
        """The state, as tensors."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore a state that :meth:`state` returned."""


class TrainingRun(Protocol):
    """The part of a :class:`hashzoo.Run` that a checkpoint saves and restores."""

    epochs: int
    stopped: bool
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator
    device: torch.device
    companion: Stateful | None
    average: WeightAverage | None
    scaler: LossScaler
    curve: Curve

    @property
    def logged(self) -> dict[str, float]:
        """The latest value of every logged quantity."""

    def log(self, values: dict[str, Any]) -> None:
        """Keep the latest value of named quantities."""


class Checkpoints:
    """The checkpoint of one cell at ``path``, saved after an epoch if ``every`` seconds have passed since the last.

    ``facts`` identify the cell and its devices. A file that is damaged or was written for other facts or by other
    versions is ignored, with a message. A failure to write a checkpoint does not stop the training. ``epoch`` is the
    epoch after which the training resumed (0: none) and ``seconds`` the training time before it.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], every: float = EVERY) -> None:
        self.path, self.every, self.seconds, self.epoch = path, every, 0.0, 0
        self.about = {**facts, "hashzoo": __version__, "torch": torch.__version__}
        self._last = self._started = time.monotonic()

    def restore(self, run: TrainingRun, method: nn.Module) -> int:
        """Restore run and method from the checkpoint, if there is one; return the number of epochs already done."""
        self._last = self._started = time.monotonic()
        try:
            content = self._read()
            if content is not None:
                restore_state(run, method, *content)
                self.seconds, self.epoch = content[1]["seconds"], run.epochs
                print(f"resuming after epoch {run.epochs}", flush=True)
        except (ValueError, KeyError) as error:
            print(f"{self.path.name} ignored: {error}; training starts from the beginning", flush=True)
        return self.epoch

    def save_if_due(self, run: TrainingRun, method: nn.Module) -> None:
        """Write a checkpoint if ``every`` seconds have passed since the last."""
        now = time.monotonic()
        if now - self._last < self.every:
            return
        self._save(run, method, {"seconds": self.seconds + now - self._started})
        self._last = time.monotonic()

    def save_finished(self, run: TrainingRun, method: nn.Module, seconds: float) -> None:
        """Write the state after a training of some seconds, for other cells that the same training serves."""
        with_optimizers, run.optimizers = run.optimizers, []  # no step follows
        self._save(run, method, {"seconds": seconds, "finished": True, "stopped": run.stopped})
        run.optimizers = with_optimizers

    def restore_finished(self, run: TrainingRun, method: nn.Module) -> bool:
        """Restore what :meth:`save_finished` wrote; False, and nothing changes, if the training is not finished."""
        try:
            content = self._read()
            if content is None or not content[1].get("finished"):
                return False
            restore_state(run, method, *content)
        except (ValueError, KeyError) as error:
            print(f"{self.path.name} ignored: {error}; training starts from the beginning", flush=True)
            return False
        self.seconds, run.stopped = content[1]["seconds"], content[1]["stopped"]
        return True

    def _save(self, run: TrainingRun, method: nn.Module, more: Mapping[str, Any]) -> None:
        tensors, values = capture_state(run, method)
        values |= {"about": self.about, **more}
        try:
            replace_bytes(self.path, tensor_bytes(json.dumps(values), tensors))
        except EnvironmentFailure as error:  # the scores, which are small, can still fit on the disk
            print(f"no checkpoint after epoch {run.epochs}: {error}", flush=True)

    def remove(self) -> None:
        """Delete the checkpoint."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and values of the checkpoint; None without one. Raises ValueError if damaged or of another cell."""
        if not self.path.is_file():
            return None
        text, tensors = read_tensors(self.path)
        values: dict[str, Any] = json.loads(text)
        for name, value in self.about.items():
            if values["about"].get(name) != value:
                raise ValueError(f"written for {name} {values['about'].get(name)}, not {value}")
        return tensors, values


def checkpoint_path(cell: Path) -> Path:
    """The path of the checkpoint that belongs to a cell's file."""
    return cell.with_suffix(".checkpoint")


def _named_tensors(method: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, including buffers that ``state_dict`` omits, such as tables with one row per image."""
    return {**dict(method.named_parameters()), **dict(method.named_buffers())}


def capture_state(run: TrainingRun, method: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that the next epoch depends on: tensors, and values that JSON can represent."""
    tensors = {f"method.{name}": value for name, value in _named_tensors(method).items()}
    plain: dict[str, Any] = {}
    for index, optimizer in enumerate(run.optimizers):
        for row, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                (tensors if isinstance(value, Tensor) else plain)[f"optimizer.{index}.{row}.{name}"] = value
    tensors["random.run"], tensors["random.torch"] = run.generator.get_state(), torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
    if run.companion is not None:
        tensors |= {f"beside.{name}": value for name, value in run.companion.state().items()}
    if run.average is not None:
        tensors |= {f"average.{name}": value for name, value in run.average.state().items()}
    return tensors, {
        "epochs": run.epochs,
        "curve": run.curve.epochs,
        "logged": run.logged,
        "optimizers": len(run.optimizers),
        "plain": plain,
        "scaler": run.scaler.state(),
    }


def restore_state(run: TrainingRun, method: nn.Module, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Restore a captured state. Raises ValueError, and changes nothing, if it does not match the method."""
    current = _named_tensors(method)
    saved = {name.removeprefix("method."): t for name, t in tensors.items() if name.startswith("method.")}
    mismatched = [name for name in current.keys() | saved.keys() if name not in current or name not in saved]
    mismatched += [name for name in current.keys() & saved.keys() if current[name].shape != saved[name].shape]
    if mismatched or values["optimizers"] != len(run.optimizers):
        raise ValueError(f"it does not match the method ({sorted(mismatched)[0] if mismatched else 'optimizers'})")
    with torch.no_grad():
        for name, value in current.items():
            value.copy_(saved[name])
    for index, optimizer in enumerate(run.optimizers):
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**tensors, **values["plain"]}.items():
            if name.startswith(f"optimizer.{index}."):
                row, entry = name.split(".", 3)[2:]
                state.setdefault(int(row), {})[entry] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    run.scaler.restore(values.get("scaler", {}))
    run.generator.set_state(tensors["random.run"])
    torch.set_rng_state(tensors["random.torch"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], run.device)
    if run.companion is not None:
        run.companion.restore({n.removeprefix("beside."): t for n, t in tensors.items() if n.startswith("beside.")})
    if run.average is not None:
        run.average.restore({n.removeprefix("average."): t for n, t in tensors.items() if n.startswith("average.")})
    run.epochs, run.curve.epochs = values["epochs"], list(values.get("curve", []))
    run.log(values["logged"])
    run.curve.forget()  # what is restored was not logged in the next epoch
