"""What a device such as MPS lacks is computed on the CPU, with the same codes."""

from __future__ import annotations

import pytest
import torch

from hashzoo.registry import zoo
from hashzoo.testing import pretended_accelerator, synthetic_splits
from hashzoo.testing.methods import fit_and_encode
from hashzoo.training.cpu_fallback import CpuFallback, cpu_fallback

HOUSE, DATA = zoo.load_plugins(), synthetic_splits()
LACKS = ("float64", "_linalg_eigh", "linalg_qr", "_linalg_svd", "linalg_cholesky_ex")
SOLVERS = ["itq", "cca-itq", "sh", "ksh", "imh", "ssh", "s3plh", "sdh", "fsdh", "pcah"]


@pytest.mark.parametrize("name", [*SOLVERS, "dch", "csq"])
def test_a_method_gives_the_codes_of_the_cpu_where_operations_are_missing(name, capsys):
    factory = HOUSE.method(name).factory
    expected = fit_and_encode(factory, DATA, 8, "cpu")
    with pretended_accelerator(lacks=LACKS) as accelerator, CpuFallback(accelerator.device):
        found = fit_and_encode(factory, DATA, 8, accelerator.name)
    assert torch.equal(found["code"], expected["code"])
    assert capsys.readouterr().out.count("what it lacks is computed on the CPU") <= 1


def test_without_the_fallback_the_operations_fail():
    with pretended_accelerator(lacks=LACKS) as accelerator:
        x = torch.eye(3, device=accelerator.device)
        with pytest.raises(TypeError, match="cannot hold float64"):
            x.double()
        with pytest.raises(NotImplementedError, match="linalg_qr"):
            torch.linalg.qr(x)


def test_results_return_to_the_device_and_wide_ones_stay_until_they_fit(capsys):
    with pretended_accelerator(lacks=LACKS) as accelerator, CpuFallback(accelerator.device):
        x = torch.rand(3, 3, device=accelerator.device)
        assert torch.linalg.qr(x).Q.device == accelerator.device
        wide = x.double() @ x.double()
        assert wide.dtype == torch.float64
        assert (wide.float() + x).device == accelerator.device
        assert (wide > 0).device == accelerator.device
        x.copy_(wide)
        assert x.device == accelerator.device
        assert torch.ones(2).double().device.type == "cpu"
        assert not hasattr(torch.ones(2).double() + 1, "_hashzoo_off_device")
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_other_devices_need_no_fallback():
    assert not isinstance(cpu_fallback(torch.device("cuda")), CpuFallback)
    assert isinstance(cpu_fallback(torch.device("mps")), CpuFallback)
