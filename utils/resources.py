"""What of the machine is left for this process: main memory, and time on its CPU cores."""

import math
import time
from pathlib import Path

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
