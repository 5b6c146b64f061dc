"""Autocast of the pretended accelerator: which functions convert their arguments to 16 bits, and which to 32."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

FLOATS = (torch.float32, torch.float16, torch.bfloat16)

#: Functions that autocast computes in 16 bits, by name (https://docs.pytorch.org/docs/stable/amp.html).
LOWER = frozenset(
    (
        *("linear", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "addmm", "addbmm", "addmv", "baddbmm"),
        *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "einsum", "prelu"),
        *("chain_matmul", "linalg_multi_dot", "scaled_dot_product_attention", "multi_head_attention_forward"),
    )
)

#: Functions that autocast computes in 32 bits.
FULL = frozenset(
    (
        *("softmax", "log_softmax", "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "kl_div"),
        *("binary_cross_entropy_with_logits", "layer_norm", "group_norm", "norm", "normalize", "cosine_similarity"),
        *("exp", "log", "log1p", "log2", "log10", "expm1", "pow", "__pow__", "reciprocal", "rsqrt", "sum", "prod"),
        *("cumsum", "cumprod", "cdist", "pdist", "dist", "softplus", "acos", "asin", "cosh", "sinh", "tan", "renorm"),
    )
)


class _Local(threading.local):
    """The precision of the innermost autocast of a thread."""

    lower: torch.dtype | None = None


class Autocast(TorchFunctionMode):
    """Replaces ``torch.autocast``: converts the tensors of ``kind`` that a function is given.

    Autocast acts before autograd, which then converts gradients back; the operations of a dispatch mode come after it.
    """

    local = _Local()

    def __init__(
        self, kind: type, dtype: torch.dtype | None = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        super().__init__()
        self.kind, self.lower = kind, (dtype or torch.float16) if enabled else None

    def __enter__(self) -> Autocast:
        """Convert from here on, or no longer if it is not enabled."""
        self.before, self.local.lower = self.local.lower, self.lower
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Convert as before."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.local.lower = self.before

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function with converted arguments."""
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        if self.local.lower is None or (name not in LOWER and name not in FULL):
            return func(*args, **kwargs)
        target = self.local.lower if name in LOWER else torch.float32

        def cast(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value.to(target) if isinstance(value, self.kind) and value.dtype in FLOATS else value
            return type(value)(map(cast, value)) if isinstance(value, list | tuple) else value

        return func(*map(cast, args), **{key: cast(value) for key, value in kwargs.items()})
