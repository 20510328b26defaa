"""CPU cores and main memory of this machine, and threads and processes on them."""

import math
import multiprocessing
import os
import sys
import time
import traceback
from collections import deque
from contextlib import contextmanager
from pathlib import Path

from utils.errors import TOO_MANY_FILES, InputError, first_line

CGROUP = "/sys/fs/cgroup"


def cores():
    """CPU cores that this process may use: a container may restrict it to a list of cores, or to a quota of their
    time."""
    listed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(listed, _core_quota())))


def _core_quota(cgroup=CGROUP):
    """Cores' worth of time that the container may use, infinite without a limit."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroups 2 and 1
        try:
            quota, period = " ".join(Path(cgroup, name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf
        except (OSError, ValueError, ZeroDivisionError):  # missing, or "max"
            continue
    return math.inf


def free_memory(proc="/proc", cgroup=CGROUP):
    """GB of main memory available in the machine and in the container; infinite if the system does not tell."""
    return min(_free_in_machine(proc), _free_in_container(cgroup)) / 1e9


def _free_in_machine(proc):
    try:
        lines = Path(proc, "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    except (OSError, StopIteration):
        return math.inf


def _free_in_container(cgroup):
    for limit, used, details in (
        ("memory.max", "memory.current", "memory.stat"),  # cgroups 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),  # cgroups 1
    ):
        try:
            limit, used = (int(Path(cgroup, name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in Path(cgroup, details).read_text().splitlines())
            return max(0, limit - used + int(stat.get("inactive_file", 0)))  # cached files can be dropped
        except (OSError, ValueError):  # missing, or "max"
            continue
    return math.inf


class CoreWatch:
    """Watches whether this process's `threads` computing threads get CPU cores, beside `workers` processes. Linux
    only."""

    INTERVAL = 10.0  # seconds to look at
    STARVED = 0.2  # part of them that threads wait for a core before it is reported

    def __init__(self, threads, workers=0, tasks="/proc/self/task"):
        self.threads, self.workers, self.tasks = threads, workers, Path(tasks)
        self.since, self.waited, self.reported = time.monotonic(), self._seconds_waited(), False

    def _seconds_waited(self):
        """{thread: seconds that it could have run and had no core}."""
        found = {}
        for path in self.tasks.glob("*/schedstat"):
            try:  # ns on a core, ns waiting for one, time slices
                found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):  # a thread that has just ended
                continue
        return found

    def starved(self):
        """A line to print, once, if the computing threads have waited much in the last `INTERVAL`; else None."""
        seconds = time.monotonic() - self.since
        if self.reported or seconds < self.INTERVAL:
            return None
        now = self._seconds_waited()
        waits = sorted((total - self.waited.get(thread, 0.0) for thread, total in now.items()), reverse=True)
        part = sum(waits[: self.threads]) / self.threads / seconds
        self.since, self.waited, self.reported = time.monotonic(), now, part >= self.STARVED
        if not self.reported:
            return None
        ways = ["end what else runs here"]
        ways += ["set OMP_NUM_THREADS=1"] * (self.threads > 1) + ["give fewer --workers"] * (self.workers > 1)
        return (
            f"starved of CPU cores: the computing threads waited for one {part:.0%} of the time; {', or '.join(ways)}"
        )


@contextmanager
def closing(iterator):
    """Close the iterator after the block, if it is a generator. One that holds threads would otherwise be closed by the
    garbage collector, perhaps in one of these threads, and wait for itself."""
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()


def in_order(submit, items, ahead):
    """Yield submit(item) for each item, in order, with up to `ahead` more submitted already: futures, say."""
    waiting = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


@contextmanager
def starting(what, instead):
    """Start processes in the block. If the system refuses, as without room in /dev/shm or with too many open files, end
    those that have started and raise InputError. instead: the option that does without."""
    try:
        yield
    except OSError as error:
        for process in multiprocessing.active_children():
            process.kill()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        traceback.clear_frames(error.__traceback__)  # a half-made DataLoader iterator goes here, and complains
        sys.unraisablehook = hook
        fix = "" if error.errno in TOO_MANY_FILES else ", or make room in /dev/shm and let it be written to"
        raise InputError(f"{what} cannot be started ({first_line(error)}); give {instead}{fix}") from None
