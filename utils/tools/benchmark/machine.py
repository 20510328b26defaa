"""What was measured on: without it a figure says nothing."""

import datetime
import os
import platform
from pathlib import Path

import torch

from utils.opencv import cv2
from utils.parallel import cores


def describe(device, amp):
    """Words and numbers for the JSON; None for what the system does not say."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": _cpu(), "cores": cores(), "memory_gb": _memory(), "gpu": gpu, "device": str(device),
        "arithmetic": str(amp or torch.float32).removeprefix("torch."), "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }  # fmt: skip


def report(machine):
    memory = f", {machine['memory_gb']:.0f} GB" if machine["memory_gb"] else ""
    print(
        f"{machine['cpu'][:40]}, {machine['cores']} cores{memory}; {machine['gpu'] or 'no GPU'}; {machine['arithmetic']}"
    )
    print(f"torch {machine['torch']}, Python {machine['python']}, {machine['date']}")
    if (machine["load_before"] or 0) > machine["cores"] / 4:
        print(f"the machine is not idle (load {machine['load_before']:.1f}): trust the ratios rather than the times")


def _cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory():
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, OSError, ValueError):  # Windows
        return None
