"""Model selection on validation images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.evaluation.scoring import encode_and_index, score_queries
from hashzoo.method import Method
from hashzoo.run import Run
from hashzoo.types import Splits


class BestState:
    """The state of a method after the epoch with the best validation score.

    Validation images query the training set; the test split is never used.
    """

    def __init__(self, method: Method, run: Run, data: Splits, extra: dict[str, Callable[..., Any]]) -> None:
        if data.validation is None:
            raise ValueError("selection needs validation images")
        self.method, self.run, self.extra = method, run, extra
        self.data = replace(data, query=data.validation, database=data.train, pairs=None)
        self.seconds = 0.0  # spent on validation
        self.best, self.epoch, self.weights = -np.inf, 0, dict[str, Tensor]()
        run.after_epoch, run.companion = self.validate, self

    def validate(self) -> None:
        """Score the method on the validation images and keep its state if the score is the best so far.

        Training is not affected: module modes and random generators are restored.
        """
        started = time.perf_counter()
        modes = [(module, module.training) for module in self.method.modules()]
        with torch.random.fork_rng(devices=[]):
            self._validate()
        for module, training in modes:
            module.training = training
        self.seconds += time.perf_counter() - started

    def _validate(self) -> None:
        index, query = encode_and_index(self.run, self.method, self.data, False)
        name = self.run.train.select
        found, _ = score_queries(index, {"": query}, self.data, (name,), self.extra)
        self.run.curve.add_validation({name: found.means[name]})
        if found.means[name] > self.best:
            self.best, self.epoch = found.means[name], self.run.epochs
            self.weights = {key: value.detach().clone() for key, value in self.method.state_dict().items()}
        waited = self.run.epochs - max(self.epoch, self.run.phase_start)
        self.run.stopped = bool(patience := self.run.train.patience) and waited >= patience

    def load_best(self) -> None:
        """Load the state of the best epoch into the method."""
        self.method.load_state_dict(self.weights)

    def state(self) -> dict[str, Tensor]:
        """The best weights and score so far, as tensors for a checkpoint."""
        numbers = torch.tensor([self.best, self.epoch, self.seconds], dtype=torch.float64)
        return {"numbers": numbers, **{f"state.{name}": value for name, value in self.weights.items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state` returned."""
        self.best, epoch, self.seconds = state["numbers"].tolist()
        self.epoch = int(epoch)
        self.weights = {name.removeprefix("state."): v for name, v in state.items() if name.startswith("state.")}
