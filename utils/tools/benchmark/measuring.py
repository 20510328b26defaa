"""Measure time and memory, and describe the machine."""

import contextlib
import datetime
import os
import platform
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.device import peak_memory
from utils.parallel import cores


def seconds_of(function, device):
    """-> seconds that `function` takes, including its work on a GPU."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    start = time.perf_counter()
    function()
    wait(device)
    return time.perf_counter() - start


def take_turns(functions, repeats, device, title):
    """Time `repeats` calls of each of `functions` {name: function}, after one untimed call: -> {name: median seconds}.
    The order alternates (ABBA), so that a machine that becomes slower affects all functions alike."""
    seconds = {name: [] for name in functions}
    for turn in tqdm(range(-1, repeats), desc=title, disable=None, leave=False):
        for name in list(functions)[:: -1 if turn % 2 else 1]:
            seconds[name].append(seconds_of(functions[name], device))
    return {name: float(np.median(values[1:])) for name, values in seconds.items()}


def median_seconds(function, repeats, device, enough=float("inf")):
    """-> median seconds of up to `repeats` calls after an untimed one. Calls stop after `enough` seconds in all."""
    function()
    seconds = []
    while len(seconds) < repeats and sum(seconds) < enough:
        seconds.append(seconds_of(function, device))
    return float(np.median(seconds))


def peak_gb(device):
    """-> peak memory of this process in GB (on a GPU: of its tensors), or None if the system does not report it."""
    if device.type != "cuda":
        with contextlib.suppress(OSError, KeyError):  # getrusage would include the memory of the parent process
            return _read_kb("/proc/self/status")["VmHWM"] / 1e6
    peak = peak_memory(device)
    return None if np.isnan(peak) else peak


def resident_mb(pid):
    """-> MB of a process: total, private, shared (batches, pages of its parent), files; None if not reported."""
    try:
        kb = _read_kb(f"/proc/{pid}/smaps_rollup")
    except OSError:
        return None
    parts = {"resident_mb": kb["Rss"], "own_mb": kb["Private_Dirty"], "shared_mb": kb["Shared_Dirty"]}
    parts["files_mb"] = kb["Private_Clean"] + kb["Shared_Clean"]
    return {name: value * 1.024 / 1000 for name, value in parts.items()}


def _read_kb(path):
    """Read a file with lines such as `VmHWM:   1234 kB`: -> {name: number}."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].removesuffix(":"): int(words[1]) for words in lines if words[-1] == "kB"}


def describe_machine(device, amp):
    """Describe the machine for the JSON; a value that the system does not report is None."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else None,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "arithmetic": arithmetic_name(amp),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _processor():
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def arithmetic_name(amp):
    return str(amp or torch.float32).removeprefix("torch.")


def print_machine(machine):
    memory = f", {machine['memory_gb']:.0f} GB" if machine["memory_gb"] else ""
    gpu = machine["gpu"] or "no GPU"
    print(f"{machine['cpu'][:40]}, {machine['cores']} cores{memory}; {gpu}; {machine['arithmetic']}")
    print(f"torch {machine['torch']}, Python {machine['python']}, {machine['date']}")
    if (machine["load_before"] or 0) > machine["cores"] / 4:
        print(f"the machine is busy (load {machine['load_before']:.1f}): the ratios are more reliable than the times")
