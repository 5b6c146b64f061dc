"""The contract of methods. ``hashzoo check`` prints the findings."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hashzoo.errors import UsageError, status_of
from hashzoo.evaluation.metrics import score
from hashzoo.evaluation.scoring import encode
from hashzoo.hamming.counting import distance_counts
from hashzoo.hamming.packing import set_threads
from hashzoo.hamming.relevance import relevance
from hashzoo.index import Index
from hashzoo.method import Card, Method
from hashzoo.run import Run
from hashzoo.testing.accelerator import problem_on_accelerator
from hashzoo.testing.fixtures import Finding, Probe, range_findings, run_checks, signature_problem, synthetic_splits
from hashzoo.training.budget import Budget
from hashzoo.training.process_state import preserve_process_state
from hashzoo.types import Codes, Splits

CHECKS: tuple[str, ...] = (
    "signature", "rows", "bits", "seeded", "state", "batch", "budget", "labels", "inputs", "level",
    "accelerator", "collapse",
)  # fmt: skip
NO_CARD = (
    "no card is given, so the method counts as deep and trained on class labels; declare otherwise with "
    "card = Card('shallow', 'none')"
)
FLOAT_NOISE = 0.005  # share of bits that can differ because sums were computed in another order
ACCELERATED = 96  # training images of the fit on the accelerator
#: Several labels, bits and rate of the short trainings after which codes must differ.
SHORT = ((False, 16, 1e-2), (False, 64, 1e-4), (True, 16, 1e-4), (True, 64, 1e-2))
MOST = 0.5  # largest share of images that may have one code
MARGIN = 1.25  # multiple of the chance level that an informative code exceeds


class _Check:
    """The checks of one method. Each ``check_`` method returns the problem, or an empty string."""

    def __init__(self, factory: Callable[..., Method], bits: int, multilabel: bool) -> None:
        card = getattr(factory, "card", None)
        self.card = card if isinstance(card, Card) else Card()
        self.factory, self.data = factory, synthetic_splits(multilabel or not self.card.single)
        self.setting = self.data.setting(bits)
        epochs = 4 if self.card.views else 12  # views of images take most of the time
        self.train = Budget(epochs=epochs, batch=32, lr=1e-3)  # type: ignore[call-arg]
        self.method, self.run = self.fit(0)
        self.require_tensors()
        self.codes = encode(self.run, self.method, self.data.query)

    def build(self, seed: int) -> tuple[Method, Run]:
        torch.manual_seed(seed)
        backbone = Probe()
        return self.factory(self.setting, backbone), Run(self.train, seed, to=backbone.input)

    def fit(self, seed: int) -> tuple[Method, Run]:
        method, run = self.build(seed)
        method.train()
        method.fit(self.data.train, run)
        return method.eval(), run

    def require_tensors(self) -> None:
        """Raise UsageError unless encode returns a dict of tensors, which the other checks assume."""
        batch = next(self.run.blank(self.data.query))
        with torch.no_grad():
            codes: Any = self.method.encode(batch)
        fix = "return a dict such as {'code': hashzoo.bits(x)} with x (B, K)"
        if not isinstance(codes, dict) or not codes:
            raise UsageError(f"encode returned {_type_name(codes) if codes != {} else 'an empty dict'}: {fix}")
        for name, values in codes.items():
            if not isinstance(values, Tensor):
                raise UsageError(f"encode returned {name!r} as {_type_name(values)}, not as a torch tensor: {fix}")
            if values.ndim == 0 or (values.ndim == 1 and values.dtype == torch.bool):
                shape = tuple(values.shape)
                raise UsageError(f"encode returned {name!r} of shape {shape} for {len(batch)} images: {fix}")

    def check_signature(self) -> str:
        """Hyperparameters are keyword-only."""
        return signature_problem(self.factory, "setting", "backbone")

    def check_rows(self) -> str:
        """Codes have one row per image."""
        for name, values in self.codes.items():
            if len(values) != len(self.data.query):
                transposed = values.shape == (self.setting.bits, len(self.data.query))
                hint = ": it is (K, B) and must be (B, K)" if transposed else ": return one row per image"
                return f"encode returned {len(values)} rows of {name!r} for {len(self.data.query)} images{hint}"
        return ""

    def check_bits(self) -> str:
        """At least one code consists of bits."""
        bit_codes = [name for name, values in self.codes.items() if values.dtype == torch.bool and values.ndim == 2]
        if bit_codes or self.card.beyond:
            return ""
        kinds = ", ".join(f"{name}: {values.dtype}" for name, values in self.codes.items())
        return f"encode returned no bits ({kinds}): return bool tensors (B, K), as hashzoo.bits makes them"

    def check_seeded(self) -> str:
        """Two fits with the same seed agree, whatever the state of global generators."""
        random.seed(12345)
        np.random.seed(54321)
        method, run = self.fit(0)
        share = _differing(self.codes, encode(run, method, self.data.query))
        if share == 0:
            return ""
        return f"two fits of one seed differ in {share:.1%} of the code: draw random numbers from run.generator only"

    def check_state(self) -> str:
        """state_dict contains everything that encoding needs."""
        method, run = self.build(1)
        fix = "store what fit computes with register_buffer"
        try:
            method.load_state_dict(self.method.state_dict())
        except RuntimeError as error:
            return f"state_dict does not load into a new method: {str(error).splitlines()[-1].strip()}"
        try:
            share = _differing(self.codes, encode(run, method, self.data.query))
        except Exception as error:  # usually a missing attribute that fit sets
            return f"a method restored from state_dict fails to encode: {status_of(error)[1]}: {fix}"
        if share <= FLOAT_NOISE:
            return ""
        return f"a method restored from state_dict differs in {share:.1%} of the code: {fix}"

    def check_batch(self) -> str:
        """The code of an image does not depend on its batch."""
        order = torch.randperm(len(self.data.query), generator=torch.Generator().manual_seed(1))
        shuffled = encode(self.run, self.method, self.data.query.take(order), size=7)
        if any(len(values) != len(order) for values in shuffled.values()):
            return "encode returned another number of rows for other batches: return one row per image"
        back = {name: values[order.argsort()] for name, values in shuffled.items()}
        share = _differing(self.codes, back)
        if share <= FLOAT_NOISE:
            return ""
        return f"{share:.1%} of the code depends on the other images of a batch: use statistics that fit has computed"

    def check_budget(self) -> str:
        """An image takes as many bits as requested."""
        index = self.method.index()
        index.add(self.codes)
        beyond = self.card.beyond or self.method.card.beyond  # an option of the method can add to what it stores
        if beyond or index.stored_bits() == self.setting.bits:
            return ""
        return (
            f"{index.stored_bits()} bits per image are stored, but {self.setting.bits} were requested: "
            "store setting.bits, or give the reason in Card(beyond=...)"
        )

    def check_labels(self) -> str:
        """Encoding does not depend on labels and ids."""
        share = 0.0
        for part in (self.data.query, self.data.train):  # a table with one row per training image would know their ids
            blank = encode(self.run, self.method, part, ids=self.card.saw_database)
            (batch,) = self.run.blank(part)  # one batch, as above
            with torch.no_grad():
                visible = self.method.encode(replace(batch, labels=part.labels, ids=part.ids))
            share = max(share, _differing(blank, visible))
        known = "labels" if self.card.saw_database else "labels or ids"
        if share == 0:
            return ""
        return (
            f"{share:.1%} of the code depends on the {known} of the encoded images: "
            "encode from batch.images alone; a benchmark hides the rest"
        )

    def check_inputs(self) -> str:
        """Neither the training set nor batches are changed in place."""
        fresh, batch = synthetic_splits(self.data.multilabel), next(self.run.blank(self.data.query))
        for name in ("images", "labels", "ids"):
            if not torch.equal(getattr(self.data.train, name), getattr(fresh.train, name)):
                return f"fit changed the {name} of train in place: work on a copy, such as x = x.clone()"
        before = batch.images.clone()
        with torch.no_grad():
            self.method.encode(batch)
        same = torch.equal(before, batch.images)
        return "" if same else "encode changed batch.images in place: write x = x - mean, not x -= mean"

    def check_level(self) -> str:
        """Retrieval is better than chance."""
        if not self.card.informative:
            return ""
        index = self.method.index()
        index.add(encode(self.run, self.method, self.data.database))
        labels = [part.labels.numpy() for part in (self.data.query, self.data.database)]
        prepared = relevance(*labels, multi_hot=True)
        reached = float(score(index.counts(self.codes, prepared), ["map@all"])["map@all"].mean())
        tied = distance_counts(np.zeros((len(self.data.query), len(self.data.database))), prepared)
        chance = float(score(tied, ["map@all"])["map@all"].mean())
        if reached > min(MARGIN * chance, (1 + chance) / 2):
            return ""
        return (
            f"map@all is {reached:.3f} on images that are easy to distinguish, where chance is {chance:.3f}: "
            "make sure that fit trains the method and that encode uses the result"
        )

    def check_collapse(self) -> str:
        """No code is that of most images, also after short trainings at high and low rates; not for shallow methods."""
        if self.card.collapses or not self.card.informative:
            return ""
        if self.card.kind == "shallow":
            share = most_frequent(self.method.index(), self.codes, self.setting.bits)
            return "" if share <= MOST else f"{share:.0%} of the images have one code: center what is binarized"
        for multilabel, bits, rate in SHORT:
            if not (self.card.multilabel if multilabel else self.card.single):
                continue
            share = share_of_one_code(self.factory, bits, multilabel, rate)
            if share > MOST:
                labels = "several labels" if multilabel else "one label"
                return (
                    f"{share:.0%} of images with {labels} have one code of {bits} bits after a short training at the "
                    f"rate {rate:g}: normalize what tanh and the loss receive, such as with BatchNorm1d, or give the "
                    "reason in Card(collapses=...)"
                )
        return ""

    def check_accelerator(self) -> str:
        """fit and encode run on an accelerator."""
        return problem_on_accelerator(partial(fit_and_encode, self.factory, self.data, self.setting.bits))


def fit_and_encode(factory: Callable[..., Method], data: Splits, bits: int, device: str) -> Codes:
    """The codes of the queries by a method that was trained for an epoch on few images, on a device."""
    torch.manual_seed(0)
    backbone, few = Probe(), data.train.take(torch.arange(min(ACCELERATED, len(data.train))))
    run = Run(Budget(epochs=1, batch=32, lr=1e-3), 0, to=backbone.input, device=device)  # type: ignore[call-arg]
    method = factory(data.setting(bits), backbone).to(run.device).train()
    method.fit(few, run)
    return encode(run, method.eval(), data.query)


def share_of_one_code(
    factory: Callable[..., Method], bits: int, multilabel: bool, rate: float, epochs: int = 4
) -> float:
    """The share of the images that have the most frequent code, after a training on the small synthetic dataset."""
    data = synthetic_splits(multilabel)
    torch.manual_seed(0)
    backbone = Probe()
    method = factory(data.setting(bits), backbone).train()
    run = Run(Budget(epochs=epochs, batch=16, lr=rate), 0, to=backbone.input)  # type: ignore[call-arg]
    method.fit(data.train, run)
    return most_frequent(method.eval().index(), encode(run, method, data.database), bits)


def most_frequent(index: Index, codes: Codes, bits: int) -> float:
    """The largest share of images with one code, of the codes of ``bits`` bits or more that an index keeps."""
    names = index.reads() or tuple(codes)
    kept = [v for n, v in codes.items() if n in names and v.dtype == torch.bool and v.ndim == 2 and v.shape[1] >= bits]
    counts = [torch.unique(code, dim=0, return_counts=True)[1] for code in kept]
    return max((float(count.max() / count.sum()) for count in counts), default=0.0)


def _type_name(value: object) -> str:
    """The name of a value's type, such as ``Tensor`` or ``numpy.ndarray``.

    >>> _type_name(np.zeros(1)), _type_name([1])
    ('numpy.ndarray', 'list')
    """
    module = type(value).__module__.split(".")[0]
    return type(value).__name__ if module in ("builtins", "torch") else f"{module}.{type(value).__name__}"


def _differing(a: Codes, b: Codes) -> float:
    """The largest share of different entries of a code; real values differ if they are not close."""
    if a.keys() != b.keys() or any(a[name].shape != b[name].shape for name in a):
        return 1.0

    def share(x: Tensor, y: Tensor) -> float:
        unequal = ~torch.isclose(x, y, rtol=1e-3, atol=1e-4) if x.is_floating_point() else x != y
        return float(unequal.float().mean())

    return max(share(a[name], b[name].to(a[name].device)) for name in a)


def check_method(factory: Callable[..., Method], *, bits: int = 16, multilabel: bool = False) -> list[Finding]:
    """Check the contract of a method by fitting it to a small synthetic dataset.

    Args:
        factory: Called as ``factory(setting, backbone)``; every hyperparameter has a default.
        bits: The length of the codes.
        multilabel: Whether images have several labels; always so for a method whose card requires it.

    Returns:
        A finding per check. ``fit and encode``: both run. ``signature``: hyperparameters are keyword-only. ``rows``: a
        code has one row per image. ``bits``: a code consists of bits. ``seeded``: two fits of one seed agree.
        ``state``: ``state_dict`` holds all that encoding needs. ``batch``: the code of an image does not depend on the
        other images of its batch. ``budget``: an image takes ``bits`` bits. ``labels``: encoding uses neither labels
        nor ids. ``inputs``: neither the training set nor batches are changed in place. ``level``: retrieval is better
        than chance on images that are easy to distinguish. ``accelerator``: ``fit`` and ``encode`` run on a GPU, which
        :func:`hashzoo.testing.accelerator.pretended_accelerator` pretends. ``process state``: no global setting
        changes. ``collapse``: no code is that of more than half of the images, also after short trainings. ``ranges``,
        if it declares any: a range holds its default. ``card``: a note if the method has no card. Only ``fit and
        encode`` if the method cannot be fitted. No exception of the method is raised, and the global state of the
        process is restored.
    """
    threads = torch.get_num_threads()
    set_threads(threads)  # the first use of numba would change the number of torch's threads
    torch.set_num_threads(threads)
    before = _process_state()
    with preserve_process_state():
        try:
            check = _Check(factory, bits, multilabel)
        except (Exception, SystemExit) as error:
            why = (
                signature_problem(factory, "setting", "backbone")
                if isinstance(error, TypeError | AttributeError)
                else ""
            )
            return [Finding("fit and encode", False, why or status_of(error)[1])]
        findings = [Finding("fit and encode", True)]
        findings += run_checks({name: getattr(check, f"check_{name}") for name in CHECKS})
        changed = [name for name, value in _process_state().items() if value != before[name]]
    why = f"fit or encode changed the {', '.join(changed)} of the process: restore it" if changed else ""
    findings.append(Finding("process state", not changed, why))
    card = getattr(factory, "card", None)
    has_card = isinstance(card, Card) and card is not Method.card
    findings += range_findings(factory)
    return findings if has_card else [*findings, Finding("card", True, NO_CARD)]


#: Variables that scikit-learn and torch set when a method imports parts of them.
IMPORT_VARIABLES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR")


def _process_state() -> dict[str, Any]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradient mode": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "working folder": str(Path.cwd()),
        "environment": {name: value for name, value in os.environ.items() if name not in IMPORT_VARIABLES},
    }
