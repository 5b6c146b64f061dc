"""Benchmark files: methods, datasets, code lengths, seeds, metrics and budget, as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.storage.files import expand_user
from hashzoo.training.budget import Budget


class Quick(BaseModel):
    """The changes of ``--quick``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str | list[str] | None = None
    epochs: int | None = Field(None, ge=1)
    bits: list[int] | None = None
    seeds: list[int] | None = None


#: What ``unlabelled`` can change.
UNLABELLED = {"methods", "baselines", "controls", "metrics", "truth"}

#: What ``fallback`` can change.
FALLBACK = {"backbone", "set", "train"}

#: The backbone of vectors, which are features already.
VECTOR_BACKBONE = "identity"


class TruthTable(BaseModel):
    """What is relevant to a query for ``recall@k``: ``neighbours = "backbone"`` are the nearest features of images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    neighbours: Literal["", "backbone"] = ""


class Benchmark(BaseModel):
    """A benchmark file.

    Attributes:
        name: Name of the benchmark; by default that of its file.
        title: One line for ``hashzoo list benchmarks``.
        dataset: Names of datasets, one or several.
        on: Changes for one dataset, as ``[on."digits.lt50".train] epochs = 40``.
        methods: Names and patterns of methods.
        baselines: Methods on every board, which the others are compared with; ``controls`` do not compete.
        bits: Code lengths.
        once: Names of methods that store the same at every code length; they are measured at the first one only.
        seeds: Seeds.
        metrics: Names of metrics.
        backbone: The backbone of all methods that ``backbones`` does not name.
        backbones: Backbones by kind of method, ``shallow`` or ``deep``, or by the name of a method.
        budget: ``"equal"`` or ``"paper"``: whether all methods share one budget.
        train: The training budget.
        truth: The truth of ``recall@k`` for images.
        fallback: Changes where the package of ``backbone`` is not installed: backbone, set, train.
        unlabelled: Changes for data without labels: methods, baselines, controls, metrics, truth.
        quick: The changes of ``--quick``.
        set: Options by name of a plugin, as ``[set.dhn] weight = 0.2``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")
    title: str = ""
    dataset: str | list[str]
    on: dict[str, dict[str, Any]] = {}
    methods: list[str] = ["*"]
    baselines: list[str] = []
    controls: list[str] = []
    bits: list[int] = Field([16, 32], min_length=1)
    once: list[str] = []
    seeds: list[int] = Field([0], min_length=1)
    metrics: list[str] = Field(["map@all"], min_length=1)
    backbone: str | None = None
    backbones: dict[str, str] = {}
    budget: Literal["equal", "paper"] = "equal"
    train: Budget = Budget()  # type: ignore[call-arg]
    truth: TruthTable = TruthTable()
    fallback: dict[str, Any] = {}
    unlabelled: dict[str, Any] = {}
    quick: Quick = Quick()  # type: ignore[call-arg]
    set: dict[str, dict[str, Any]] = {}

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets."""
        return [self.dataset] if isinstance(self.dataset, str) else self.dataset

    def each(self) -> list[Benchmark]:
        """A benchmark for each dataset, with the changes of ``on``. UsageError for a key that ``on`` cannot change."""
        if not self.datasets or len(set(self.datasets)) < len(self.datasets):
            raise UsageError(
                f"{self.name}: dataset must name one dataset or several different ones, not {self.dataset}"
            )
        for name, changes in self.on.items():
            if fixed := sorted(changes.keys() & {"name", "dataset", "on", "quick"}):
                raise UsageError(f"{self.name}: on.{name}: {fixed[0]} is the same for all datasets of a benchmark")
        whole = self.model_dump(exclude_unset=True, exclude={"on"})
        return [
            checked(merged(whole, self.on.get(name, {})) | {"dataset": name}, f"on.{name}") for name in self.datasets
        ]

    def for_data(self, labelled: bool, exact: bool) -> Benchmark:
        """The benchmark with the changes of ``unlabelled`` if the data has no labels.

        Without ``truth`` if the data has exact neighbors of its own.
        """
        made = self
        if self.unlabelled and not labelled:
            whole = self.model_dump(exclude_unset=True, exclude={"unlabelled"})
            made = checked(merged(whole, self.unlabelled), f"{self.name}: unlabelled")
        return made.model_copy(update={"truth": TruthTable()}) if exact else made

    def bits_of(self, method: str) -> list[int]:
        """The code lengths at which a method is measured."""
        return self.bits[:1] if method in self.once else self.bits

    def backbone_for(self, method: str, kind: Literal["shallow", "deep"], vectors: bool = False) -> str:
        """The backbone of a method, on vectors or on images."""
        if vectors:
            return VECTOR_BACKBONE
        name = self.backbones.get(method) or self.backbones.get(kind) or self.backbone
        if name is None:
            raise UsageError(f'benchmark {self.name} has no backbone for {kind} methods; add backbone = "NAME"')
        return name


def shipped() -> dict[str, Path]:
    """The benchmark files of hashzoo by name, in a checkout or in an installed wheel."""
    here = Path(__file__).parents[1]
    folder = here / "benchmarks" if (here / "benchmarks").is_dir() else here.parent / "benchmarks"
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in sorted(folder.rglob("*.toml"))}


def read(given: str) -> Benchmark:
    """Read a benchmark by name or file. UsageError, on one line, for what is wrong in it."""
    path = expand_user(Path(given))
    if path.suffix != ".toml":
        known = shipped()
        if given not in known:
            raise UsageError(unknown_name("benchmark", given, known) + " (or give a FILE.toml)")
        path = known[given]
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {given}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{given} is not a TOML file: {error}") from error
    except OSError as error:
        raise EnvironmentFailure(f"cannot read {given}: {error.strerror}") from error
    values.setdefault("name", path.stem)
    benchmark = checked(values, given)
    for name in benchmark.on.keys() - set(benchmark.datasets):
        raise UsageError(f"{given}: on.{name}: {unknown_name('dataset of this benchmark', name, benchmark.datasets)}")
    for fixed in sorted(benchmark.unlabelled.keys() - UNLABELLED):
        raise UsageError(f"{given}: unlabelled: {unknown_name('key', fixed, UNLABELLED)}")
    for fixed in sorted(benchmark.fallback.keys() - FALLBACK):
        raise UsageError(f"{given}: fallback: {unknown_name('key', fixed, FALLBACK)}")
    if benchmark.fallback:
        if not benchmark.backbone or "backbone" not in benchmark.fallback:
            raise UsageError(f"{given}: fallback needs a backbone of its own, and one of the benchmark to stand in for")
        checked(merged(benchmark.model_dump(exclude_unset=True), benchmark.fallback), f"{given}: fallback")
    benchmark.for_data(False, False)  # raises for a wrong change, as each does
    benchmark.each()
    return benchmark


def checked(values: Mapping[str, Any], where: str) -> Benchmark:
    """Validate a benchmark. UsageError with the key, and with the nearest known key for an unknown one."""
    try:
        return Benchmark.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = [str(part) for part in first["loc"]]
        if first["type"] == "extra_forbidden":
            models: dict[str, type[BaseModel]] = {"train": Budget, "quick": Quick, "truth": TruthTable}
            known = models.get(place[0], Benchmark) if len(place) > 1 else Benchmark
            raise UsageError(f"{where}: {unknown_name('key', place[-1], known.model_fields)}") from error
        text = first["msg"][0].lower() + first["msg"][1:]
        raise UsageError(f"{where}: {'.'.join(place)}: {text}, not {first['input']!r}") from error


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changes into a table: tables are merged, everything else is replaced.

    >>> merged({"train": {"lr": 1, "epochs": 2}, "bits": [16]}, {"train": {"lr": 3}, "bits": [32]})
    {'train': {'lr': 3, 'epochs': 2}, 'bits': [32]}
    """
    made = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
        made[key] = merged(made[key], value) if both else value
    return made
