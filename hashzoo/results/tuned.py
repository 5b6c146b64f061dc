"""The result of a study, ``tuned.toml``: the chosen settings, all trials, and where they come from."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.results.cell import Identity
from hashzoo.storage.files import disk_errors, replace_bytes
from hashzoo.training.budget import Budget

FILE = "tuned.toml"
SCHEMA = 1

#: What the names of values of the budget start with, in a point and in ``--set``.
TRAIN = "train."

#: Values by name: ``train.lr`` for one of the budget, ``weight`` for a hyperparameter.
Point = Mapping[str, Any]


class Trial(BaseModel):
    """One setting that a study tried.

    Attributes:
        number: Its number; trial 0 is the default.
        status: ``"ok"``, ``"pruned"`` or the status of the first cell that failed.
        score: The mean validation score; None unless it is ok.
        images: Training images that its cells saw.
        cells: The keys of its cells.
        settings: What differs from the default, as ``train.lr`` and names of hyperparameters.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    status: str
    score: float | None = None
    images: int = 0
    cells: list[str] = []
    settings: dict[str, Any] = {}


class TunedMethod(BaseModel):
    """The study of one method on one dataset at one code length.

    Attributes:
        dataset: Name of the dataset.
        method: Name of the method.
        bits: Code length.
        backbone: Name of the backbone.
        code: Digest of the code of method and backbone.
        epochs: Epochs of the budget.
        chosen: Number of the chosen trial; -1 if all trials failed.
        score: Its validation score.
        default: The validation score of the default.
        edges: The chosen values at an end of their range, such as ``train.lr high``.
        settings: The chosen settings.
        trials: All trials, by number.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    method: str
    bits: int
    backbone: str
    code: str
    epochs: int
    chosen: int
    score: float | None = None
    default: float | None = None
    edges: list[str] = []
    settings: dict[str, Any] = {}
    trials: list[Trial] = []

    @property
    def place(self) -> tuple[str, str, int]:
        """What distinguishes it from all others of a study."""
        return self.dataset, self.method, self.bits

    def scores(self, higher: bool = True) -> list[float]:
        """The scores of all trials, the default first; higher is better. A trial that failed counts as the worst."""
        sign = 1.0 if higher else -1.0
        known = [sign * one.score for one in self.trials if one.score is not None]
        return [min(known) if one.score is None else sign * one.score for one in self.trials] if known else []


class Tuned(BaseModel):
    """The result of a study.

    Attributes:
        schema_version: Version of the layout.
        hashzoo: Version of hashzoo.
        benchmark: Name of the benchmark.
        metric: The metric that chose the settings.
        higher: Whether higher values of it are better.
        trials: Trials for each method, the default included.
        sampler: What chose the settings to try.
        seed: Seed of the study.
        held_out: What was held out of the training set, such as ``validation1of3.0``.
        seeds: Seeds of training.
        methods: The methods.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA
    hashzoo: str
    benchmark: str
    metric: str
    higher: bool = True
    trials: int
    sampler: str
    seed: int
    held_out: list[str]
    seeds: list[int]
    methods: list[TunedMethod] = []

    @property
    def mark(self) -> str:
        """The mark of tuned rows."""
        return f"tuned({self.trials})"

    def find(self, dataset: str, method: str, bits: int) -> TunedMethod | None:
        """The study of a method; None if there is none, or all of its trials failed."""
        found = {one.place: one for one in self.methods if one.chosen >= 0}
        return found.get((dataset, method, bits))


def write(tuned: Tuned, path: Path) -> None:
    """Write the result of a study. The same study gives the same bytes."""
    replace_bytes(path, "\n".join(_lines(tuned)).encode() + b"\n")


def read(path: Path) -> Tuned:
    """Read ``tuned.toml``, from the file or its folder. UsageError, on one line, for what is wrong in it."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"there is no file {file}; hashzoo tune BENCHMARK writes one")
    try:
        with disk_errors("read", file):
            content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        if int(content.get("schema_version", 0)) > SCHEMA:
            raise EnvironmentFailure(f"{file} was written by a later hashzoo; update hashzoo")
        return Tuned.model_validate(content)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not a TOML file: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{file} is not the result of a study: {place}: {first['msg'].lower()}") from error


def vary_identity(identity: Identity, point: Point) -> Identity:
    """The identity with the values of a point in place of its own. UsageError for a name that it does not have."""
    own = {name: value for name, value in point.items() if not name.startswith(TRAIN)}
    for name in own:
        if name not in identity.hyperparameters:
            raise UsageError(f"{identity.method} has {unknown_name('option', name, identity.hyperparameters)}")
    changes = {name.removeprefix(TRAIN): value for name, value in point.items() if name.startswith(TRAIN)}
    budget = Budget.model_validate({**identity.budget, **changes}).recorded() if changes else identity.budget
    return replace(identity, hyperparameters={**identity.hyperparameters, **own}, budget=budget)


def _lines(tuned: Tuned) -> Iterator[str]:
    yield f"# Settings chosen by hashzoo tune; hashzoo bench {tuned.benchmark} --tuned FILE measures them."
    yield from _pairs(tuned.model_dump(exclude={"methods"}))
    for method in tuned.methods:
        yield from ("", "[[methods]]")
        yield from _pairs(method.model_dump(exclude={"trials"}))
        for trial in method.trials:
            yield from ("", "[[methods.trials]]")
            yield from _pairs(trial.model_dump())


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:  # TOML has no null
            yield f"{name} = {toml(value)}"


def toml(value: Any) -> str:
    """A value as TOML.

    >>> toml({"train.lr": 0.001, "kind": "arc", "on": True, "few": [1, 2]})
    '{ "train.lr" = 0.001, "kind" = "arc", "on" = true, "few" = [1, 2] }'
    """
    if isinstance(value, Mapping):
        inside = ", ".join(f"{json.dumps(str(name))} = {toml(one)}" for name, one in value.items() if one is not None)
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float) and not isinstance(value, bool):
        return repr(value) if math.isfinite(value) else "nan"
    return json.dumps(value)  # text, whole numbers, true and false are the same in TOML
