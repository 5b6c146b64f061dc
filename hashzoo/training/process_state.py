"""What a process shares among all that runs in it: put back after a cell, and made deterministic where asked."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from hashzoo.errors import UsageError
from hashzoo.hamming import counting

#: What cuBLAS must be told to sum in one order; https://docs.nvidia.com/cuda/cublas has the meaning.
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


@contextmanager
def untouched() -> Iterator[None]:
    """Whatever is done inside, the process is afterwards as it was before.

    That is: the state of every global generator, torch's default dtype and device, gradient mode, precision and
    determinism, the threads of torch and of the compiled loops, the working directory and the environment.
    """
    threads, compiled = torch.get_num_threads(), counting.get_threads()
    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    dtype, device, grad = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    strict, precision = torch.get_deterministic_debug_mode(), torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    switches = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    environment, folder = dict(os.environ), "."
    with suppress(OSError):  # the folder may be gone, here as below
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
        # these two only where they changed: a default device that is set slows each call, even that of the start,
        # and the switch of determinism takes seconds to import what it switches
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
        counting.set_threads(compiled)
        torch.set_num_threads(threads)  # last: the compiled loops' start sets it too


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Where wanted, an operation that has no deterministic form is a UsageError that names it.

    Left set behind: :func:`untouched` is what puts it back.
    """
    if not wanted:
        yield
        return
    os.environ.update(WORKSPACE)  # read when cuBLAS starts, so in a process that has not used the GPU yet
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        text = str(error).split("\n")[0]
        if " does not have a deterministic implementation" in text:
            name = text.split(" does not have a deterministic implementation")[0]
        elif "not deterministic because it uses CuBLAS" in text:
            name = "a product of matrices (cuBLAS)"
        else:
            raise
        raise UsageError(
            f"{name} has no deterministic form here, and --deterministic asks for one; "
            "take --device cpu or another method, or leave --deterministic out"
        ) from error


def limit_threads(count: int) -> None:
    """Let this process compute with ``count`` threads, whatever other cells run beside it."""
    counting.set_threads(count)
    torch.set_num_threads(count)  # last: numba's start sets the number of the OpenMP that both use
