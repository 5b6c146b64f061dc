"""The device of tests that must pass on a GPU: pretended by default, a real one with ``pytest -m gpu``."""

from __future__ import annotations

import pytest
import torch

from hashzoo.testing import pretended_accelerator


def require_gpu():
    """Skip the test where there is no GPU."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device, and torch finds none here")


def in_use(kind):
    """Yield the name of a device that is in use."""
    if kind == "cuda":
        require_gpu()
        yield "cuda"
    else:
        with pretended_accelerator() as accelerator:
            yield accelerator.name
