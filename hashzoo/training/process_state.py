"""The global state of a process: preserved while a cell is measured, made deterministic on request."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from hashzoo.errors import UsageError
from hashzoo.hamming.packing import get_threads, set_threads

#: Makes cuBLAS sum in a fixed order; see "Results reproducibility" in https://docs.nvidia.com/cuda/cublas.
CUBLAS_SETTINGS = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@contextmanager
def preserve_process_state() -> Iterator[None]:
    """Restore the global state of the process on exit.

    This covers the global random generators, torch's default dtype and device, gradient mode, matmul precision and
    determinism, the thread counts of torch and numba, the working directory and the environment variables.
    """
    threads, compiled = torch.get_num_threads(), get_threads()
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    dtype, device, grad = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    strict, precision = torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    switches = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    environment, folder = dict(os.environ), "."
    with suppress(OSError):  # the folder can have been deleted, here and below
        folder = str(Path.cwd())
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(folder)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
        torch.set_default_dtype(dtype)
        # Set only if changed: setting a default device slows down every later call, and setting the deterministic
        # mode imports modules for seconds.
        if torch.get_default_device() != device:
            torch.set_default_device(device)
        torch.set_grad_enabled(grad)
        torch.set_float32_matmul_precision(precision)
        if torch.get_deterministic_debug_mode() != strict:
            torch.set_deterministic_debug_mode(strict)
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = switches
        torch.set_rng_state(generators[0])
        np.random.set_state(generators[1])
        random.setstate(generators[2])
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
        set_threads(compiled)
        torch.set_num_threads(threads)  # last: the first use of numba sets it too


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """If ``wanted``, use deterministic operations; an operation without a deterministic form raises UsageError.

    The settings stay on exit: use it inside :func:`preserve_process_state`.
    """
    if not wanted:
        yield
        return
    os.environ.update(CUBLAS_SETTINGS)  # cuBLAS reads them when it starts: before the first use of the GPU
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        text = str(error).split("\n")[0]
        if " does not have a deterministic implementation" in text:
            name = text.split(" does not have a deterministic implementation")[0]
        elif "not deterministic because it uses CuBLAS" in text:
            name = "matrix multiplication (cuBLAS)"
        else:
            raise
        raise UsageError(
            f"{name} has no deterministic implementation on this device, which --deterministic requires; "
            "use --device cpu or another method, or omit --deterministic"
        ) from error


def limit_threads(count: int) -> None:
    """Limit torch and numba in this process to ``count`` threads."""
    set_threads(count)
    torch.set_num_threads(count)  # last: the first use of numba sets the count of the OpenMP that both use
