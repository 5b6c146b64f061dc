"""The contracts of heads, losses and backbones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hashzoo.backbone import Backbone
from hashzoo.errors import status_of
from hashzoo.testing.accelerator import problem_on_accelerator
from hashzoo.testing.fixtures import CLASSES, Finding, Probe, build, range_findings, run_checks, synthetic_splits
from hashzoo.training.process_state import preserve_process_state
from hashzoo.types import Batch, Features, Output

STEPS, MIN_GAIN = 100, 0.08  # training steps of free codes, and the similarity that they should gain within classes
NO_GAIN = (
    "after {} steps, codes of one class are not closer than others ({:+.2f}): expected of a loss that does not use "
    "labels, otherwise check the sign of its terms"
)


def check_head(factory: Callable[..., nn.Module], *, bits: int = 16) -> list[Finding]:
    """Check the contract of a hash head: shape, gradient, and codes that do not depend on the batch in eval mode.

    Args:
        factory: Called as ``factory(setting, backbone)``; every hyperparameter has a default.
        bits: The length of the codes.

    Returns:
        A finding per check. ``build``: the factory returns a head. ``ranges``, if it declares any: a range holds its
        default. ``shape``: the code is finite, (B, bits).
        ``gradient``: a gradient reaches the backbone. ``single``: in eval mode, the code of an image does not depend
        on its batch. ``accelerator``: forward and backward run on a pretended GPU. If ``build`` or ``shape`` fails, the
        checks after it are omitted. No exception of the head is raised.
    """
    with preserve_process_state():
        torch.manual_seed(0)
        data, backbone = synthetic_splits(), Probe()
        head, findings = build(factory, ("setting", "backbone"), data.setting(bits), backbone)
        if head is None:
            return findings
        findings += range_findings(factory)
        check = _HeadCheck(head, backbone, data.train.images[:24].float() / 128 - 1, bits)
        findings += run_checks({"shape": check.shape})
        if not findings[-1].ok:  # the other checks would repeat the problem
            return findings
        there = partial(problem_on_accelerator, partial(head_forward_backward, factory, bits))
        return findings + run_checks({"gradient": check.gradient, "single": check.single, "accelerator": there})


def head_forward_backward(factory: Callable[..., nn.Module], bits: int, device: str) -> None:
    """A training step of a head without the optimizer, on a device."""
    data, backbone = synthetic_splits(), Probe()
    head = factory(data.setting(bits), backbone).to(device).train()
    images = (data.train.images[:24].float() / 128 - 1).to(device)
    output: Output = head(backbone.to(device)(images))
    _backward(output.code.square().sum())


def _backward(value: Tensor) -> None:
    """Compute gradients if there are any; that there are none is another finding."""
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]


class _HeadCheck:
    """The checks of one head. Each returns the problem, or an empty string."""

    def __init__(self, head: Any, backbone: Backbone, images: Tensor, bits: int) -> None:
        self.head, self.backbone, self.images, self.bits = head, backbone, images, bits

    def shape(self) -> str:
        """The output has a finite code (B, bits)."""
        output: Any = self.head(self.backbone(self.images))
        if not isinstance(output, Output):
            return f"forward returned {type(output).__name__}: return hashzoo.Output(code), with code (B, K)"
        expected = (len(self.images), self.bits)
        if output.code.shape != expected:
            return f"code has shape {tuple(output.code.shape)}, not {expected}: return one column per bit"
        return "" if torch.isfinite(output.code).all() else "code is not finite"

    def gradient(self) -> str:
        """A gradient reaches the backbone."""
        code = self.head(self.backbone(self.images)).code
        if code.requires_grad:
            (code * torch.randn_like(code)).sum().backward()
        reached = any(p.grad is not None and bool(p.grad.any()) for p in self.backbone.parameters())
        return "" if reached else "no gradient reaches the backbone: remove detach, no_grad and sign"

    def single(self) -> str:
        """In eval mode, the code of an image does not depend on its batch."""
        self.head.eval()
        self.backbone.eval()
        with torch.no_grad():
            in_batch = self.head(self.backbone(self.images)).code[:1]
            alone = self.head(self.backbone(self.images[:1])).code
        if torch.allclose(in_batch, alone, atol=1e-4):
            return ""
        return (
            "the code of an image depends on its batch in eval mode: use nn.BatchNorm1d, which keeps the training "
            "mean, instead of x.mean(0)"
        )


def check_loss(
    factory: Callable[..., nn.Module],
    *,
    bits: int = 16,
    extra: Callable[[Tensor], dict[str, Tensor]] = lambda code: {"features": code},
) -> list[Finding]:
    """Check the contract of a loss on relaxed codes: finite named terms, a gradient, and inputs left unchanged.

    Args:
        factory: Called as ``factory(setting)``; every hyperparameter has a default.
        bits: The length of the codes.
        extra: Makes ``output.extra`` from codes (B, bits). Entries that it does not contain are the codes themselves.

    Returns:
        A finding per check. ``build``: the factory returns a loss. ``ranges``, if it declares any: a range holds its
        default. ``terms``: the loss returns a dict of finite
        scalars. ``gradient``: a finite gradient reaches the code. ``order``: the order of the batch does not matter.
        ``twice``: two calls agree and leave their inputs unchanged. ``corners``: the loss is finite for batches of one
        class, of distinct classes, and for codes of zero. ``accelerator``: the terms and their gradient are computed
        on a pretended GPU. ``extra``: a note that names the entries of
        ``output.extra`` that only special heads provide. ``direction``, if all of these pass: a note if training does
        not bring codes of one class closer. If ``build`` or ``terms`` fails, the checks after it are omitted. No
        exception of the loss is raised.
    """
    with preserve_process_state():
        torch.manual_seed(0)
        loss, findings = build(factory, ("setting",), synthetic_splits().setting(bits))
        if loss is None:
            return findings
        findings += range_findings(factory)
        check = _LossCheck(loss, bits, extra)
        findings += run_checks({"terms": check.terms})
        if not findings[-1].ok:  # the other checks would repeat the problem
            return findings
        checks = {"gradient": check.gradient, "order": check.order, "twice": check.twice, "corners": check.corners}
        there = partial(problem_on_accelerator, partial(loss_forward_backward, factory, bits, extra))
        findings += run_checks({**checks, "accelerator": there})
        if check.requested:
            names = ", ".join(f"extra[{name!r}]" for name in check.requested)
            note = f"reads {names}, which plain heads do not provide: compose the loss with a head that does"
            findings.append(Finding("extra", True, note))
        return [*findings, check.direction()] if all(finding.ok for finding in findings) else findings


def loss_forward_backward(
    factory: Callable[..., nn.Module], bits: int, extra: Callable[[Tensor], dict[str, Tensor]], device: str
) -> None:
    """The terms of a loss and their gradient in training and evaluation mode, on a device."""
    check = _LossCheck(factory(synthetic_splits().setting(bits)), bits, extra, device)
    for training in (True, False):
        check.loss.train(training)
        _backward(check.total(check.codes, check.labels))


class _RecordedExtra(dict[str, Tensor]):
    """``Output.extra`` with the code as the value of every missing entry; ``requested`` records these entries."""

    def __init__(self, known: dict[str, Tensor], code: Tensor, requested: list[str]) -> None:
        super().__init__(known)
        self.code, self.requested = code, requested

    def __missing__(self, name: str) -> Tensor:
        if name not in self.requested:
            self.requested.append(name)
        return self.code


class _LossCheck:
    """The checks of one loss. Each returns the problem, or an empty string."""

    def __init__(self, loss: Any, bits: int, extra: Callable[[Tensor], dict[str, Tensor]], device: str = "cpu") -> None:
        self.loss, self.bits, self.extra = loss.to(device).eval(), bits, extra
        self.codes = torch.tanh(torch.randn(12, bits)).to(device).requires_grad_()
        self.mixing = torch.randn(bits, CLASSES).to(device)
        self.labels = torch.eye(CLASSES)[torch.arange(12) % CLASSES].to(device)
        self.original_labels = self.labels.clone()
        self.requested: list[str] = []

    def losses(self, code: Tensor, labels: Tensor, ids: Tensor | None = None) -> Any:
        """What the loss returns for relaxed codes."""
        output = Output(code, code @ self.mixing, _RecordedExtra(self.extra(code), code, self.requested))
        ids = torch.arange(len(labels), device=labels.device) if ids is None else ids
        return self.loss(output, Batch((None,), labels, ids, 0.5))

    def total(self, code: Tensor, labels: Tensor, ids: Tensor | None = None) -> Tensor:
        """The sum of the terms."""
        return torch.stack([value.reshape(()) for value in self.losses(code, labels, ids).values()]).sum()

    def terms(self) -> str:
        """The loss returns a dict of finite scalars."""
        terms = self.losses(self.codes, self.labels)
        if not isinstance(terms, dict) or not terms:
            return f"forward returned {type(terms).__name__}: return a dict of named terms such as {{'pair': value}}"
        for name, value in terms.items():
            if not isinstance(value, Tensor):
                return f"term {name!r} is a {type(value).__name__}, not a tensor: .item() and float() lose the gradient"
            if value.numel() != 1:
                return f"term {name!r} has shape {tuple(value.shape)}, but must be one number: take its mean"
            if not torch.isfinite(value):
                return f"term {name!r} is {float(value.detach())}, but must be finite"
        return ""

    def gradient(self) -> str:
        """A finite gradient reaches the code."""
        value = self.total(self.codes, self.labels)
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value, self.codes, allow_unused=True)
        if gradient is None or not gradient.any():
            return "no gradient reaches the code: remove detach and sign, whose gradient is 0"
        return "" if torch.isfinite(gradient).all() else "the gradient with respect to the code is not finite"

    def order(self) -> str:
        """The loss does not depend on the order of the batch."""
        order = torch.randperm(len(self.codes))
        shuffled = self.total(self.codes[order], self.labels[order], order)
        same = torch.allclose(self.total(self.codes, self.labels), shuffled, rtol=1e-4)
        return "" if same else "the loss depends on the order of the batch: use no row numbers"

    def twice(self) -> str:
        """The loss is deterministic in eval mode and leaves its inputs unchanged."""
        first = self.total(self.codes, self.labels)
        if not torch.equal(self.labels, self.original_labels):
            return "forward changed batch.labels in place: write labels = labels * 2, not labels *= 2"
        same = torch.equal(first, self.total(self.codes, self.labels))
        return "" if same else "two calls with the same inputs give different values: use no randomness in eval mode"

    def corners(self) -> str:
        """The loss is finite for batches of one class, for batches of distinct classes, and for codes of zero."""
        one_class = torch.eye(CLASSES)[torch.zeros(len(self.codes), dtype=torch.long)]
        cases = {
            "one class, where no pair is dissimilar": self.total(self.codes, one_class),
            "distinct classes, where no pair is similar": self.total(self.codes[:CLASSES], torch.eye(CLASSES)),
            "codes of zero": self.total(self.codes * 0, self.labels),
        }
        failed = [name for name, value in cases.items() if not torch.isfinite(value)]
        return f"not finite for a batch of {failed[0]}: divide by max(1, count)" if failed else ""

    def direction(self) -> Finding:
        """Whether training free codes brings those of one class closer; a note, since not all losses use labels."""
        try:
            gain = self._trained_gain()
        except Exception as error:
            return Finding("direction", False, status_of(error)[1])
        return Finding("direction", True, NO_GAIN.format(STEPS, gain) if gain < MIN_GAIN else "")

    def _trained_gain(self) -> float:
        """Mean inner product, per bit, of trained codes within classes minus that between classes."""
        free = torch.nn.Parameter(0.3 * torch.randn(24, self.bits))
        labels = torch.eye(CLASSES)[torch.arange(24) % CLASSES]
        optimizer = torch.optim.Adam([free, *self.loss.train().parameters()], 0.05)
        for _ in range(STEPS):
            optimizer.zero_grad()
            self.total(torch.tanh(free), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        codes = torch.sign(free.detach())
        similarity = codes @ codes.T / self.bits
        similar, other = labels @ labels.T > 0, ~torch.eye(24, dtype=torch.bool)
        return float(similarity[similar & other].mean() - similarity[~similar].mean())


def check_backbone(factory: Callable[..., Backbone], shape: tuple[int, int, int] = (3, 64, 64)) -> list[Finding]:
    """Check the contract of a backbone: shapes, and features that are deterministic in eval mode.

    Args:
        factory: Called as ``factory(shape)``; every option has a default.
        shape: Channels, height and width of the dataset's images.

    Returns:
        A finding per check. ``build``: the factory returns a :class:`hashzoo.Backbone` with ``dim``. ``shapes``: the
        features have the shapes that it declares. ``repeats``: two calls agree. ``alone``: the features of an image do
        not depend on its batch. ``sizes``: a backbone without a fixed input size takes small gray images, or refuses
        them with ValueError. ``accelerator``: it runs on a pretended GPU. If ``build`` or ``shapes`` fails, the
        checks after it are omitted. No exception of the backbone is raised.
    """
    with preserve_process_state(), torch.no_grad():
        torch.manual_seed(0)
        backbone, findings = build(factory, ("shape",), shape)
        if not findings[0].ok:
            return findings
        if not isinstance(backbone, Backbone) or "dim" not in vars(backbone).keys() | vars(type(backbone)).keys():
            why = f"{type(backbone).__name__} must extend hashzoo.Backbone and set self.dim"
            return [Finding("build", False, why)]
        check = _BackboneCheck(backbone, factory, shape)
        findings += run_checks({"shapes": check.shapes})
        if not findings[-1].ok:  # the other checks would repeat the problem
            return findings
        checks = {"repeats": check.repeats, "alone": check.alone, "sizes": check.sizes}
        return findings + run_checks({**checks, "accelerator": partial(problem_on_accelerator, check.forward)})


class _BackboneCheck:
    """The checks of one backbone. Each returns the problem, or an empty string."""

    def __init__(self, backbone: Backbone, factory: Callable[..., Backbone], shape: tuple[int, int, int]) -> None:
        self.backbone, self.factory, self.side = backbone.eval(), factory, backbone.input.size
        channels, height, width = shape
        self.images = torch.randn(2, backbone.input.channels or channels, self.side or height, self.side or width)

    def shapes(self) -> str:
        """Features have the shapes of ``dim`` and ``map_dims``; images are not changed."""
        images = self.images.clone()
        features: Any = self.backbone(images)
        if not torch.equal(images, self.images):
            return "forward changed its images in place: write x = x - 0.5, not x -= 0.5"
        if not isinstance(features, Features):
            return f"forward returned {type(features).__name__}: return hashzoo.Features(pooled), with pooled (B, dim)"
        if features.pooled.shape != (2, self.backbone.dim):
            return f"pooled has shape {tuple(features.pooled.shape)}, but dim requires (2, {self.backbone.dim})"
        if not torch.isfinite(features.pooled).all():
            return "pooled is not finite"
        channels, declared = tuple(m.shape[1] for m in features.maps), tuple(self.backbone.map_dims)
        return "" if channels == declared else f"maps have {channels} channels, but map_dims is {declared}"

    def repeats(self) -> str:
        """Two passes in eval mode are equal."""
        same = torch.equal(self.backbone(self.images).pooled, self.backbone(self.images).pooled)
        return "" if same else "two forward passes differ in eval mode: use no randomness there, such as dropout"

    def alone(self) -> str:
        """In eval mode, the features of an image do not depend on its batch."""
        alone = torch.cat([self.backbone(image[None]).pooled for image in self.images])
        same = torch.allclose(alone, self.backbone(self.images).pooled, atol=1e-3)
        return "" if same else "the features of an image depend on its batch in eval mode: use no batch statistics"

    def sizes(self) -> str:
        """A backbone without a fixed input size takes small gray images, or refuses them with ValueError."""
        if self.side:  # images are resized to it
            return ""
        try:
            other = self.factory((1, 32, 32)).eval()
        except ValueError:
            return ""
        try:
            other(torch.randn(2, other.input.channels or 1, 32, 32))
        except Exception as error:
            fix = "use the argument shape, or set self.input = Input(size=..., channels=3)"
            return f"a backbone built for images (1, 32, 32) fails on them: {status_of(error)[1]}: {fix}"
        return ""

    def forward(self, device: str) -> None:
        """Features on a device, to which the backbone moves."""
        self.backbone.to(device)(self.images.to(device))
