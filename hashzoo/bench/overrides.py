"""What a command line or a notebook changes in a benchmark file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hashzoo.bench.benchmark_file import Benchmark, checked, merged
from hashzoo.bench.fallback import choose_backbone
from hashzoo.errors import HashzooError, UsageError
from hashzoo.factory import options
from hashzoo.registry.zoo import Zoo
from hashzoo.training.budget import Budget


@dataclass(frozen=True)
class Overrides:
    """Changes of a benchmark file. None, and an empty table, keep what the file says.

    Attributes:
        methods: Names and patterns of methods.
        datasets: Names of datasets.
        root: Folder of the files of datasets that need one.
        backbone: One backbone for every kind of method.
        bits: Code lengths.
        seeds: Seeds.
        metrics: Names of metrics.
        epochs: Epochs of the budget.
        precision: Precision of the budget.
        nested: Whether one training serves all code lengths, weighted by conflict unless the file says otherwise.
        settings: Options by the name of a method, dataset or backbone; under ``"train"``, of the budget.
        quick: Whether the file's quick form is used.
    """

    methods: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    root: Path | None = None
    backbone: str | None = None
    bits: Sequence[int] | None = None
    seeds: Sequence[int] | None = None
    metrics: Sequence[str] | None = None
    epochs: int | None = None
    precision: str | None = None
    nested: bool = False
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    quick: bool = False

    def apply(
        self, file: Benchmark, zoo: Zoo, note: Callable[[str], None] = lambda text: None
    ) -> list[tuple[Benchmark, Budget]]:
        """The changed benchmark for each dataset, checked like a file, with the budget that the file gives it.

        Settings of the file for a part that was replaced are left out, and ``note`` receives a line about each.

        Raises:
            UsageError: If the file has no quick form, no dataset takes a root, a changed value is wrong, or settings
                are for a dataset or backbone that the benchmark does not use.
        """
        if self.quick and not file.quick.model_fields_set:
            raise UsageError(f"{file.name} has no quick form; add a [quick] table to it")
        file = choose_backbone(file, zoo, self.backbone, note)
        own = set[str]().union(*(_used(part, zoo) for part in file.each()))
        datasets = self.datasets or (file.quick.dataset if self.quick else None)
        if datasets:
            file = file.model_copy(update={"dataset": datasets if isinstance(datasets, str) else list(datasets)})
        settings = merged(self.settings, self._roots(file, zoo))
        parts = [_quick(part) if self.quick else part for part in file.each()]
        changed = [(self._changed(part), part.train) for part in parts]
        self._require_used([part for part, _ in changed], zoo)
        unused = [dict.fromkeys(_unused(part, zoo)) for part, _ in changed]
        chosen = {name for name in own if name in zoo.methods or "+" in name}  # that a method is left out is no news
        replaced = [one for one in unused[0] if one in own - chosen and all(one in others for others in unused)]
        if replaced:
            note(
                f"{file.name}: settings of the file for parts that are not used here are ignored: {', '.join(replaced)}"
            )
        return [(self._with_settings(_without_unused(part, zoo), settings), budget) for part, budget in changed]

    def _require_used(self, parts: Sequence[Benchmark], zoo: Zoo) -> None:
        """Raise UsageError for settings of a dataset or backbone that no part uses: scores would be those without them.

        Settings of methods that are left out are accepted, since one command line serves several lists of methods.
        """
        used = set[str]().union(*(_used(part, zoo) for part in parts))
        backbones = (name for part in parts for name in (*part.backbones.values(), part.backbone) if name)
        measured = {
            "dataset": list(dict.fromkeys(name for part in parts for name in part.datasets)),
            "backbone": list(dict.fromkeys(backbones)),
        }
        for name in sorted(self.settings.keys() - used):
            if kind := _kind(name, zoo):
                quick = kind == "dataset" and self.quick and not self.datasets
                cause = " with --quick" if quick else ""
                fix = "leave out --quick" if quick else f"change --{kind}"
                raise UsageError(
                    f"settings for the {kind} {name} change nothing{cause}, the benchmark uses "
                    f"{', '.join(measured[kind])}; name that one in them, or {fix}"
                )

    def _roots(self, file: Benchmark, zoo: Zoo) -> dict[str, dict[str, Any]]:
        """The option ``root`` of every dataset that has it."""
        if self.root is None:
            return {}
        names = [name for name in file.datasets if "root" in options(zoo.dataset(name).factory)]
        if not names:
            known = ", ".join(file.datasets)
            raise UsageError(f"--root: {known} has no option root; name a dataset that has it with --dataset")
        return {name: {"root": str(self.root.absolute())} for name in names}

    def _changed(self, file: Benchmark) -> Benchmark:
        values = file.model_dump(exclude_unset=True)
        if self.backbone:
            values |= {"backbone": self.backbone, "backbones": {}}
        given = {"methods": self.methods, "metrics": self.metrics, "bits": self.bits, "seeds": self.seeds}
        changes: dict[str, Any] = {name: list(value) for name, value in given.items() if value is not None}
        if file.unlabelled:  # what the command line says holds for data without labels too
            values["unlabelled"] = {name: own for name, own in file.unlabelled.items() if name not in changes}
        budget: dict[str, Any] = {"epochs": self.epochs, "precision": self.precision}
        budget["nested"] = (file.train.nested or "conflict") if self.nested else None
        changes["train"] = {name: value for name, value in budget.items() if value}
        return checked(merged(values, changes), "command line")

    def _with_settings(self, file: Benchmark, settings: Mapping[str, Mapping[str, Any]]) -> Benchmark:
        own = {name: table for name, table in settings.items() if name != "train"}
        changes = {"train": dict(settings.get("train", {})), "set": own}
        return checked(merged(file.model_dump(exclude_unset=True), changes), "command line")


def _quick(file: Benchmark) -> Benchmark:
    """A benchmark on one dataset in its quick form."""
    changes = file.quick.model_dump(exclude_none=True, exclude={"dataset"})
    if "epochs" in changes:
        changes["train"] = {"epochs": changes.pop("epochs")}
    return checked(merged(file.model_dump(exclude_unset=True), changes), "quick")


def _used(file: Benchmark, zoo: Zoo) -> set[str]:
    """The names of the datasets, backbones and methods of a benchmark, and of the heads and losses of its methods."""
    methods = set[str]()
    for pattern in [*file.baselines, *file.controls, *file.methods]:
        with suppress(HashzooError):  # the plan reports an unknown name
            methods |= {*zoo.match_methods([pattern])}
    parts = {part for name in methods if "+" in name for part in name.split("+")}
    return {*file.datasets, *methods, *parts, *file.backbones.values(), *filter(None, [file.backbone])}


def _unused(file: Benchmark, zoo: Zoo) -> Iterator[str]:
    """The names under ``set`` of existing parts that the benchmark does not use. Not a misspelled name."""
    used = _used(file, zoo)
    for name in file.set:
        if name not in used and _exists(name, zoo):
            yield name


def _without_unused(file: Benchmark, zoo: Zoo) -> Benchmark:
    unused = set(_unused(file, zoo))
    return file.model_copy(update={"set": {name: table for name, table in file.set.items() if name not in unused}})


def _kind(name: str, zoo: Zoo) -> str:
    """``dataset`` or ``backbone`` if one has this name, members of families included; else an empty text."""
    if name in zoo.datasets:
        return "dataset"
    with suppress(HashzooError):
        zoo.backbone(name)
        return "backbone"
    return ""


def _exists(name: str, zoo: Zoo) -> bool:
    """Whether a dataset, method, head, loss or backbone has this name, members of families included."""
    if name in {*zoo.datasets, *zoo.methods, *zoo.heads, *zoo.losses}:
        return True
    for find in (zoo.method, zoo.backbone):
        with suppress(HashzooError):
            find(name)
            return True
    return False
