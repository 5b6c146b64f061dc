"""The contract of a plugin, checked in seconds: ``hashzoo check`` prints what this finds."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from hashzoo import counting
from hashzoo.endings import status_of
from hashzoo.method import Backbone, Card, Input, Method
from hashzoo.metrics import score
from hashzoo.run import Run, Train
from hashzoo.types import Batch, Codes, Features, Output, Setting, Split, Splits

SIDE, CLASSES = 12, 6
FLOAT_NOISE = 0.005  # share of bits that may differ where only the order of a sum did
MARGIN = 1.25  # times chance: below it a code says nothing


@dataclass(frozen=True)
class Finding:
    """One point of the contract: whether it holds, and if not, why."""

    check: str
    ok: bool
    why: str = ""


class Probe(Backbone):
    """A small network of three stages with maps, the backbone under every check."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in ((1, 8), (8, 16), (16, 32))
        )
        self.dim, self.map_dims, self.input = 128, (8, 16, 32), Input()

    def forward(self, images: Any) -> Features:
        """Features of (B, 1, 12, 12) pictures; ``pooled`` keeps the 2 x 2 places of the last map: patterns need it."""
        maps, x = [], images
        for stage in self.stages:
            x = avg_pool2d(stage(x), 2, ceil_mode=True)
            maps.append(x)
        return Features(x.flatten(1), tuple(maps))


def pictures(multilabel: bool = False) -> Splits:
    """A small learnable data set: noisy pictures of six smooth patterns, or of one to three of them together."""
    draw = torch.Generator().manual_seed(7)
    coarse = torch.randn(CLASSES, 1, 4, 4, generator=draw)
    patterns = torch.nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")

    def part(count: int, first: int) -> Split:
        labels = torch.eye(CLASSES)[torch.arange(count) % CLASSES]
        if multilabel:
            labels = ((labels + (torch.rand(count, CLASSES, generator=draw) < 0.15)) > 0).float()
        mixed = (labels @ patterns.flatten(1)).view(count, 1, SIDE, SIDE)
        noisy = mixed + 0.6 * torch.randn(count, 1, SIDE, SIDE, generator=draw)
        images = (128 + 40 * noisy).clamp(0, 255).to(torch.uint8)
        return Split(images, labels, torch.arange(first, first + count))

    return Splits(
        train=part(240, 0),
        database=part(200, 240),
        query=part(80, 440),
        multilabel=multilabel,
        class_names=tuple("abcdef"),
    )


class _Check:
    """One method under the contract. Each ``check_`` gives the reason of a failure, or an empty string."""

    def __init__(self, factory: Callable[..., Method], bits: int, multilabel: bool) -> None:
        card = getattr(factory, "card", None)
        self.card = card if isinstance(card, Card) else Card()
        self.factory, self.data = factory, pictures(multilabel or not self.card.single)
        self.setting = self.data.setting(bits)
        self.train = Train(epochs=12, batch=32, lr=1e-3)  # type: ignore[call-arg]
        self.method, self.run = self.fitted(0)
        self.codes = self.run.encode(self.method, self.data.query)

    def built(self, seed: int) -> tuple[Method, Run]:
        torch.manual_seed(seed)
        backbone = Probe()
        return self.factory(self.setting, backbone), Run(self.train, seed, to=backbone.input)

    def fitted(self, seed: int) -> tuple[Method, Run]:
        method, run = self.built(seed)
        method.train()
        method.fit(self.data.train, run)
        return method.eval(), run

    def check_rows(self) -> str:
        """One row a picture."""
        for name, values in self.codes.items():
            if len(values) != len(self.data.query):
                return f"encode gave {len(values)} rows of {name!r} for {len(self.data.query)} pictures"
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
        share = _differing(self.codes, run.encode(method, self.data.query))
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
        share = _differing(self.codes, run.encode(method, self.data.query))
        if share <= FLOAT_NOISE:
            return ""
        return f"a method restored from state_dict differs in {share:.1%} of the code: use register_buffer"

    def check_batch(self) -> str:
        """The code of a picture does not depend on its neighbours in a batch."""
        order = torch.randperm(len(self.data.query), generator=torch.Generator().manual_seed(1))
        shuffled = self.run.encode(self.method, self.data.query.take(order), size=7)
        if any(len(values) != len(order) for values in shuffled.values()):
            return "encode gave another number of rows for other batches"
        back = {name: values[order.argsort()] for name, values in shuffled.items()}
        share = _differing(self.codes, back)
        if share <= FLOAT_NOISE:
            return ""
        return f"{share:.1%} of the code changes with the other pictures of a batch: use what fit has learned"

    def check_budget(self) -> str:
        """No more bits are stored than were asked for."""
        index = self.method.index()
        index.add(self.codes)
        if self.card.beyond or index.stored_bits() <= self.setting.bits:
            return ""
        return (
            f"{index.stored_bits()} bits a picture are stored, {self.setting.bits} were asked: "
            "keep to setting.bits, or say why in Card(beyond=...)"
        )

    def check_labels(self) -> str:
        """Labels and ids are not looked at when encoding."""
        share = 0.0
        for part in (self.data.query, self.data.train):  # a table by picture would know the ids of train
            blank = self.run.encode(self.method, part, ids=self.card.saw_database)
            (batch,) = self.run.blank(part)  # all of it, as encode has it
            with torch.no_grad():
                seen = self.method.encode(replace(batch, labels=part.labels, ids=part.ids))
            share = max(share, _differing(blank, seen))
        known = "labels" if self.card.saw_database else "labels or ids"
        return "" if share == 0 else f"{share:.1%} of the code changes with the {known} of the pictures encoded"

    def check_level(self) -> str:
        """The code says something about the labels."""
        if not self.card.informative:
            return ""
        index = self.method.index()
        index.add(self.run.encode(self.method, self.data.database))
        labels = [part.labels.numpy() for part in (self.data.query, self.data.database)]
        relevance = counting.relevance(*labels)
        reached = float(score(index.counts(self.codes, relevance), ["map@all"])["map@all"].mean())
        tied = counting.distance_counts(np.zeros((len(self.data.query), len(self.data.database))), relevance)
        chance = float(score(tied, ["map@all"])["map@all"].mean())
        if reached > min(MARGIN * chance, (1 + chance) / 2):
            return ""
        return f"map@all is {reached:.3f} on pictures that are easy to tell apart, where chance is {chance:.3f}"


def _differing(a: Codes, b: Codes) -> float:
    """The largest share of entries of a code that differ; real values may differ by float noise."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return 1.0

    def share(x: Tensor, y: Tensor) -> float:
        unequal = ~torch.isclose(x, y, rtol=1e-3, atol=1e-4) if x.is_floating_point() else x != y
        return float(unequal.float().mean())

    return max(share(a[name], b[name].to(a[name].device)) for name in a)


CHECKS: tuple[str, ...] = ("rows", "bits", "seeded", "state", "batch", "budget", "labels", "level")


def check_method(factory: Callable[..., Method], *, bits: int = 16, multilabel: bool = False) -> list[Finding]:
    """The contract of a method on small synthetic pictures: fit, encode and eight points, each with its reason.

    ``factory`` is called as ``factory(setting, backbone)``, every hyperparameter at its default. Pictures have several
    labels with ``multilabel``, and for a method whose card says that it needs them. Nothing that the
    method raises leaves this function, and the caller's global generators come back as they were.
    """
    threads = torch.get_num_threads()
    counting.set_threads(threads)  # its first use would change the threads of torch
    torch.set_num_threads(threads)
    before = _surroundings()
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            checked = _Check(factory, bits, multilabel)
            findings = [Finding("fit and encode", True)]
        except (Exception, SystemExit) as error:
            return [Finding("fit and encode", False, status_of(error)[1])]
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
        for name in CHECKS:
            try:
                why = getattr(checked, f"check_{name}")()
            except (Exception, SystemExit) as error:
                why = status_of(error)[1]
            findings.append(Finding(name, not why, why))
        random.setstate(states[0])
        np.random.set_state(states[1])
    changed = [name for name, value in _surroundings().items() if value != before[name]]
    why = f"fit or encode left the {', '.join(changed)} of the process changed" if changed else ""
    return [*findings, Finding("surroundings", not changed, why)]


def _surroundings() -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "working folder": str(Path.cwd()),
        "environment": dict(os.environ),
    }


def check_head(factory: Callable[..., nn.Module], *, bits: int = 16) -> list[Finding]:
    """The contract of a hash head: ``code`` (B, bits), finite, with a gradient, one picture at a time in eval mode."""

    def shape() -> str:
        code = head(backbone(images)).code
        return "" if code.shape == (len(images), bits) else f"code is {tuple(code.shape)}, not ({len(images)}, {bits})"

    def gradient() -> str:
        head(backbone(images)).code.square().sum().backward()
        return "" if any(p.grad is not None for p in backbone.parameters()) else "no gradient reaches the backbone"

    def single() -> str:
        head.eval()
        backbone.eval()
        with torch.no_grad():
            together, alone = head(backbone(images)).code[:1], head(backbone(images[:1])).code
        return "" if torch.allclose(together, alone, atol=1e-4) else "a code depends on its batch in eval mode"

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        data, backbone = pictures(), Probe()
        images = data.train.images[:24].float() / 128 - 1
        head = factory(backbone, data.setting(bits))
        return _findings({"shape": shape, "gradient": gradient, "single": single})


def check_loss(
    factory: Callable[..., nn.Module],
    *,
    bits: int = 16,
    extra: Callable[[Tensor], dict[str, Tensor]] = lambda code: {"features": code},
) -> list[Finding]:
    """The contract of a loss of relaxed codes: finite named scalars, a gradient, no order, no mutation.

    Beside codes the loss gets ``features``, as from the plain heads; for one that reads what only some head gives,
    ``extra`` makes that out of codes (B, bits).
    """

    def output(code: Tensor) -> Output:
        return Output(code, code @ mixing, extra(code))

    def batch(labels: Tensor) -> Batch:
        return Batch((None,), labels, torch.arange(len(labels)), 0.5)

    def total(code: Tensor, labels: Tensor) -> Tensor:
        terms = loss(output(code), batch(labels))
        return torch.stack([value.reshape(()) for value in terms.values()]).sum()

    def terms() -> str:
        found = loss(output(codes), batch(labels))
        if not isinstance(found, dict) or not found:
            return "forward must return a dict of named terms"
        bad = [name for name, value in found.items() if value.numel() != 1 or not torch.isfinite(value)]
        return f"term {bad[0]!r} is not one finite number" if bad else ""

    def gradient() -> str:
        (slope,) = torch.autograd.grad(total(codes, labels), codes, allow_unused=True)
        return "" if slope is not None and torch.isfinite(slope).all() else "no finite gradient reaches the code"

    def order() -> str:
        other = torch.randperm(len(codes))
        same = torch.allclose(total(codes, labels), total(codes[other], labels[other]), rtol=1e-4)
        return "" if same else "the value changes with the order of the batch"

    def twice() -> str:
        first = total(codes, labels)
        same = torch.equal(first, total(codes, labels)) and torch.equal(labels, kept)
        return "" if same else "calling it twice gives two values, or changes the labels"

    def corners() -> str:
        one = torch.eye(CLASSES)[torch.zeros(len(codes), dtype=torch.long)]
        for name, value in {"one class": total(codes, one), "codes of zero": total(codes * 0, labels)}.items():
            if not torch.isfinite(value):
                return f"not finite for a batch of {name}"
        return ""

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        setting: Setting = pictures().setting(bits)
        loss = factory(setting).eval()
        codes = torch.tanh(torch.randn(12, bits)).requires_grad_()
        mixing = torch.randn(bits, CLASSES)
        labels = torch.eye(CLASSES)[torch.arange(12) % CLASSES]
        kept = labels.clone()
        return _findings({"terms": terms, "gradient": gradient, "order": order, "twice": twice, "corners": corners})


def check_backbone(factory: Callable[..., Backbone], shape: tuple[int, int, int] = (3, 64, 64)) -> list[Finding]:
    """The contract of a backbone: ``pooled`` (B, dim), maps of ``map_dims``, the same twice in eval mode."""

    def shapes() -> str:
        features = backbone(images)
        if features.pooled.shape != (2, backbone.dim):
            return f"pooled is {tuple(features.pooled.shape)}, not (2, {backbone.dim})"
        widths = tuple(m.shape[1] for m in features.maps)
        return (
            "" if widths == tuple(backbone.map_dims) else f"maps have {widths} channels, map_dims {backbone.map_dims}"
        )

    def repeats() -> str:
        return "" if torch.equal(backbone(images).pooled, backbone(images).pooled) else "two passes differ in eval mode"

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        backbone = factory(shape).eval()
        side = backbone.input.size
        images = torch.randn(2, backbone.input.channels or shape[0], side or shape[1], side or shape[2])
        return _findings({"shapes": shapes, "repeats": repeats})


def _findings(checks: dict[str, Callable[[], str]]) -> list[Finding]:
    findings = []
    for name, check in checks.items():
        try:
            why = check()
        except Exception as error:
            why = status_of(error)[1]
        findings.append(Finding(name, not why, why))
    return findings
