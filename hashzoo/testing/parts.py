"""The contracts of heads, losses, backbones and datasets: what ``hashzoo check`` says of what is no method."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hashzoo.backbone import Backbone
from hashzoo.data import audit
from hashzoo.data.split_file import split_digest
from hashzoo.data.transforms import as_tensor
from hashzoo.errors import status_of
from hashzoo.testing.fixtures import CLASSES, Finding, Probe, findings_of, misplaced, synthetic_splits
from hashzoo.training.process_state import preserve_process_state
from hashzoo.types import Batch, Features, Output, Split, Splits

LOOKED_AT = 8  # images of each part of a dataset; hashzoo data check looks at all
HARMLESS = ("class-ordered-database",)  # of what hashzoo data check finds: no score of ours depends on an order

STEPS, GAIN = 100, 0.08  # of training codes freely, and how far classes should be told apart by then
NO_GAIN = (
    "after {} steps codes of one class are no nearer than others ({:+.2f}): as it should be where labels are not read, "
    "else a sign may be turned"
)


def _built(factory: Callable[..., Any], names: tuple[str, ...], *given: Any) -> tuple[Any, list[Finding]]:
    """What a factory makes of what hashzoo gives it, and the finding of that; None where it raises."""
    wrong = misplaced(factory, *names)
    try:
        return factory(*given), [Finding("build", not wrong, wrong)]
    except (Exception, SystemExit) as error:
        return None, [
            Finding("build", False, (isinstance(error, TypeError | AttributeError) and wrong) or status_of(error)[1])
        ]


def check_head(factory: Callable[..., nn.Module], *, bits: int = 16) -> list[Finding]:
    """The contract of a hash head: ``code`` (B, bits), finite, with a gradient, one image at a time in eval mode."""

    def shape() -> str:
        made: Any = head(backbone(images))
        if not isinstance(made, Output):
            return f"forward gave {type(made).__name__}: return hashzoo.Output(code), with code (B, K)"
        if made.code.shape != (len(images), bits):
            return f"code is {tuple(made.code.shape)}, not ({len(images)}, {bits}): one column for each of setting.bits"
        return "" if torch.isfinite(made.code).all() else "code is not finite"

    def gradient() -> str:
        code = head(backbone(images)).code
        if code.requires_grad:
            (code * torch.randn_like(code)).sum().backward()
        reached = any(p.grad is not None and bool(p.grad.any()) for p in backbone.parameters())
        return "" if reached else "no gradient reaches the backbone: leave out detach, no_grad and the sign"

    def single() -> str:
        head.eval()
        backbone.eval()
        with torch.no_grad():
            together, alone = head(backbone(images)).code[:1], head(backbone(images[:1])).code
        cure = "nn.BatchNorm1d remembers the mean of training, x.mean(0) takes that of the batch"
        return "" if torch.allclose(together, alone, atol=1e-4) else f"a code depends on its batch in eval mode: {cure}"

    with preserve_process_state():
        torch.manual_seed(0)
        data, backbone = synthetic_splits(), Probe()
        images = data.train.images[:24].float() / 128 - 1
        head, found = _built(factory, ("setting", "backbone"), data.setting(bits), backbone)
        if head is None:
            return found
        return found + findings_of({"shape": shape, "gradient": gradient, "single": single})


class _Extra(dict[str, Tensor]):
    """What a head may give beside codes: whatever a loss asks for is the code, and is remembered as asked for."""

    asked: tuple[str, ...] = ()

    def __init__(self, known: dict[str, Tensor], code: Tensor) -> None:
        super().__init__(known)
        self.code = code

    def __missing__(self, name: str) -> Tensor:
        _Extra.asked = tuple(dict.fromkeys([*_Extra.asked, name]))
        return self.code


def check_loss(
    factory: Callable[..., nn.Module],
    *,
    bits: int = 16,
    extra: Callable[[Tensor], dict[str, Tensor]] = lambda code: {"features": code},
) -> list[Finding]:
    """The contract of a loss of relaxed codes: finite named scalars, a gradient, no order, no mutation.

    Beside codes the loss gets ``features``, as from the plain heads. What else it reads of ``output.extra`` is made by
    ``extra`` out of codes (B, bits), or is the code itself; the finding ``extra`` names it.
    """

    def output(code: Tensor) -> Output:
        return Output(code, code @ mixing, _Extra(extra(code), code))

    def batch(labels: Tensor, ids: Tensor | None = None) -> Batch:
        return Batch((None,), labels, torch.arange(len(labels)) if ids is None else ids, 0.5)

    def total(code: Tensor, labels: Tensor, ids: Tensor | None = None) -> Tensor:
        terms = loss(output(code), batch(labels, ids))
        return torch.stack([value.reshape(()) for value in terms.values()]).sum()

    def terms() -> str:
        found: Any = loss(output(codes), batch(labels))
        if not isinstance(found, dict) or not found:
            return f"forward gave {type(found).__name__}: return a dict of named terms such as {{'pair': value}}"
        for name, value in found.items():
            if not isinstance(value, Tensor):
                return f"term {name!r} is a {type(value).__name__}, not a tensor: .item() and float() lose the gradient"
            if value.numel() != 1:
                return f"term {name!r} has the shape {tuple(value.shape)}, and must be one number: take its mean"
            if not torch.isfinite(value):
                return f"term {name!r} is {float(value.detach())}"
        return ""

    def gradient() -> str:
        value = total(codes, labels)
        (slope,) = torch.autograd.grad(value, codes, allow_unused=True) if value.requires_grad else (None,)
        if slope is None or not slope.any():
            return "no gradient reaches the code: leave out detach, and the sign, whose gradient is 0"
        return "" if torch.isfinite(slope).all() else "the gradient of the code is not finite"

    def order() -> str:
        other = torch.randperm(len(codes))
        same = torch.allclose(total(codes, labels), total(codes[other], labels[other], other), rtol=1e-4)
        return "" if same else "the value changes with the order of the batch"

    def twice() -> str:
        first = total(codes, labels)
        if not torch.equal(labels, kept):
            return "it changes batch.labels: work on a copy, as labels = labels * 2 and not labels *= 2"
        return "" if torch.equal(first, total(codes, labels)) else "calling it twice gives two values"

    def corners() -> str:
        one = torch.eye(CLASSES)[torch.zeros(len(codes), dtype=torch.long)]
        each = torch.eye(CLASSES)
        cases = {
            "one class, where no pair is dissimilar": total(codes, one),
            "distinct classes, where no pair is similar": total(codes[:CLASSES], each),
            "codes of zero": total(codes * 0, labels),
        }
        bad = [name for name, value in cases.items() if not torch.isfinite(value)]
        return f"not finite for a batch of {bad[0]}: divide by max(1, count)" if bad else ""

    def gained() -> float:
        free, labels = torch.nn.Parameter(0.3 * torch.randn(24, bits)), torch.eye(CLASSES)[torch.arange(24) % CLASSES]
        optimizer = torch.optim.Adam([free, *loss.train().parameters()], 0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            total(torch.tanh(free), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        near = torch.sign(free.detach()) @ torch.sign(free.detach()).T / bits
        same, other = labels @ labels.T > 0, ~torch.eye(24, dtype=torch.bool)
        return float(near[same & other].mean() - near[~same].mean())

    with preserve_process_state():
        torch.manual_seed(0)
        _Extra.asked = ()
        loss, found = _built(factory, ("setting",), synthetic_splits().setting(bits))
        if loss is None:
            return found
        loss.eval()
        codes = torch.tanh(torch.randn(12, bits)).requires_grad_()
        mixing = torch.randn(bits, CLASSES)
        labels = torch.eye(CLASSES)[torch.arange(12) % CLASSES]
        kept = labels.clone()
        found += findings_of({"terms": terms, "gradient": gradient, "order": order, "twice": twice, "corners": corners})
        asked: tuple[str, ...] = _Extra.asked
        names = ", ".join(f"extra[{one!r}]" for one in asked)
        note = f"reads {names}, which plain heads do not give: compose it with one that does"
        found += [Finding("extra", True, note)] if names else []
        if not all(finding.ok for finding in found):
            return found
        try:
            gain = gained()
        except Exception as error:
            return [*found, Finding("direction", False, status_of(error)[1])]
        return [*found, Finding("direction", True, NO_GAIN.format(STEPS, gain) if gain < GAIN else "")]


def check_backbone(factory: Callable[..., Backbone], shape: tuple[int, int, int] = (3, 64, 64)) -> list[Finding]:
    """The contract of a backbone: ``pooled`` (B, dim), maps of ``map_dims``, the same twice in eval mode."""

    def shapes() -> str:
        made: Any = backbone(given := images.clone())
        if not torch.equal(given, images):
            return "forward changed its images: x = x - 0.5 makes a new tensor, x -= 0.5 does not"
        if not isinstance(made, Features):
            return f"forward gave {type(made).__name__}: return hashzoo.Features(pooled), with pooled (B, dim)"
        if made.pooled.shape != (2, backbone.dim):
            return f"pooled is {tuple(made.pooled.shape)}, not (2, {backbone.dim}) as dim says"
        if not torch.isfinite(made.pooled).all():
            return "pooled is not finite"
        widths = tuple(m.shape[1] for m in made.maps)
        said = tuple(backbone.map_dims)
        return "" if widths == said else f"maps have {widths} channels, and map_dims says {said}"

    def repeats() -> str:
        same = torch.equal(backbone(images).pooled, backbone(images).pooled)
        return "" if same else "two passes differ in eval mode: draw nothing there, as dropout does"

    def alone() -> str:
        apart = torch.cat([backbone(images[:1]).pooled, backbone(images[1:]).pooled])
        return "" if torch.allclose(apart, backbone(images).pooled, atol=1e-3) else "features depend on the batch"

    def sizes() -> str:
        if side:  # images are brought to it
            return ""
        try:
            other = factory((1, 32, 32)).eval()
        except ValueError:  # it refuses them
            return ""
        try:
            other(torch.randn(2, other.input.channels or 1, 32, 32))
        except Exception as error:
            cure = "build it from shape, or set self.input = Input(size=..., channels=3)"
            return f"built for images of (1, 32, 32) it does not take them: {status_of(error)[1]}: {cure}"
        return ""

    with preserve_process_state(), torch.no_grad():
        torch.manual_seed(0)
        backbone, found = _built(factory, ("shape",), shape)
        if backbone is None:
            return found
        if not found[0].ok:
            return found
        if not isinstance(backbone, Backbone) or "dim" not in vars(backbone).keys() | vars(type(backbone)).keys():
            why = f"{type(backbone).__name__} must extend hashzoo.Backbone and set self.dim"
            return [Finding("build", False, why)]
        backbone.eval()
        side = backbone.input.size
        images = torch.randn(2, backbone.input.channels or shape[0], side or shape[1], side or shape[2])
        found += findings_of({"shapes": shapes})
        if not found[-1].ok:  # the others would only say so in other words
            return found
        return found + findings_of({"repeats": repeats, "alone": alone, "sizes": sizes})


def check_dataset(factory: Callable[..., Splits]) -> list[Finding]:
    """The contract of a dataset: three parts that fit together, drawn alike each time, without a leak.

    Of each part a few images are looked at; ``hashzoo data check`` looks at all of them. What the data declares in
    its ``notes`` is no fault.
    """

    def parts() -> str:
        part: Any
        for name, part in data.parts().items():
            if not isinstance(part, Split):
                return f"{name} is {type(part).__name__}: give hashzoo.Split(images, labels, ids)"
            if not len(part):
                return f"{name} is empty"
            if part.labels.ndim != 2 or part.labels.dtype != torch.float32:
                shape = f"{part.labels.dtype} {tuple(part.labels.shape)}"
                return f"labels of {name} are {shape}, not float32 (N, C): torch.eye(C)[classes] makes them"
            if part.ids.dtype != torch.int64 or part.ids.shape != (len(part),):
                return f"ids of {name} are {part.ids.dtype} {tuple(part.ids.shape)}, not int64 ({len(part)},)"
        wide = data.database.labels.shape[1]
        if wide != len(data.class_names) or data.query.labels.shape[1] != wide:
            return (
                f"database has {wide} classes, query {data.query.labels.shape[1]}, class_names {len(data.class_names)}"
            )
        several = any(bool((part.labels.sum(1) > 1).any()) for part in data.parts().values())
        return "images have several labels: multilabel=True" if several and not data.multilabel else ""

    def images() -> str:
        for name, part in data.parts().items():
            if isinstance(part.images, Tensor) and (part.images.dtype != torch.uint8 or part.images.ndim != 4):
                shape = f"{part.images.dtype} {tuple(part.images.shape)}"
                return f"images of {name} are {shape}, not uint8 (N, 3 or 1, H, W)"
            for row in range(min(LOOKED_AT, len(part))):
                try:
                    image = as_tensor(part.images[row])
                except Exception as error:
                    return f"image {row} of {name} does not decode: {status_of(error)[1]}"
                if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
                    shape = f"{image.dtype} {tuple(image.shape)}"
                    return f"image {row} of {name} is {shape}: give PIL images, or tensors uint8 (3 or 1, H, W)"
        return ""

    def repeats() -> str:
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        same = split_digest(data) == split_digest(factory())
        return "" if same else "two calls give other parts: draw from a generator that an option seed: int = 0 begins"

    def faults() -> str:
        found = [*audit.id_findings(data), *audit.label_findings(data)]
        found = [one for one in found if one.count and one.name not in HARMLESS]
        lines = audit.report(found, data.notes, ())
        wrong = [line for line in lines if line["status"] == "found"]
        return "; ".join(f"{one['finding']} ({one['count']} of {one['of']}): {one['cure']}" for one in wrong)

    with preserve_process_state():
        made, found = _built(factory, ())
        if made is None and not found[0].ok:
            return found
        if not isinstance(made, Splits):
            why = f"it gave {type(made).__name__}: return hashzoo.Splits(train, database, query, ...)"
            return [Finding("build", False, why)]
        data = made
        found += findings_of({"parts": parts})
        if not found[-1].ok:  # the others would only say so in other words
            return found
        return found + findings_of({"images": images, "repeats": repeats, "faults": faults})
