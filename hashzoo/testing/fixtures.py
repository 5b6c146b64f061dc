"""What the checks of a contract are made on: a small dataset, a small network, and how a finding reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from hashzoo.backbone import Backbone
from hashzoo.errors import status_of
from hashzoo.method import Composition
from hashzoo.types import Features, Input, Split, Splits

SIDE, CLASSES = 12, 6


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
        """Features of (B, 1, 12, 12) images; ``pooled`` keeps the 2 x 2 places of the last map: patterns need it."""
        maps, x = [], images
        for stage in self.stages:
            x = avg_pool2d(stage(x), 2, ceil_mode=True)
            maps.append(x)
        return Features(x.flatten(1), tuple(maps))


def synthetic_splits(multilabel: bool = False) -> Splits:
    """A small learnable dataset: noisy images of six smooth patterns, or of one to three of them together."""
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


def misplaced(factory: Callable[..., Any], *given: str) -> str:
    """What is wrong with a factory's arguments, of which hashzoo gives those of these names; empty where nothing is.

    >>> misplaced(lambda setting, weight=1.0: None, "setting")
    "'weight' is left of the star, so it is no hyperparameter: write (setting, *, weight=...)"
    >>> misplaced(lambda b, a: None, "a", "b")
    'its arguments (b, a) are in the wrong order: hashzoo calls it with (a, b, *, hyperparameters)'
    >>> misplaced(lambda setting, *, weight=1.0: None, "setting")
    ''
    """
    if isinstance(factory, Composition):
        return ""
    known = inspect.signature(factory).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in known):
        return ""
    left = [p.name for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    first = left[: len(given)]
    if first != list(given) and sorted(first) == sorted(given):
        wanted = ", ".join([*given, "*", "hyperparameters"])
        return f"its arguments ({', '.join(left)}) are in the wrong order: hashzoo calls it with ({wanted})"
    if extra := left[len(given) :]:
        right = ", ".join([*given, "*", f"{extra[0]}=..."])
        return f"{extra[0]!r} is left of the star, so it is no hyperparameter: write ({right})"
    if len(left) < len(given):
        wanted = ", ".join([*given, "*", "hyperparameters"])
        return f"it takes ({', '.join(left)}), where hashzoo calls it with ({wanted})"
    return ""


def findings_of(checks: dict[str, Callable[[], str]]) -> list[Finding]:
    """What each check says of itself; one that raises says why."""
    findings = []
    for name, check in checks.items():
        try:
            why = check()
        except Exception as error:
            why = status_of(error)[1]
        findings.append(Finding(name, not why, why))
    return findings
