"""A GPU that the installed torch was not built for is refused when it is picked, not at its first kernel."""

import pytest
import torch

from utils import device
from utils.errors import InputError

NEW = "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"  # of torch for CUDA 12.8
BUILT_FOR = [((7, 5), NEW), ((8, 9), NEW), ((7, 2), NEW), ((6, 1), "sm_60"), ((9, 0), "sm_90a"), ((10, 3), "sm_100f")]
BUILT_FOR += [((12, 1), "sm_80 compute_90"), ((6, 0), "gfx90a"), ((6, 0), "")]
NOT_BUILT_FOR = [((6, 0), NEW), ((6, 0), "sm_61"), ((5, 2), "sm_60"), ((12, 0), "sm_90a compute_90a")]
NOT_BUILT_FOR += [((12, 0), "sm_100f"), ((7, 0), "sm_80 compute_80")]


def imitate_gpu(monkeypatch, capability, built):
    for name, value in {"is_available": True, "device_count": 1, "current_device": 0}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built.split())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla P100-PCIE-16GB")


@pytest.mark.parametrize("capability, built", BUILT_FOR)
def test_a_gpu_that_torch_was_built_for_is_taken(monkeypatch, capability, built):
    imitate_gpu(monkeypatch, capability, built)
    device.check_built_for("cuda")


@pytest.mark.parametrize("capability, built", NOT_BUILT_FOR)
def test_another_gpu_is_refused_when_it_is_picked(monkeypatch, capability, built):
    imitate_gpu(monkeypatch, capability, built)
    wanted = f"not built for Tesla P100-PCIE-16GB.*sm_{capability[0]}{capability[1]}.*T4 x2.*--device cpu"
    with pytest.raises(InputError, match=wanted):
        device.pick_device("cuda")
