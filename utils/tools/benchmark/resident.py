"""How much memory processes hold, as Linux tells it; elsewhere most of it is not known."""

import contextlib
import multiprocessing
import os
import threading
from pathlib import Path

from utils.device import peak_memory

PAUSE = 0.1  # seconds between two looks


@contextlib.contextmanager
def looking(largest):
    """Beside what is done inside, look at this process and those it has started; keep the largest of each in `largest`."""
    over = threading.Event()

    def look():
        pids = [os.getpid(), *(process.pid for process in multiprocessing.active_children())]
        for number, pid in enumerate(pids):
            name, now = f"loading {number}" if number else "training", resident(pid)
            if now and now["resident_mb"] > largest.get(name, {"resident_mb": 0})["resident_mb"]:
                largest[name] = now

    def keep_looking():
        while not over.wait(PAUSE):
            look()
        look()

    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def resident(pid):
    """MB that a process holds in memory: in all, written by it alone, shared with others (batches, what a forked process has
    of its parent), pages of files as they are on the disk, and of these the packed ones. None where the system does not say."""
    try:
        rollup, maps = (Path(f"/proc/{pid}/{name}").read_text() for name in ("smaps_rollup", "smaps"))
    except OSError:
        return None
    kb = {line.split(":")[0]: int(line.split()[1]) for line in rollup.splitlines()[1:]}
    packed, inside = 0, False
    for line in maps.splitlines():
        if "-" in line.split(" ", 1)[0]:  # the head of a mapping: its addresses, … and file
            inside = line.endswith(".bin")
        elif inside and line.startswith("Rss:"):
            packed += int(line.split()[1])
    parts = {
        "own_mb": kb["Private_Dirty"],
        "shared_mb": kb["Shared_Dirty"],
        "files_mb": kb["Private_Clean"] + kb["Shared_Clean"],
    }
    return {
        name: value * 1024 / 1e6 for name, value in ({"resident_mb": kb["Rss"]} | parts | {"packed_mb": packed}).items()
    }


def most_memory(device):
    """GB that this process has taken at most, on a GPU there; None where the system does not say."""
    if device.type != "cuda":
        try:  # what getrusage says begins with the memory of the process that started this one
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024 / 1e9
        except (OSError, StopIteration):
            pass
    peak = peak_memory(device)
    return peak if peak == peak else None
