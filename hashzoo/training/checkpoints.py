"""Long fits survive a crash: their state is kept beside the cell after an epoch, and a new try goes on from there.

One sealed file: tensors, and JSON with what they belong to.
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

EVERY = 60.0  # seconds of training that a crash may cost, and the rest of an epoch


class Stateful(Protocol):
    """State that changes from epoch to epoch beside a method, saved and restored with it."""

    def state(self) -> dict[str, Tensor]:
        """The state, as tensors."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take the state back that :meth:`state` returned."""


class Trainee(Protocol):
    """The part of a :class:`hashzoo.Run` that a checkpoint saves and restores."""

    epochs: int
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator
    device: torch.device
    companion: Stateful | None

    @property
    def logged(self) -> dict[str, float]:
        """The latest value of every logged quantity."""

    def log(self, values: dict[str, Any]) -> None:
        """Keep the latest value of named quantities."""


class Checkpoints:
    """The checkpoint of one cell at ``path``, written after an epoch that ends ``every`` seconds after the last.

    A file that is damaged, or was written for another cell, by other versions or on another kind of device, is not
    used, and a line says so. One that cannot be written is no failure either. ``seconds`` is what former tries took.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], every: float = EVERY) -> None:
        self.path, self.every, self.seconds, self.epoch = path, every, 0.0, 0
        self.about = {**facts, "hashzoo": __version__, "torch": torch.__version__}
        self.last = self.began = time.monotonic()

    def begin(self, run: Trainee, method: nn.Module) -> int:
        """How many epochs are over: those of a former try, whose state has then been put back, or none."""
        self.last = self.began = time.monotonic()
        try:
            found = self._read()
            if found is not None:
                put_back(run, method, *found)
                self.seconds, self.epoch = found[1]["seconds"], run.epochs
                print(f"a former try was ended: training goes on after epoch {run.epochs}", flush=True)
        except (ValueError, KeyError) as error:
            print(f"{self.path.name} is not used: {error}; training begins anew", flush=True)
        return self.epoch

    def after_epoch(self, run: Trainee, method: nn.Module) -> None:
        """Write the state, if it is time."""
        now = time.monotonic()
        if now - self.last < self.every:
            return
        tensors, values = state_of(run, method)
        values |= {"about": self.about, "seconds": self.seconds + now - self.began}
        try:
            replace_bytes(self.path, tensor_bytes(json.dumps(values), tensors))
        except EnvironmentFailure as error:  # a full disk: the cell may still have room for its scores
            print(f"no checkpoint after epoch {run.epochs}: {error}", flush=True)
        self.last = time.monotonic()

    def remove(self) -> None:
        """Nothing is left to go on with."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """What was written, or None where nothing was. ValueError where it is not that, or not for this cell."""
        if not self.path.is_file():
            return None
        text, tensors = read_tensors(self.path)
        values: dict[str, Any] = json.loads(text)
        for name, value in self.about.items():
            if values["about"].get(name) != value:
                raise ValueError(f"it was written for {name} {values['about'].get(name)}, not {value}")
        return tensors, values


def path_of(cell: Path) -> Path:
    """Where the checkpoint of the cell at this path lies."""
    return cell.with_suffix(".checkpoint")


def named(method: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, those included that ``state_dict`` leaves out: a table by image may be one."""
    return {**dict(method.named_parameters()), **dict(method.named_buffers())}


def state_of(run: Trainee, method: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that the next epoch depends on, as tensors and as what JSON holds."""
    tensors = {f"method.{name}": value for name, value in named(method).items()}
    plain: dict[str, Any] = {}
    for place, optimizer in enumerate(run.optimizers):
        for row, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                (tensors if isinstance(value, Tensor) else plain)[f"optimizer.{place}.{row}.{name}"] = value
    tensors["random.run"], tensors["random.torch"] = run.generator.get_state(), torch.get_rng_state()
    if run.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(run.device)
    if run.companion is not None:
        tensors |= {f"beside.{name}": value for name, value in run.companion.state().items()}
    return tensors, {"epochs": run.epochs, "logged": run.logged, "optimizers": len(run.optimizers), "plain": plain}


def put_back(run: Trainee, method: nn.Module, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Make run and method as they were. ValueError, and nothing is changed, where the state is not of such a method."""
    mine = named(method)
    theirs = {name.removeprefix("method."): t for name, t in tensors.items() if name.startswith("method.")}
    wrong = [name for name in mine.keys() | theirs.keys() if name not in mine or name not in theirs]
    wrong += [name for name in mine.keys() & theirs.keys() if mine[name].shape != theirs[name].shape]
    if wrong or values["optimizers"] != len(run.optimizers):
        raise ValueError(f"it does not fit the method as it is now ({sorted(wrong)[0] if wrong else 'optimizers'})")
    with torch.no_grad():
        for name, value in mine.items():
            value.copy_(theirs[name])
    for place, optimizer in enumerate(run.optimizers):
        state: dict[int, dict[str, Any]] = {}
        for name, value in {**tensors, **values["plain"]}.items():
            if name.startswith(f"optimizer.{place}."):
                row, entry = name.split(".", 3)[2:]
                state.setdefault(int(row), {})[entry] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    run.generator.set_state(tensors["random.run"])
    torch.set_rng_state(tensors["random.torch"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], run.device)
    if run.companion is not None:
        run.companion.restore({n.removeprefix("beside."): t for n, t in tensors.items() if n.startswith("beside.")})
    run.epochs = values["epochs"]
    run.log(values["logged"])
