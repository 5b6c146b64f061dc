"""What a protocol is: opened by its name or from a folder, and described in numbers."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hashzoo.bench import convert, load_data
from hashzoo.errors import TroubleError, UsageError, unknown
from hashzoo.method import options
from hashzoo.metrics import chance_ap
from hashzoo.splits import asked, relevant_counts, split_digest
from hashzoo.types import Split, Splits
from hashzoo.zoo import Zoo

#: The option that a data set reads its files from.
ROOT = "root"


@dataclass(frozen=True)
class Opened:
    """A protocol with the options it was opened with. Its pictures have not been looked at."""

    name: str
    options: dict[str, Any]
    data: Splits


def open_protocol(
    zoo: Zoo, name: str, root: str | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> Opened:
    """A protocol by name, or the folder or file ``name`` read by the one data set that takes it.

    ``settings`` are options by the name of a data set. UsageError for a name that is neither, for what several data
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
        known = unknown("dataset", name, zoo.datasets)
        raise UsageError(f"there is no folder {name}, and no such file" if "/" in name else known)
    if root is not None:
        raise UsageError(f"{name} is a {_kind(name)}; leave out --root")
    return _of_folder(zoo, name, settings)


def _kind(path: str) -> str:
    return "folder" if Path(path).is_dir() else "file"


def _opened(zoo: Zoo, name: str, given: Mapping[str, Any]) -> Opened:
    values = convert("dataset", name, zoo.dataset(name).factory, given)
    return Opened(name, values, load_data(zoo, name, values))


def _of_folder(zoo: Zoo, folder: str, settings: Mapping[str, Mapping[str, Any]]) -> Opened:
    """A folder or file as the one data set reads it that can, of those that take any: whose root has no default.

    Only data sets that ``settings`` name are tried, where they name some; then a wrong option is an error at once.
    TroubleError where nothing but the files stood in the way of each.
    """
    able = [name for name in zoo.datasets if _takes_any(zoo, name)]
    if other := settings.keys() - able:
        raise UsageError(f"--set {min(other)} is no option of what reads any folder: {', '.join(able) or 'nothing'}")
    for name, given in settings.items():
        convert("dataset", name, zoo.dataset(name).factory, {**given, ROOT: folder})
    tried = [name for name in able if name in settings] or able
    if len(tried) == 1:
        return _opened(zoo, tried[0], {**settings.get(tried[0], {}), ROOT: folder})
    read, refused = list[Opened](), dict[str, UsageError | TroubleError]()
    for name in tried:
        try:
            read.append(_opened(zoo, name, {**settings.get(name, {}), ROOT: folder}))
        except (UsageError, TroubleError) as error:
            refused[name] = error
    if len(read) > 1:
        names = [one.name for one in read]
        choices = " or ".join(f"hashzoo data check {name} --root {shlex.quote(folder)}" for name in names)
        raise UsageError(f"{' and '.join(names)} read the {_kind(folder)} {folder}, each in its own way; use {choices}")
    if read:
        return read[0]
    told = "; ".join(f"{name}: {error}" for name, error in refused.items()) or "none takes any folder"
    trouble = refused and all(isinstance(error, TroubleError) for error in refused.values())
    raise (TroubleError if trouble else UsageError)(f"no data set reads the {_kind(folder)} {folder}; {told}")


def _takes_any(zoo: Zoo, name: str) -> bool:
    option = options(zoo.dataset(name).factory).get(ROOT)
    return option is not None and option.default is inspect.Parameter.empty


def describe(zoo: Zoo, opened: Opened) -> dict[str, Any]:
    """All there is to say of a protocol without looking at its pictures, ready for JSON."""
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
    a_picture = (split.labels > 0).sum(1)
    return {
        "pictures": len(split),
        "class_counts": (split.labels > 0).sum(0).tolist(),
        "labels": {
            "mean": float(a_picture.double().mean()),
            "min": int(a_picture.min()),
            "max": int(a_picture.max()),
        },
    }


def _queries(data: Splits) -> dict[str, Any]:
    """Of what is asked: how much cannot be answered, the best mAP where that counts as 0, and the mAP of chance."""
    wanted, size = asked(data), len(data.database)
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
