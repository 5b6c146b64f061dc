"""What a protocol is: opened by its name or from a folder, and described in numbers."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hashzoo.data.integrity import drop_bad_images, fingerprint
from hashzoo.data.split_file import query_labels, relevant_counts, split_digest
from hashzoo.errors import EnvironmentFailure, UsageError, unknown_name
from hashzoo.evaluation.metrics import chance_ap
from hashzoo.factory import options
from hashzoo.registry.build import convert_options, inspect_images, load_data, with_paths
from hashzoo.registry.zoo import Zoo, load_plugins
from hashzoo.results.cell import Cell
from hashzoo.types import Split, Splits

#: The option that a dataset reads its files from.
ROOT = "root"


@dataclass(frozen=True)
class Opened:
    """A protocol with the options it was opened with. Its images have not been looked at."""

    name: str
    options: dict[str, Any]
    data: Splits


def open_protocol(
    zoo: Zoo, name: str, root: str | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Opened:
    """A protocol by name, or the folder or file ``name`` read by the one dataset that takes it.

    ``settings`` are options by the name of a dataset. UsageError for a name that is neither, for what several data
    sets read, for an option that does not exist and for an empty part.
    """
    settings = settings or {}
    for one in settings:
        zoo.dataset(one)
    if name in zoo.datasets:
        if other := settings.keys() - {name}:
            raise UsageError(f"--set {min(other)} is no option of {name}, which is what was asked for")
        return _opened(zoo, name, {**settings.get(name, {}), **({ROOT: root} if root is not None else {})})
    if not Path(name).exists():
        known = unknown_name("dataset", name, zoo.datasets)
        raise UsageError(f"there is no folder {name}, and no such file" if "/" in name else known)
    if root is not None:
        raise UsageError(f"{name} is a {_kind(name)}; leave out --root")
    return _of_folder(zoo, name, settings)


def _kind(path: str) -> str:
    return "folder" if Path(path).is_dir() else "file"


def _opened(zoo: Zoo, name: str, given: Mapping[str, Any]) -> Opened:
    values = convert_options("dataset", name, zoo.dataset(name).factory, given)
    return Opened(name, values, load_data(zoo, name, values))


def _of_folder(zoo: Zoo, folder: str, settings: Mapping[str, Mapping[str, Any]]) -> Opened:
    """A folder or file as the one dataset reads it that can, of those that take any: whose root has no default.

    Only datasets that ``settings`` name are tried, where they name some; then a wrong option is an error at once.
    EnvironmentFailure where nothing but the files stood in the way of each.
    """
    able = [name for name in zoo.datasets if _takes_any(zoo, name)]
    if other := settings.keys() - able:
        raise UsageError(f"--set {min(other)} is no option of what reads any folder: {', '.join(able) or 'nothing'}")
    for name, given in settings.items():
        convert_options("dataset", name, zoo.dataset(name).factory, {**given, ROOT: folder})
    tried = [name for name in able if name in settings] or able
    if len(tried) == 1:
        return _opened(zoo, tried[0], {**settings.get(tried[0], {}), ROOT: folder})
    read, refused = list[Opened](), dict[str, UsageError | EnvironmentFailure]()
    for name in tried:
        try:
            read.append(_opened(zoo, name, {**settings.get(name, {}), ROOT: folder}))
        except (UsageError, EnvironmentFailure) as error:
            refused[name] = error
    if len(read) > 1:
        names = [one.name for one in read]
        choices = " or ".join(f"hashzoo data check {name} --root {shlex.quote(folder)}" for name in names)
        raise UsageError(f"{' and '.join(names)} read the {_kind(folder)} {folder}, each in its own way; use {choices}")
    if read:
        return read[0]
    told = "; ".join(f"{name}: {error}" for name, error in refused.items()) or "none takes any folder"
    trouble = refused and all(isinstance(error, EnvironmentFailure) for error in refused.values())
    raise (EnvironmentFailure if trouble else UsageError)(f"no dataset reads the {_kind(folder)} {folder}; {told}")


def _takes_any(zoo: Zoo, name: str) -> bool:
    option = options(zoo.dataset(name).factory).get(ROOT)
    return option is not None and option.default is inspect.Parameter.empty


def describe(zoo: Zoo, opened: Opened) -> dict[str, Any]:
    """All there is to say of a protocol without looking at its images, ready for JSON."""
    data, entry = opened.data, zoo.dataset(opened.name)
    inside = int(torch.isin(data.train.ids, data.database.ids).sum())
    return {
        "dataset": opened.name,
        "what": entry.doc,
        "plugin": entry.plugin,
        "options": {name: value if _plain(value) else str(value) for name, value in opened.options.items()},
        "source": data.source,
        "digest": split_digest(data),
        "multilabel": data.multilabel,
        "classes": list(data.class_names),
        "parts": {name: _part(split) for name, split in data.parts().items()},
        "train_in_database": inside,
        "queries": _queries(data),
        "composed": data.pairs.operation if data.pairs is not None else "",
        "pretraining": list(data.pretraining),
        "notes": dict(data.notes),
    }


def _plain(value: Any) -> bool:
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
    """Of what is asked: how much cannot be answered, the best mAP where that counts as 0, and the mAP of chance."""
    wanted, size = query_labels(data), len(data.database)
    relevant = relevant_counts(wanted, data.database.labels)
    values, times = np.unique(relevant[relevant > 0], return_counts=True)
    by_chance = np.array([chance_ap(size, int(value)) for value in values])
    without = int((relevant == 0).sum())
    return {
        "asked": len(wanted),
        "unlabelled": int(((wanted > 0).sum(1) == 0).sum()),
        "without_relevant": without,
        "map_ceiling_if_counted": 1 - without / len(wanted),
        "chance_map": float(by_chance @ times / times.sum()) if len(values) else None,
    }


def reload_data(cell: Cell, plugins: Sequence[str], root: Path | None) -> Splits:
    """The data that a cell was measured on. EnvironmentFailure where it is no longer the same."""
    identity, house = cell.identity, load_plugins(plugins)
    factory = house.dataset(identity.dataset).factory
    where = {"root": root.absolute()} if root else {}
    asked = with_paths(factory, identity.dataset_options, where)
    data = load_data(house, identity.dataset, convert_options("dataset", identity.dataset, factory, asked))
    found = inspect_images(identity.dataset, data, bool(cell.facts.get("bad_pictures")))
    data = drop_bad_images(data, found)
    if fingerprint(data, found) != identity.data:
        raise EnvironmentFailure(
            f"{identity.dataset} is not what this cell was measured on: its images or splits changed"
        )
    return data
