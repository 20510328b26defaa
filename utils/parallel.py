"""CPU cores and main memory of this machine, and its threads and processes."""

import math
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from utils.errors import TOO_MANY_FILES, InputError, first_line

CGROUP = "/sys/fs/cgroup"


def cores():
    """Return the number of CPU cores available to this process: its affinity or the container's quota may limit it."""
    listed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(listed, _core_quota())))


def _core_quota(cgroup=CGROUP):
    """Return the container's CPU quota in cores, infinite without one."""
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # cgroups 2 and 1
        try:
            quota, period = " ".join(Path(cgroup, name).read_text() for name in names).split()
            return int(quota) / int(period) if int(quota) > 0 else math.inf
        except (OSError, ValueError, ZeroDivisionError):  # missing, or "max"
            continue
    return math.inf


def free_memory(proc="/proc", cgroup=CGROUP):
    """Return the GB of main memory that the machine and the container have free; infinite if unknown."""
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
    """Detect that this process's `threads` computing threads wait for CPU cores. workers: DataLoader workers beside
    them. Linux only."""

    INTERVAL = 10.0  # seconds between measurements
    STARVED = 0.2  # fraction of the time that threads wait for a core from which it is reported

    def __init__(self, threads, workers=0, tasks="/proc/self/task"):
        self.threads, self.workers, self.tasks = threads, workers, Path(tasks)
        self.since, self.waited, self.reported = time.monotonic(), self._seconds_waited(), False

    def _seconds_waited(self):
        """Return {thread: seconds that it was runnable without a core}."""
        found = {}
        for path in self.tasks.glob("*/schedstat"):
            try:  # ns on a core, ns waiting for one, time slices
                found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
            except (OSError, ValueError, IndexError):  # a thread that has just ended
                continue
        return found

    def starved(self):
        """Return a message, once, if the computing threads have waited too long since the last measurement, or None."""
        seconds = time.monotonic() - self.since
        if self.reported or seconds < self.INTERVAL:
            return None
        now = self._seconds_waited()
        waits = sorted((total - self.waited.get(thread, 0.0) for thread, total in now.items()), reverse=True)
        part = sum(waits[: self.threads]) / self.threads / seconds
        self.since, self.waited, self.reported = time.monotonic(), now, part >= self.STARVED
        if not self.reported:
            return None
        fixes = ["end other programs"]
        fixes += ["set OMP_NUM_THREADS=1"] * (self.threads > 1) + ["give fewer --workers"] * (self.workers > 1)
        return f"starved of CPU cores: the computing threads waited {part:.0%} of the time; {', or '.join(fixes)}"


@contextmanager
def closing(iterator):
    """Close the iterator after the block, if it is a generator. Otherwise the garbage collector may close a generator
    that owns threads in one of these threads, which then waits for itself."""
    try:
        yield iterator
    finally:
        getattr(iterator, "close", lambda: None)()


def in_order(submit, items, ahead):
    """Yield submit(item), such as a future, for each item in order, with up to `ahead` more already submitted."""
    waiting = deque()
    for item in items:
        waiting.append(submit(item))
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting


@contextmanager
def starting(what, instead):
    """Start processes in the block. If that fails, as with a full /dev/shm or too many open files, end those that have
    started and raise InputError. instead: the option that needs no processes."""
    try:
        yield
    except OSError as error:
        for process in multiprocessing.active_children():
            process.kill()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        traceback.clear_frames(error.__traceback__)  # deletes an incomplete DataLoader iterator, which prints an error
        sys.unraisablehook = hook
        fix = "" if error.errno in TOO_MANY_FILES else ", or free space in /dev/shm and make it writable"
        raise InputError(f"{what} cannot be started ({first_line(error)}); give {instead}{fix}") from None


def in_processes(function, jobs, workers, what):
    """Yield function(job) of each job in order, computed in `workers` processes; a single one is this process. what: the name
    of such a process in messages."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from map(function, jobs)
        return
    with starting(f"{what}es", "--workers 1"):
        pool = ProcessPoolExecutor(workers, initializer=_leave_ctrl_c)
    try:
        with starting(f"{what}es", "--workers 1"):
            results = pool.map(function, jobs)
        yield from results
    except BrokenProcessPool as error:
        raise InputError(f"a {what} was killed, perhaps for lack of memory; give fewer --workers") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl+C and stops the others


def side_by_side(jobs, slots):
    """Run jobs at the same time, at most one in each slot: yield the position of each when it is done.

    jobs: iterators of commands, each started when the one before has succeeded: (words, file that its output is appended
    to). slots: the environment variables of each slot. Raise InputError if a command fails. However this ends, commands that
    still run are sent SIGTERM and waited for.
    """
    waiting, free, running = deque(enumerate(jobs)), list(slots), []
    try:
        while waiting or running:
            while waiting and free:
                running.append(_Job(*waiting.popleft(), free.pop(0)))
            for job in list(running):
                if not job.advance():
                    running.remove(job)
                    free.append(job.slot)
                    yield job.position
            time.sleep(0.05)
    finally:
        for job in running:
            job.end()
        for job in running:
            job.wait()


class _Job:
    """A job of `side_by_side`. Its processes do not receive the terminal's signals: the first to arrive would be Ctrl+C, and SIGTERM
    the second."""

    def __init__(self, position, commands, slot):
        self.position, self.commands, self.slot, self.process = position, iter(commands), slot, None

    def advance(self):
        """Start the next command if none is running: -> False after the last one."""
        if self.process and self.process.poll() is None:
            return True
        if self.process and self.process.returncode:
            lines = Path(self.log).read_text(errors="replace").strip().splitlines() or ["no output"]
            raise InputError(f"{shlex.join(self.words)} failed: {lines[-1]} ({self.log})")
        self.process = None
        try:
            words, self.log = next(self.commands)
        except StopIteration:
            return False
        self.words = [str(word) for word in words]
        Path(self.log).parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "ab") as log:
            streams = dict(stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            self.process = subprocess.Popen(self.words, env=os.environ | self.slot, **streams)
        return True

    def end(self):
        if self.process:
            self.process.terminate()

    def wait(self):
        if self.process:
            self.process.wait()
