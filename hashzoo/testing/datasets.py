"""The contract of datasets: what a dataset must be so that every method can be measured on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.data import audit
from hashzoo.data.split_file import split_digest
from hashzoo.data.transforms import as_tensor
from hashzoo.errors import status_of
from hashzoo.testing.fixtures import Finding, build, run_checks
from hashzoo.training.process_state import preserve_process_state
from hashzoo.types import Split, Splits

DECODED = 8  # images of each part; hashzoo data check decodes all
HARMLESS = ("class-ordered-database",)  # findings of hashzoo data check that do not affect scores of hashzoo


def check_dataset(factory: Callable[..., Splits]) -> list[Finding]:
    """Check the contract of a dataset: consistent and reproducible parts, without leaks.

    A few images of each part are decoded; ``hashzoo data check`` decodes all. Facts that the dataset declares in its
    ``notes`` pass.

    Args:
        factory: Called without arguments; every option has a default.

    Returns:
        One finding for each of ``build``, ``parts``, ``images``, ``repeats`` and ``faults``. If ``build`` or ``parts``
        fails, the checks after it are omitted. No exception of the factory is raised.
    """
    with preserve_process_state():
        data, findings = build(factory, ())
        if data is None and not findings[0].ok:
            return findings
        if not isinstance(data, Splits):
            why = f"the factory returned {type(data).__name__}: return hashzoo.Splits(train, database, query, ...)"
            return [Finding("build", False, why)]
        check = _DatasetCheck(data, factory)
        findings += run_checks({"parts": check.parts})
        if not findings[-1].ok:  # the other checks would repeat the problem
            return findings
        return findings + run_checks({"images": check.images, "repeats": check.repeats, "faults": check.faults})


class _DatasetCheck:
    """The checks of one dataset. Each returns the problem, or an empty string."""

    def __init__(self, data: Splits, factory: Callable[..., Splits]) -> None:
        self.data, self.factory = data, factory

    def parts(self) -> str:
        """Types and shapes of the parts."""
        part: Any
        for name, part in self.data.parts().items():
            if not isinstance(part, Split):
                return f"{name} is a {type(part).__name__}: use hashzoo.Split(images, labels, ids)"
            if not len(part):
                return f"{name} is empty: every part needs images"
            if part.labels.ndim != 2 or part.labels.dtype != torch.float32:
                shape = f"{part.labels.dtype} {tuple(part.labels.shape)}"
                return f"labels of {name} are {shape}, not float32 (N, C): use torch.eye(C)[classes]"
            if part.ids.dtype != torch.int64 or part.ids.shape != (len(part),):
                shape = f"{part.ids.dtype} {tuple(part.ids.shape)}"
                return f"ids of {name} are {shape}, not int64 ({len(part)},): use one integer per image"
        columns, names = self.data.database.labels.shape[1], len(self.data.class_names)
        query_columns = self.data.query.labels.shape[1]
        if columns != names or query_columns != columns:
            return (
                f"the labels of database have {columns} columns, those of query {query_columns}, and class_names has "
                f"{names} names: use one column and one name for each class"
            )
        several = any(bool((part.labels.sum(1) > 1).any()) for part in self.data.parts().values())
        return "images have several labels: set multilabel=True" if several and not self.data.multilabel else ""

    def images(self) -> str:
        """Images decode to uint8 (3 or 1, H, W)."""
        for name, part in self.data.parts().items():
            if isinstance(part.images, Tensor) and (part.images.dtype != torch.uint8 or part.images.ndim != 4):
                shape = f"{part.images.dtype} {tuple(part.images.shape)}"
                return f"images of {name} are {shape}, not uint8 (N, 3 or 1, H, W)"
            for row in range(min(DECODED, len(part))):
                try:
                    image = as_tensor(part.images[row])
                except Exception as error:
                    return f"image {row} of {name} does not decode: {status_of(error)[1]}"
                if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
                    shape = f"{image.dtype} {tuple(image.shape)}"
                    return f"image {row} of {name} is {shape}: use PIL images or uint8 tensors (3 or 1, H, W)"
        return ""

    def repeats(self) -> str:
        """Two calls of the factory give the same parts, whatever the state of global generators."""
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        same = split_digest(self.data) == split_digest(self.factory())
        return "" if same else "two calls give different parts: use a generator seeded with an option seed: int = 0"

    def faults(self) -> str:
        """No finding of ``hashzoo data check`` in ids and labels."""
        findings = [*audit.id_findings(self.data), *audit.label_findings(self.data)]
        findings = [one for one in findings if one.count and one.name not in HARMLESS]
        failed = [line for line in audit.report(findings, self.data.notes, ()) if line["status"] == "found"]
        return "; ".join(f"{line['finding']} ({line['count']} of {line['of']}): {line['cure']}" for line in failed)
