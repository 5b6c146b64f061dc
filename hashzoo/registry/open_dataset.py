"""Opens datasets by name or from a folder, describes them, and loads the data of a cell again."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hashzoo.data.audit import describe as describe_finding
from hashzoo.data.audit import source_findings
from hashzoo.data.integrity import drop_bad_images, fingerprint
from hashzoo.data.split_file import query_labels, relevant_counts, split_digest
from hashzoo.errors import EnvironmentFailure, UsageError
from hashzoo.evaluation.metrics import chance_ap
from hashzoo.factory import options
from hashzoo.registry.build import convert_options, inspect_images, load_data, with_paths
from hashzoo.registry.zoo import Zoo, load_plugins
from hashzoo.results.cell import Cell
from hashzoo.storage.files import expand_user
from hashzoo.types import Split, Splits

#: The option for the folder or file that a dataset is read from.
ROOT = "root"

Settings = Mapping[str, Mapping[str, Any]]  # options by the name of a dataset


@dataclass(frozen=True)
class OpenedDataset:
    """A dataset with all its options. Its images are not decoded yet."""

    name: str
    options: dict[str, Any]
    data: Splits


def open_dataset(zoo: Zoo, name: str, root: str | None = None, settings: Settings | None = None) -> OpenedDataset:
    """Open a dataset by its name, or a folder or file by the one dataset that can read it.

    Args:
        zoo: The plugins.
        name: The name of a dataset, or the path of a folder or file.
        root: The folder of the dataset's files; only with the name of a dataset.
        settings: Options by the name of a dataset.

    Raises:
        UsageError: If the name is unknown, several datasets or none can read the path, an option is wrong or a split
            is empty.
        EnvironmentFailure: If every dataset that takes a path fails because of the files.
    """
    settings = settings or {}
    for one in settings:
        zoo.dataset(one)
    if name in zoo.datasets:
        if other := settings.keys() - {name}:
            raise UsageError(f"--set {min(other)} does not apply to {name}; leave it out")
        return _open_named(zoo, name, settings, root)
    if name.startswith("~"):
        name = str(expand_user(Path(name)))
    if not Path(name).exists():
        unknown = zoo.unknown("dataset", name, zoo.datasets)
        raise UsageError(f"no such file or folder: {name}" if "/" in name else unknown)
    if root is not None:
        raise UsageError(f"{name} is a {_path_kind(name)}; leave out --root")
    return _open_path(zoo, name, settings)


def _path_kind(path: str) -> str:
    return "folder" if Path(path).is_dir() else "file"


def _open_named(zoo: Zoo, name: str, settings: Settings, root: str | None) -> OpenedDataset:
    given = {**settings.get(name, {}), **({} if root is None else {ROOT: root})}
    values = convert_options("dataset", name, zoo.dataset(name).factory, given)
    return OpenedDataset(name, values, load_data(zoo, name, values))


def _open_path(zoo: Zoo, path: str, settings: Settings) -> OpenedDataset:
    """Open a folder or file by the one dataset that can read it, among those that require a path.

    If ``settings`` name datasets, only these are tried, and an invalid option raises UsageError at once.
    """
    readers = [name for name in zoo.datasets if _requires_path(zoo, name)]
    if other := settings.keys() - readers:
        known = ", ".join(readers) or "none"
        raise UsageError(f"--set {min(other)} does not apply to {path}; datasets that read any folder: {known}")
    for name, given in settings.items():
        convert_options("dataset", name, zoo.dataset(name).factory, {**given, ROOT: path})
    candidates = [name for name in readers if name in settings] or readers
    if len(candidates) == 1:
        return _open_named(zoo, candidates[0], settings, path)
    opened, errors = list[OpenedDataset](), dict[str, UsageError | EnvironmentFailure]()
    for name in candidates:
        try:
            opened.append(_open_named(zoo, name, settings, path))
        except (UsageError, EnvironmentFailure) as error:
            errors[name] = error
    if len(opened) == 1:
        return opened[0]
    if not opened:
        reasons = "; ".join(f"{name}: {error}" for name, error in errors.items()) or "none reads any folder"
        environment = errors and all(isinstance(error, EnvironmentFailure) for error in errors.values())
        kind = EnvironmentFailure if environment else UsageError
        raise kind(f"no dataset can read the {_path_kind(path)} {path}; {reasons}")
    names = [one.name for one in opened]
    choices = " or ".join(f"hashzoo data check {name} --root {shlex.quote(path)}" for name in names)
    raise UsageError(f"{' and '.join(names)} can each read the {_path_kind(path)} {path}; choose one with {choices}")


def _requires_path(zoo: Zoo, name: str) -> bool:
    option = options(zoo.dataset(name).factory).get(ROOT)
    return option is not None and option.default is inspect.Parameter.empty


def describe(zoo: Zoo, opened: OpenedDataset) -> dict[str, Any]:
    """Describe a dataset without decoding its images, as a dict for JSON."""
    data, entry = opened.data, zoo.dataset(opened.name)
    return {
        "dataset": opened.name,
        "what": entry.summary,
        "plugin": entry.plugin,
        "options": {name: value if _is_plain(value) else str(value) for name, value in opened.options.items()},
        "source": data.source,
        "digest": split_digest(data),
        "multilabel": data.multilabel,
        "metric": data.metric,
        "classes": list(data.class_names),
        "parts": {name: _part(split) for name, split in data.parts().items()},
        "train_in_database": int(torch.isin(data.train.ids, data.database.ids).sum()),
        "queries": _queries(data),
        "composed": data.pairs.operation if data.pairs is not None else "",
        "pretraining": list(data.pretraining),
        "notes": dict(data.notes),
        "found": [{"finding": one.name, "what": describe_finding(one)} for one in source_findings(data) if one.count],
    }


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _part(split: Split) -> dict[str, Any]:
    per_image = (split.labels > 0).sum(1)
    return {
        "pictures": len(split),
        "class_counts": (split.labels > 0).sum(0).tolist(),
        "labels": {
            "mean": float(per_image.double().mean()),
            "min": int(per_image.min()),
            "max": int(per_image.max()),
        },
    }


def _queries(data: Splits) -> dict[str, Any]:
    """Counts of queries, and the mAP of a random ranking.

    The ceiling is the mAP of a perfect ranking for code that counts a query without a relevant item as 0.
    """
    labels, size = query_labels(data), len(data.database)
    if not data.labelled:
        none = {"unlabelled": len(labels), "without_relevant": 0, "map_ceiling_if_counted": None, "chance_map": None}
        return {"asked": len(labels), **none}
    relevant = relevant_counts(labels, data.database.labels)
    values, times = np.unique(relevant[relevant > 0], return_counts=True)
    by_chance = np.array([chance_ap(size, int(value)) for value in values])
    without = int((relevant == 0).sum())
    return {
        "asked": len(labels),
        "unlabelled": int(((labels > 0).sum(1) == 0).sum()),
        "without_relevant": without,
        "map_ceiling_if_counted": 1 - without / len(labels),
        "chance_map": float(by_chance @ times / times.sum()) if len(values) else None,
    }


def reload_data(cell: Cell, plugins: Sequence[str], root: Path | None) -> Splits:
    """Load the data that a cell was measured on.

    Args:
        cell: The cell.
        plugins: Plugin files or modules to load in addition.
        root: The folder of the dataset's files; by default that of the dataset.

    Raises:
        UsageError: If the dataset requires a folder and ``root`` is None.
        EnvironmentFailure: If the images or splits differ from those of the cell.
    """
    identity, zoo = cell.identity, load_plugins(plugins)
    factory = zoo.dataset(identity.dataset).factory
    recorded = {name: value for name, value in identity.dataset_options.items() if name in options(factory)}
    given = with_paths(factory, recorded, {ROOT: root.absolute()} if root else {})
    data = load_data(zoo, identity.dataset, convert_options("dataset", identity.dataset, factory, given))
    inspection = inspect_images(identity.dataset, data, bool(cell.facts.get("bad_pictures")))
    data = drop_bad_images(data, inspection)
    if fingerprint(data, inspection) != identity.data:
        raise EnvironmentFailure(
            f"{identity.dataset} is not what this cell was measured on: its images or splits have changed"
        )
    return data
