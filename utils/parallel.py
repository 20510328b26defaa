"""Cores, memory and processes of this machine: how many, how much is free, and work that runs ahead of its consumer."""

import math
import multiprocessing
import os
import time
import traceback
from collections import deque
from contextlib import contextmanager
from pathlib import Path

from utils.errors import TOO_MANY_FILES, InputError, first_line


def cores():
    """How many CPU cores this process may use: a container often allows fewer than the machine has, by a list of them or by a
    share of their time."""
    listed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(listed, _core_quota())))


def _core_quota(root="/sys/fs/cgroup"):
    """Cores' worth of time that the container may use; infinite where nothing limits it."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroups 2 and 1
        try:
            quota, period = " ".join(Path(root, file).read_text() for file in files).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf
        except (OSError, ValueError, ZeroDivisionError):  # not there, or "max"
            continue
    return math.inf


@contextmanager
def closing(iterator):
    """Close the iterator after the block, if it is a generator. One that holds threads waits for their end then: left to the
    garbage collector, which runs in any thread, it could do so in one of those threads and wait for ever."""
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()


@contextmanager
def starting(what, instead):
    """Start processes in the block: where the system refuses that, as without room in /dev/shm or with too many open files, end
    all that have started and raise InputError. instead: the option that does without."""
    try:
        yield
    except OSError as error:
        for process in multiprocessing.active_children():
            process.kill()
        for frame, _ in traceback.walk_tb(error.__traceback__):
            half_made = frame.f_locals.get("self")
            if hasattr(half_made, "_shutdown_workers"):  # torch's iterator, which would print a traceback when it goes
                half_made._shutdown = True
        mend = "" if error.errno in TOO_MANY_FILES else ", or make room in /dev/shm and let it be written to"
        raise InputError(f"{what} cannot be started ({first_line(error)}); give {instead}{mend}") from None


def in_order(submit, items, ahead):
    """Yield submit(item) for each item, in order, with up to `ahead` more items submitted already.

    With ``submit = lambda item: pool.submit(function, item)`` the results are futures, of which at most `ahead` + 1 are held.
    """
    waiting = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


STARVED = 0.2  # share of their time that threads wait for a core before it is worth a line
LONG_ENOUGH = 10.0  # seconds to look at


def free_memory(proc="/proc", cgroup="/sys/fs/cgroup"):
    """GB of main memory that can still be had, in the machine and in the container; infinite where the system does not say."""
    return min(_free_in_machine(proc), _free_in_container(cgroup)) / 1e9


def _free_in_machine(proc):
    try:  # what is free, or would be once the system drops what it keeps of files
        lines = Path(proc, "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024
    except (OSError, StopIteration):
        return math.inf


def _free_in_container(cgroup):
    for limit, used, kept in (
        ("memory.max", "memory.current", "memory.stat"),  # cgroups 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),  # cgroups 1
    ):
        try:
            limit, used = (int(Path(cgroup, name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in Path(cgroup, kept).read_text().splitlines())
            return max(0, limit - used + int(stat.get("inactive_file", 0)))  # pages of files that can be dropped
        except (OSError, ValueError):  # not there, or "max"
            continue
    return math.inf


class CoreWatch:
    """Do the `threads` of this process that compute get the cores they could compute on, beside `workers` of its own? Only Linux says."""

    def __init__(self, threads, workers=0, tasks="/proc/self/task"):
        self.threads, self.workers, self.tasks = threads, workers, Path(tasks)
        self.since, self.waited, self.reported = time.monotonic(), self._waited(), False

    def _waited(self):
        """Seconds that each thread could have run and had no core: {thread: seconds}."""
        found = {}
        for path in self.tasks.glob("*/schedstat"):
            try:  # ns on a core, ns waiting for one, turns
                found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):  # a thread that has just ended
                continue
        return found

    def starved(self):
        """A line to print, once, when the computing threads have waited much in the last `LONG_ENOUGH` seconds; else None."""
        seconds = time.monotonic() - self.since
        if self.reported or seconds < LONG_ENOUGH:
            return None
        now = self._waited()
        waits = sorted((waited - self.waited.get(thread, 0.0) for thread, waited in now.items()), reverse=True)
        share = sum(waits[: self.threads]) / self.threads / seconds
        self.since, self.waited = time.monotonic(), now
        if share < STARVED:
            return None
        self.reported = True
        ways = [
            "end what else runs here",
            *["set OMP_NUM_THREADS=1"] * (self.threads > 1),
            *["give fewer --workers"] * (self.workers > 1),
        ]
        return (
            f"starved of CPU cores: the computing threads waited for one {share:.0%} of the time; {', or '.join(ways)}"
        )
