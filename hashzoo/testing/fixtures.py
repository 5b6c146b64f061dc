"""What the contract checks run on: a small dataset and a small network; and the result of a check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import avg_pool2d

from hashzoo.backbone import Backbone
from hashzoo.errors import status_of
from hashzoo.factory import FactoryInfo
from hashzoo.types import Features, Input, Split, Splits

SIDE, CLASSES = 12, 6
MOST_RANGES = 3  # of a method, head or loss


@dataclass(frozen=True)
class Finding:
    """The result of one check of a contract.

    Attributes:
        check: The name of the check.
        ok: Whether the contract holds.
        why: The problem and its fix; for a passed check empty or a note.
    """

    check: str
    ok: bool
    why: str = ""


class Probe(Backbone):
    """The backbone of the contract checks: a small network of three stages with feature maps.

    It takes images (B, 1, 12, 12), as :func:`synthetic_splits` gives them, and has ``dim`` 128.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU())
            for a, b in ((1, 8), (8, 16), (16, 32))
        )
        self.dim, self.map_dims, self.input = 128, (8, 16, 32), Input()

    def forward(self, images: Any) -> Features:
        """Compute features.

        Args:
            images: Images (B, 1, 12, 12).

        Returns:
            ``pooled`` (B, 128), the last map with its 2 x 2 positions, and the maps of the three stages.
        """
        maps, x = [], images
        for stage in self.stages:
            x = avg_pool2d(stage(x), 2, ceil_mode=True)
            maps.append(x)
        return Features(x.flatten(1), tuple(maps))


def synthetic_splits(multilabel: bool = False) -> Splits:
    """A small dataset that methods can learn: noisy images of six smooth patterns. The same at every call.

    Args:
        multilabel: Whether an image can contain several patterns.

    Returns:
        Splits with 240 training, 200 database and 80 query images, uint8 (N, 1, 12, 12), and labels (N, 6).
    """
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


def signature_problem(factory: Callable[..., Any], *expected: str) -> str:
    """What is wrong with the parameters of a factory that is called with the ``expected`` ones; empty if nothing is.

    >>> signature_problem(lambda setting, weight=1.0: None, "setting")
    "'weight' is not keyword-only, so it is not a hyperparameter: write (setting, *, weight=...)"
    >>> signature_problem(lambda b, a: None, "a", "b")
    'its arguments (b, a) are in the wrong order: hashzoo calls it with (a, b, *, hyperparameters)'
    >>> signature_problem(lambda setting, *, weight=1.0: None, "setting")
    ''
    """
    positional = FactoryInfo(factory).positional
    if positional is None:
        return ""
    first = positional[: len(expected)]
    if first != list(expected) and sorted(first) == sorted(expected):
        correct = ", ".join([*expected, "*", "hyperparameters"])
        return f"its arguments ({', '.join(positional)}) are in the wrong order: hashzoo calls it with ({correct})"
    if extra := positional[len(expected) :]:
        correct = ", ".join([*expected, "*", f"{extra[0]}=..."])
        return f"{extra[0]!r} is not keyword-only, so it is not a hyperparameter: write ({correct})"
    if len(positional) < len(expected):
        correct = ", ".join([*expected, "*", "hyperparameters"])
        return f"it takes ({', '.join(positional)}), but hashzoo calls it with ({correct})"
    return ""


def build(factory: Callable[..., Any], names: tuple[str, ...], *arguments: Any) -> tuple[Any, list[Finding]]:
    """Call a factory with arguments of these names: what it returns (None if it raises) and the finding ``build``."""
    problem = signature_problem(factory, *names)
    try:
        built = factory(*arguments)
        problem = problem or ("the factory returned None" if built is None else "")
        return built, [Finding("build", not problem, problem)]
    except (Exception, SystemExit) as error:
        signature = problem if isinstance(error, TypeError | AttributeError) else ""
        return None, [Finding("build", False, signature or status_of(error)[1])]


def range_findings(factory: Callable[..., Any]) -> list[Finding]:
    """The finding ``ranges``, if a factory declares ranges for ``hashzoo tune``; see :mod:`hashzoo.space`."""
    declared = [option for option in FactoryInfo(factory).options.values() if option.space is not None]
    why = ""
    for option in declared:
        space, default = option.space, option.default
        if default is inspect.Parameter.empty:
            why = f"{option.name} has a range and no default: give a default, which a study tries first"
        elif space is not None and default is not None and space.place(default) is None:
            why = f"the default {default!r} of {option.name} is outside its range, {space}: widen the range"
    most = MOST_RANGES * (1 if FactoryInfo(factory).composition is None else 2)
    if len(declared) > most:
        names = ", ".join(option.name for option in declared)
        why = f"{len(declared)} hyperparameters have a range ({names}): keep the {most} that matter most"
    return [Finding("ranges", not why, why)] if declared else []


def run_checks(checks: Mapping[str, Callable[[], str]]) -> list[Finding]:
    """The findings of checks by name. A check returns the problem, or an empty string; an exception is a problem."""
    findings = []
    for name, check in checks.items():
        try:
            why = check()
        except (Exception, SystemExit) as error:
            why = status_of(error)[1]
        findings.append(Finding(name, not why, why))
    return findings
