"""The contract of a plugin, checked in seconds: ``hashzoo check`` prints what this finds."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.errors import UsageError, status_of
from hashzoo.evaluation.metrics import score
from hashzoo.evaluation.scoring import encode
from hashzoo.hamming import counting
from hashzoo.method import Card, Method
from hashzoo.run import Run
from hashzoo.testing.fixtures import Finding, Probe, misplaced, synthetic_splits
from hashzoo.testing.parts import check_backbone, check_dataset, check_head, check_loss
from hashzoo.training.budget import Budget
from hashzoo.training.process_state import preserve_process_state
from hashzoo.types import Codes

__all__ = [
    "Finding", "Probe", "check_backbone", "check_dataset", "check_head", "check_loss", "check_method",
    "synthetic_splits"
]  # fmt: skip

FLOAT_NOISE = 0.005  # share of bits that may differ where only the order of a sum did
MARGIN = 1.25  # times chance: below it a code says nothing


class _Check:
    """One method under the contract. Each ``check_`` gives the reason of a failure, or an empty string."""

    def __init__(self, factory: Callable[..., Method], bits: int, multilabel: bool) -> None:
        card = getattr(factory, "card", None)
        self.card = card if isinstance(card, Card) else Card()
        self.factory, self.data = factory, synthetic_splits(multilabel or not self.card.single)
        self.setting = self.data.setting(bits)
        self.train = Budget(epochs=12, batch=32, lr=1e-3)  # type: ignore[call-arg]
        self.method, self.run = self.fitted(0)
        self.insist_on_form()
        self.codes = encode(self.run, self.method, self.data.query)

    def built(self, seed: int) -> tuple[Method, Run]:
        torch.manual_seed(seed)
        backbone = Probe()
        return self.factory(self.setting, backbone), Run(self.train, seed, to=backbone.input)

    def fitted(self, seed: int) -> tuple[Method, Run]:
        method, run = self.built(seed)
        method.train()
        method.fit(self.data.train, run)
        return method.eval(), run

    def insist_on_form(self) -> None:
        """UsageError for what is no dict of tensors, so that whatever looks at codes later may take them for such."""
        batch = next(self.run.blank(self.data.query))
        with torch.no_grad():
            made: Any = self.method.encode(batch)
        cure = "return a dict such as {'code': hashzoo.bits(x)} with x (B, K)"
        if not isinstance(made, dict) or not made:
            raise UsageError(f"encode gave {_kind(made) if made != {} else 'an empty dict'}: {cure}")
        for name, values in made.items():
            if not isinstance(values, Tensor):
                raise UsageError(f"encode gave {name!r} as {_kind(values)}, not as a torch tensor: {cure}")
            if values.ndim == 0 or (values.ndim == 1 and values.dtype == torch.bool):
                raise UsageError(f"encode gave {name!r} of shape {tuple(values.shape)} for {len(batch)} images: {cure}")

    def check_signature(self) -> str:
        """What is left of the star is what hashzoo gives."""
        return misplaced(self.factory, "setting", "backbone")

    def check_rows(self) -> str:
        """One row an image."""
        for name, values in self.codes.items():
            if len(values) != len(self.data.query):
                turned = values.shape == (self.setting.bits, len(self.data.query))
                hint = ": it is (K, B) and must be (B, K)" if turned else ""
                return f"encode gave {len(values)} rows of {name!r} for {len(self.data.query)} images{hint}"
        return ""

    def check_bits(self) -> str:
        """Codes are bits."""
        found = [name for name, values in self.codes.items() if values.dtype == torch.bool and values.ndim == 2]
        if found or self.card.beyond:
            return ""
        kinds = ", ".join(f"{name}: {values.dtype}" for name, values in self.codes.items())
        return f"encode gave no bits ({kinds}): return bool tensors (B, K), as hashzoo.bits makes them"

    def check_seeded(self) -> str:
        """Two fits of one seed agree, whatever other sources of randomness do."""
        random.seed(12345)
        np.random.seed(54321)
        method, run = self.fitted(0)
        share = _differing(self.codes, encode(run, method, self.data.query))
        if share == 0:
            return ""
        return f"two fits of the same seed differ in {share:.1%} of the code: draw from run.generator only"

    def check_state(self) -> str:
        """state_dict holds all that encoding needs."""
        method, run = self.built(1)
        try:
            method.load_state_dict(self.method.state_dict())
        except RuntimeError as error:
            return f"state_dict does not load into a new method: {str(error).splitlines()[-1].strip()}"
        try:
            share = _differing(self.codes, encode(run, method, self.data.query))
        except Exception as error:  # most often an attribute that only fit makes
            return f"a method restored from state_dict does not encode: {status_of(error)[1]}: use register_buffer"
        if share <= FLOAT_NOISE:
            return ""
        return f"a method restored from state_dict differs in {share:.1%} of the code: use register_buffer"

    def check_batch(self) -> str:
        """The code of an image does not depend on its neighbours in a batch."""
        order = torch.randperm(len(self.data.query), generator=torch.Generator().manual_seed(1))
        shuffled = encode(self.run, self.method, self.data.query.take(order), size=7)
        if any(len(values) != len(order) for values in shuffled.values()):
            return "encode gave another number of rows for other batches"
        back = {name: values[order.argsort()] for name, values in shuffled.items()}
        share = _differing(self.codes, back)
        if share <= FLOAT_NOISE:
            return ""
        return f"{share:.1%} of the code changes with the other images of a batch: use what fit has learned"

    def check_budget(self) -> str:
        """As many bits are stored as were asked for."""
        index = self.method.index()
        index.add(self.codes)
        if self.card.beyond or index.stored_bits() == self.setting.bits:
            return ""
        return (
            f"{index.stored_bits()} bits an image are stored, {self.setting.bits} were asked: "
            "keep to setting.bits, or say why in Card(beyond=...)"
        )

    def check_labels(self) -> str:
        """Labels and ids are not looked at when encoding."""
        share = 0.0
        for part in (self.data.query, self.data.train):  # a table by image would know the ids of train
            blank = encode(self.run, self.method, part, ids=self.card.saw_database)
            (batch,) = self.run.blank(part)  # all of it, as encode has it
            with torch.no_grad():
                seen = self.method.encode(replace(batch, labels=part.labels, ids=part.ids))
            share = max(share, _differing(blank, seen))
        known = "labels" if self.card.saw_database else "labels or ids"
        return (
            ""
            if share == 0
            else (
                f"{share:.1%} of the code changes with the {known} of the images encoded: "
                "encode from batch.images alone, a board blanks the rest"
            )
        )

    def check_inputs(self) -> str:
        """Nothing that it is given is changed."""
        fresh, batch = synthetic_splits(self.data.multilabel), next(self.run.blank(self.data.query))
        for name in ("images", "labels", "ids"):
            if not torch.equal(getattr(self.data.train, name), getattr(fresh.train, name)):
                return f"fit changed the {name} of train: work on a copy, as x = x.clone()"
        before = batch.images.clone()
        with torch.no_grad():
            self.method.encode(batch)
        same = torch.equal(before, batch.images)
        return "" if same else "encode changed batch.images: x = x - mean makes a new tensor, x -= mean does not"

    def check_level(self) -> str:
        """The code says something about the labels."""
        if not self.card.informative:
            return ""
        index = self.method.index()
        index.add(encode(self.run, self.method, self.data.database))
        labels = [part.labels.numpy() for part in (self.data.query, self.data.database)]
        relevance = counting.relevance(*labels)
        reached = float(score(index.counts(self.codes, relevance), ["map@all"])["map@all"].mean())
        tied = counting.distance_counts(np.zeros((len(self.data.query), len(self.data.database))), relevance)
        chance = float(score(tied, ["map@all"])["map@all"].mean())
        if reached > min(MARGIN * chance, (1 + chance) / 2):
            return ""
        return (
            f"map@all is {reached:.3f} on images that are easy to tell apart, where chance is {chance:.3f}: "
            "does fit learn, and does encode use what it has learned?"
        )


def _kind(value: object) -> str:
    """What a value is, as people write it: ``Tensor``, ``numpy.ndarray``.

    >>> _kind(np.zeros(1)), _kind([1])
    ('numpy.ndarray', 'list')
    """
    module = type(value).__module__.split(".")[0]
    return type(value).__name__ if module in ("builtins", "torch") else f"{module}.{type(value).__name__}"


def _differing(a: Codes, b: Codes) -> float:
    """The largest share of entries of a code that differ; real values may differ by float noise."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return 1.0

    def share(x: Tensor, y: Tensor) -> float:
        unequal = ~torch.isclose(x, y, rtol=1e-3, atol=1e-4) if x.is_floating_point() else x != y
        return float(unequal.float().mean())

    return max(share(a[name], b[name].to(a[name].device)) for name in a)


CHECKS: tuple[str, ...] = (
    "signature", "rows", "bits", "seeded", "state", "batch", "budget", "labels", "inputs", "level"
)  # fmt: skip
NO_CARD = "none is given, so it counts as deep and as learning from classes; card = Card('shallow', 'none') says else"


def check_method(factory: Callable[..., Method], *, bits: int = 16, multilabel: bool = False) -> list[Finding]:
    """The contract of a method on small synthetic images, point by point, each with its reason where it fails.

    ``factory`` is called as ``factory(setting, backbone)``, every hyperparameter at its default. Images have several
    labels with ``multilabel``, and for a method whose card says that it needs them. Nothing that the
    method raises leaves this function, and the process is afterwards as it was before.
    """
    threads = torch.get_num_threads()
    counting.set_threads(threads)  # its first use would change the threads of torch
    torch.set_num_threads(threads)
    before = _surroundings()
    with preserve_process_state():
        try:
            checked = _Check(factory, bits, multilabel)
            findings = [Finding("fit and encode", True)]
        except (Exception, SystemExit) as error:
            why = misplaced(factory, "setting", "backbone") if isinstance(error, TypeError | AttributeError) else ""
            return [Finding("fit and encode", False, why or status_of(error)[1])]
        for name in CHECKS:
            try:
                why = getattr(checked, f"check_{name}")()
            except (Exception, SystemExit) as error:
                why = status_of(error)[1]
            findings.append(Finding(name, not why, why))
        changed = [name for name, value in _surroundings().items() if value != before[name]]
    why = f"fit or encode left the {', '.join(changed)} of the process changed: put back what it was" if changed else ""
    findings.append(Finding("surroundings", not changed, why))
    given = getattr(factory, "card", None)
    return (
        findings
        if isinstance(given, Card) and given is not Method.card
        else [*findings, Finding("card", True, NO_CARD)]
    )


def _surroundings() -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "working folder": str(Path.cwd()),
        "environment": dict(os.environ),
    }
