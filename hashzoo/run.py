"""``Run``, which ``fit`` receives: batches, views, optimizers, their steps and rates, random generators, features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hashzoo.backbone import Backbone
from hashzoo.data.transforms import Workers, augmentation, load_views
from hashzoo.data.vectors import Vectors
from hashzoo.training.averaging import WeightAverage
from hashzoo.training.budget import Budget, Schedule, rate
from hashzoo.training.curve import Curve, flatten
from hashzoo.training.distributed import ProcessGroup
from hashzoo.training.feature_store import MixedPrecisionBackbone, PrecomputedBackbone, StoredFeatures
from hashzoo.training.finite import FiniteCheck
from hashzoo.training.scaling import LossScaler
from hashzoo.types import Batch, Features, Input, Output, Report, Split, View

if TYPE_CHECKING:
    from hashzoo.training.checkpoints import Checkpoints, Stateful


class Run:
    """The services that ``Method.fit`` uses. Each cell has one run.

    Args:
        train: Training budget.
        seed: Seed of ``generator``.
        to: Form in which the backbone takes images.
        device: A device of torch, such as ``"cpu"`` or ``"cuda"``.
        workers: Processes that load images; 0 loads them in this one.
        process_group: The processes that train together, if there are several.
        checkpoints: Where the training is saved after an epoch, so that it can resume after a crash.

    Attributes:
        train: The training budget.
        generator: Random generator on the CPU, the only source of randomness that a method needs.
        device: Device of the process.
        progress: Progress of the training, from 0 to 1.
        epochs: Number of epochs finished, over all calls of :meth:`batches`.
        curve: Means of loss terms and logged quantities over each epoch; see :class:`hashzoo.training.curve.Curve`.
        report: Progress callback, called after each epoch with the progress and the logged values. If loss terms or
            quantities were reported in the epoch, their means replace the latest values, and ``epoch`` is its number.

    Raises:
        ValueError: If the device does not support the precision of the budget.
    """

    def __init__(
        self,
        train: Budget,
        seed: int,
        *,
        to: Input | None = None,
        device: str = "cpu",
        workers: int = 0,
        process_group: ProcessGroup | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        if train.precision == "bf16" and device.startswith("cuda") and not torch.cuda.is_bf16_supported():
            raise ValueError("this GPU has no bf16; use precision = 'fp16' or 'fp32'")
        self.train, self.process_group = train, process_group or ProcessGroup()
        self.device = self.process_group.device(device)
        self.generator = torch.Generator().manual_seed(seed)
        self.progress = 0.0
        self.epochs = 0
        self.after_epoch: Callable[[], None] | None = None
        self.average: WeightAverage | None = None
        self.companion: Stateful | None = None  # saved in checkpoints with the method
        self.stopped = False  # set after an epoch to end this call of batches
        self.phase_start = 0  # the value of epochs when this call of batches began
        self.optimizers: list[torch.optim.Optimizer] = []
        self.curve = Curve()
        self._finite = FiniteCheck()
        self.scaler = LossScaler(self.device, train.precision == "fp16")
        self._logged: dict[str, Any] = {}
        self._to = replace(to or Input(), draft=train.draft)
        self._workers = Workers(workers, pinned=self.device.type == "cuda")
        self.report: Report = lambda progress, values: None
        self._schedule: Schedule = train.schedule
        self._warm = 1.0
        self._checkpoints, self._kept, self._first, self._begun = checkpoints, cast(nn.Module | None, None), 0, 0
        self._features: dict[tuple[int, int], tuple[Any, Backbone, Split, Features]] = {}

    def place(self, backbone: Backbone) -> Backbone:
        """Move a backbone to the run's device, with the precision of the budget."""
        backbone = backbone.to(self.device)
        mixed = self.train.precision != "fp32" and not isinstance(backbone, PrecomputedBackbone)
        return MixedPrecisionBackbone(backbone, self.device.type, self.train.precision) if mixed else backbone

    def log(self, values: dict[str, Any]) -> None:
        """Keep the latest value of named quantities, for the progress display and the cell, and their means by epoch.

        A training loop that does not use :meth:`step` logs its loss as ``loss``.

        Args:
            values: Numbers or scalar tensors by name.
        """
        self._logged |= values
        self.curve.add("logged", values)

    @property
    def logged(self) -> dict[str, float]:
        """The latest value of every logged quantity. Reading it waits for the GPU, so do not read it in every step."""
        return {name: float(value) for name, value in self._logged.items()}

    def optimizer(self, *modules: nn.Module | tuple[nn.Module, float], lr: float = 1.0) -> torch.optim.Optimizer:
        """Create the optimizer that the budget names, over the parameters of modules.

        The learning rate of a backbone is multiplied by the budget's ``backbone_lr``. A parameter that two modules
        share belongs to the first. Scalar parameters, such as the weight of a loss term, have no weight decay.

        Args:
            *modules: Modules, or pairs of a module and a multiple of the learning rate.
            lr: Multiple of the budget's learning rate, for all modules.

        Returns:
            The optimizer; :meth:`step` sets its learning rates.

        Raises:
            ValueError: If no module has a parameter that requires a gradient.
        """
        groups: list[dict[str, Any]] = []
        seen: set[int] = set()
        for entry in modules:
            module, multiple = entry if isinstance(entry, tuple) else (entry, 1.0)
            if isinstance(module, Backbone):
                multiple *= self.train.backbone_lr
            parameters = [p for p in module.parameters() if p.requires_grad and id(p) not in seen]
            seen |= {id(p) for p in parameters}
            if parameters and multiple > 0:
                base = self.train.lr * lr * multiple
                scalars = [p for p in parameters if p.ndim == 0]
                if len(scalars) < len(parameters):
                    groups.append({"params": [p for p in parameters if p.ndim], "lr": base, "base": base})
                if scalars:
                    groups.append({"params": scalars, "lr": base, "base": base, "weight_decay": 0.0})
        if not groups:
            raise ValueError("nothing to train: the modules given have no parameters that require a gradient")
        decay = self.train.weight_decay
        made: torch.optim.Optimizer
        if self.train.optimizer == "sgd":
            made = torch.optim.SGD(groups, lr=self.train.lr, momentum=self.train.momentum, weight_decay=decay)
        elif self.train.optimizer == "adamw":
            made = torch.optim.AdamW(groups, lr=self.train.lr, weight_decay=decay)
        else:
            made = torch.optim.Adam(groups, lr=self.train.lr, weight_decay=decay)
        self.optimizers.append(made)
        return made

    def batches(
        self,
        split: Split,
        *,
        epochs: int | None = None,
        views: Sequence[View | None] | None = None,
        weights: Tensor | None = None,
        schedule: Schedule | None = None,
        size: int | None = None,
        shuffle: bool = True,
    ) -> Iterator[Batch]:
        """Iterate over batches of a split, on the run's device.

        A last batch of one image is dropped, since its batch statistics are not defined. Two of these iterators can be
        combined with ``zip``. If several processes train together, a batch holds the views of the share of this
        process, and the labels and ids of all images: see :meth:`gathered`.

        Args:
            split: N images.
            epochs: Passes over the images; by default those of the budget.
            views: Augmentations, one for each view of an image; by default the one of the budget. None is the image
                itself. For vectors, any other view is :func:`hashzoo.data.vectors.noisy`.
            weights: (N,) sampling weights, if images are drawn with replacement.
            schedule: Schedule of the learning rate over all steps; by default that of the budget.
            size: Images per batch; by default that of the budget.
            shuffle: Whether images are in random order.

        Yields:
            Batches; ``progress`` of each is that of this iterator.

        Raises:
            ValueError: If the split has fewer than two images, or if the number of weights is wrong.
        """
        epochs, size = epochs or self.train.epochs, size or self.train.batch
        of_images = "none" if isinstance(split.images, Vectors) else self.train.augment
        chosen = [augmentation(of_images)] if views is None else list(views)
        if weights is not None and len(weights) != len(split):
            raise ValueError(f"{len(weights)} weights for a split of {len(split)} images")
        if len(split) < 2:
            raise ValueError(f"training needs two images or more; the split has {len(split)}")
        groups_of = [len(g) for g in torch.split(torch.arange(len(split)), size) if len(g) > 1]
        first, kept, self._first, self._kept = self._first, self._kept, 0, None
        self._begun += 1
        mine = self._begun
        self.curve.forget()
        steps, step = epochs * len(groups_of), first * len(groups_of)
        self._schedule, self.phase_start, self.stopped = schedule or self.train.schedule, self.epochs - first, False
        for _ in range(first, epochs):
            order = self._order(len(split), weights, shuffle)
            seeds = torch.randint(2**62, (len(split),), generator=self.generator)
            rows = list(torch.split(order, size))[: len(groups_of)]
            draws = list(torch.split(seeds, size))[: len(groups_of)]
            seen, drawn = ([self.process_group.share(part) for part in parts] for parts in (rows, draws))
            for group, ready in zip(rows, self._load(split, seen, drawn, chosen), strict=True):
                self.process_group.begin_batch(len(group))
                self._advance(step / steps)
                step += 1
                self._warm = min(1.0, step / max(1.0, self.train.warmup * len(groups_of)))
                yield self._batch(split, group, ready, ends_epoch=step % len(groups_of) == 0)
            self.epochs += 1
            self._end_epoch(step / steps)
            if self.train.patience:
                self.stopped = self.process_group.any(self.stopped, self.device)
            if self.stopped:  # before a checkpoint, from which a resumed training would go on
                break
            if (
                self._checkpoints and kept and self._begun == mine and self.process_group.rank == 0
            ):  # not with a second iterator, whose position is not saved
                self._checkpoints.save_if_due(self, kept)
        self.process_group.divided, self._warm = False, 1.0
        self._advance(1.0)

    def _end_epoch(self, progress: float) -> None:
        """Close the epoch of the curve, validate, and report both."""
        self._finite.verify()
        recorded = self.curve.end_epoch()
        if self.after_epoch:
            with self.average.applied() if self.average else nullcontext():
                self.after_epoch()
        values = self.logged
        if recorded:
            values |= {**flatten(self.curve.epochs[-1]), "epoch": float(len(self.curve.epochs))}
        self.report(progress, values)

    def gathered(self, output: Output, batch: Batch) -> Output:
        """Gather the outputs of a batch from all processes that train together.

        A method with its own loop that calls this before each loss declares ``Card(gathers=True)``, and can then be
        trained in several processes.

        Args:
            output: Output for the images that this process has seen.
            batch: The batch.

        Returns:
            The output for all images of the batch, differentiable; ``output`` itself in a single process.

        Raises:
            ValueError: If an entry of ``extra`` does not have one row per image.
        """
        return self.process_group.gather(output, len(batch))

    def resume(self, method: nn.Module) -> None:
        """Declare that the training can resume from a checkpoint, and restore one if there is one.

        To be called once, immediately before the only call of :meth:`batches`. All state of the loop must be in the
        method, in the optimizers created so far, and in the generator.

        Args:
            method: The method that is trained.
        """
        if self._checkpoints:
            self._kept, self._first = method, self._checkpoints.restore(self, method)
            self.process_group.require_equal("the epoch to go on from", torch.tensor([self._first], device=self.device))

    def step(
        self, optimizer: torch.optim.Optimizer, losses: dict[str, Tensor], backward: Callable[[], None] | None = None
    ) -> None:
        """Take one optimizer step on the sum of loss terms, and log each term.

        Args:
            optimizer: An optimizer from :meth:`optimizer`.
            losses: Scalar tensors by name, as a loss returns them.
            backward: Called after the backward pass of the terms, to carry it on where they were computed from
                detached tensors.

        Raises:
            NonFiniteError: If a term is NaN or infinite; the message names it and its step. On the CPU it is raised at
                once, on another device at the end of the epoch, since reading a value in every step would slow it down.
            ValueError: If there is no term, or if several processes train and :meth:`gathered` was not called.
        """
        if not losses:
            raise ValueError("the loss gave no terms: return a dict such as {'pair': tensor}")
        terms = {name: term.reshape(()) if term.ndim else term for name, term in losses.items()}
        total = reduce(torch.add, terms.values())
        detached = {name: term.detach() for name, term in terms.items()}
        self._finite.add(detached, total.detach(), self.progress)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * rate(self._schedule, self.progress) * self._warm
        if not self.process_group.gathered:
            raise ValueError("this loop does not ask for run.gathered, so it trains in one process: use --devices 1")
        optimizer.zero_grad(set_to_none=True)
        self.scaler.backward(total)
        if backward is not None:
            backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.process_group.average_gradients(parameters)
        self.scaler.unscale(optimizer)
        if self.train.clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, self.train.clip)
        self.scaler.step(optimizer)
        if self.average is not None:
            self.average.update()
        self._logged |= detached
        self.curve.add("loss", detached)

    def features(self, backbone: Backbone, split: Split) -> Features:
        """Compute the pooled features of a whole split, without gradient, in eval mode.

        They are kept until the parameters of the backbone change. Feature maps are left out, since those of a whole
        split rarely fit in memory; :meth:`batches` provides them.

        Args:
            backbone: The backbone.
            split: N images.

        Returns:
            Features with ``pooled`` (N, D), on the run's device.
        """
        state = [*backbone.parameters(), *backbone.buffers()]
        key, version = (id(backbone), id(split)), tuple((t.data_ptr(), t._version) for t in state)
        if key not in self._features or self._features[key][0] != version:
            training = backbone.training
            backbone.eval()
            with torch.no_grad():
                found = Features(torch.cat([backbone(batch.images).pooled for batch in self.blank(split)]))
            backbone.train(training)
            # both are referenced, so that their ids are not reused
            self._features[key] = version, backbone, split, found
        return self._features[key][-1]

    def prepared(self, split: Split, rows: NDArray[np.int64], seeds: NDArray[np.int64], view: View | None) -> Tensor:
        """Some images under a view, on the device and in the form that the backbone takes. Thread-safe."""
        indices, draws = torch.from_numpy(rows), torch.from_numpy(seeds)
        (ready,) = next(load_views(split, [indices], [draws], [view], self._to))
        return cast(Tensor, ready.to(self.device))

    def blank(self, split: Split, size: int | None = None, *, ids: bool = False) -> Iterator[Batch]:
        """Iterate over batches for encoding: in order, without augmentation and without labels.

        Args:
            split: N images.
            size: Images per batch; by default at least 256.
            ids: Whether batches have the ids of the images; if not, all ids are -1.

        Yields:
            Batches whose labels are all zero.
        """
        step = size or max(256, self.train.batch)

        def groups() -> Iterator[Tensor]:  # a generator: a list of all rows would not fit in memory
            return (torch.arange(start, min(start + step, len(split))) for start in range(0, len(split), step))

        for group, ready in zip(groups(), self._load(split, groups(), groups(), [None]), strict=True):
            batch = self._batch(split, group, ready)
            kept = batch.ids if ids else torch.full_like(batch.ids, -1)
            yield replace(batch, labels=torch.zeros_like(batch.labels), ids=kept)

    def _order(self, count: int, weights: Tensor | None, shuffle: bool) -> Tensor:
        if weights is not None:
            return torch.multinomial(weights.double(), count, replacement=True, generator=self.generator)
        return torch.randperm(count, generator=self.generator) if shuffle else torch.arange(count)

    def _load(
        self, split: Split, rows: Iterable[Tensor], seeds: Iterable[Tensor], views: Sequence[View | None]
    ) -> Iterator[tuple[Any, ...]]:
        if isinstance(split.images, StoredFeatures | Vectors):
            under_view = split.images.under_view
            groups = zip(rows, seeds, strict=True)
            # each view uses the next stored draw, as long as there are enough
            return (tuple(under_view(view, group, draw + i) for i, view in enumerate(views)) for group, draw in groups)
        return load_views(split, rows, seeds, views, self._to, self._workers)

    def _batch(self, split: Split, rows: Tensor, ready: tuple[Any, ...], ends_epoch: bool = False) -> Batch:
        return Batch(
            views=tuple(
                view.to(self.device, non_blocking=True) if isinstance(view, Tensor) else view.to(self.device)
                for view in ready
            ),
            labels=split.labels[rows].to(self.device),
            ids=split.ids[rows].to(self.device),
            progress=self.progress,
            ends_epoch=ends_epoch,
        )

    def _advance(self, progress: float) -> None:
        self.progress = progress
        if progress == 1.0:  # the end of the training: set every rate to the end of its schedule
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = group["base"] * rate(self._schedule, progress)
