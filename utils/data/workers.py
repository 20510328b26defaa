"""The DataLoader workers that load training samples: how many of them, the memory they share, which signals end them, and which
file a worker that died was reading."""

import functools
import math
import os
import re
import signal
import sys
import threading
from contextlib import contextmanager

import torch
from torch.multiprocessing import get_sharing_strategy
from torch.utils.data import get_worker_info

from utils.errors import InputError, data_size, listing, plural
from utils.parallel import free_memory

AHEAD = 2  # batches that a worker prepares ahead

FREE = -1  # the row of a process that is between two samples
DIED = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", re.DOTALL)  # what torch says
CAUSES = {  # a word of torch's message, what happened, what to do
    "Killed": ("was killed", "memory may have run out: give fewer --workers"),
    "Bus error": ("died", "shared memory may have run out: enlarge /dev/shm, or give fewer --workers"),
    "Segmentation fault": ("crashed", "fetch its files again, or leave its row out"),
    "": ("died", "memory may have run out: give fewer --workers"),
}


def new_ledger(workers):
    """(workers, 2) int64 in memory that all processes share: each worker's process id, and the row it holds or `FREE`."""
    return shared_tensor((workers, 2), torch.int64).fill_(FREE)


def shared_tensor(shape, dtype):
    """An uninitialised tensor in memory that processes share when it is handed from one to another.

    It lies in a file without a name (memfd_create), not in /dev/shm, where torch puts such tensors: containers have 64 MB
    of that by default, less than one batch of 64 four-channel images of 512². Where a system has no such files it lies in
    /dev/shm after all. Raises OSError or RuntimeError where there is no room.
    """
    bytes_ = math.prod(shape) * dtype.itemsize
    if not bytes_:
        return torch.empty(shape, dtype=dtype)
    if not has_memfd():
        if bytes_ > (free := free_shared_memory()):
            raise OSError(f"{data_size(free)} of /dev/shm are free, {data_size(bytes_)} are needed")
        storage = torch.UntypedStorage._new_shared(bytes_)
    else:
        file = os.memfd_create("batch", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, bytes_)
            storage = torch.UntypedStorage._new_shared_fd_cpu(file, bytes_)  # which keeps a duplicate
        finally:
            os.close(file)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


@functools.cache
def has_memfd():
    """Does this system have files without a name, and hand torch's tensors over by such files?"""
    try:
        os.close(os.memfd_create("trial"))
    except (AttributeError, OSError):  # not Linux; forbidden, as in some containers
        return False
    return get_sharing_strategy() == "file_descriptor"


def free_shared_memory():
    """Bytes of /dev/shm that are free; infinite where there is none, as on a Mac."""
    try:
        found = os.statvfs("/dev/shm")
        return found.f_bavail * found.f_frsize
    except OSError:
        return math.inf


def fit_workers(workers, batch_bytes, trainings=1):
    """Lower the number of DataLoader workers, and of batches that each prepares ahead, until those batches fit into memory:
    -> (workers, batches each). `trainings` processes on this machine do the same. Prints a line where it is less than asked for."""
    room = free_memory() * 1e9 / 2 if has_memfd() else free_shared_memory()
    most = max(0, room / trainings / batch_bytes - 1)  # one more is on its way out
    if not workers or workers * AHEAD <= most:
        return workers, AHEAD
    fewer = min(workers, int(most))
    ahead = (
        f"{plural(fewer, 'DataLoader worker')} with one batch ahead each"
        if fewer
        else "batches loaded without DataLoader workers"
    )
    print(
        f"{ahead}, instead of {plural(workers, 'worker')} with {AHEAD}: a batch takes {data_size(batch_bytes)}, and "
        f"{data_size(room)} of {'main' if has_memfd() else 'shared'} memory can be used for them"
    )
    return fewer, 1


class Start:
    """What a DataLoader calls first in each worker. The dataset's `ledger` becomes the worker's own line."""

    def __init__(self, ledger):
        self.ledger, self.parent = ledger, os.getpid()

    def __call__(self, worker):
        line = self.ledger[worker]
        line[0] = os.getpid()
        get_worker_info().dataset.ledger = line
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.excepthook = lambda *_: None  # the thread that hands memory over would complain when the main process ends
        if hasattr(signal, "sigtimedwait"):
            threading.Thread(target=_end_for_the_parent, args=[self.parent], daemon=True).start()


@contextmanager
def deaf():
    """Processes started meanwhile hear no Ctrl+C and no signal of a batch system. Both reach all processes of a training, whose
    main one may want to end its step first, and needs the others alive. (Their SIGTERM is for `Start` to hear.)"""
    if not hasattr(signal, "sigtimedwait"):  # as on macOS
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_for_the_parent(parent):
    """End this process, whatever it does, when the parent wants it or is gone."""
    while os.getppid() == parent:
        sent = signal.sigtimedwait({signal.SIGTERM}, 2)
        if sent and sent.si_pid == parent:
            break
    os._exit(0)


@contextmanager
def naming_what_they_held(loader, last):
    """Where a worker of `loader` dies meanwhile, which torch raises at any point, raise InputError with the file it held. last: the
    path of the state to go on from, which may not exist yet."""
    try:
        yield
    except RuntimeError as error:
        if not DIED.match(str(error)):
            raise
        again = f"goes on from {last}" if last.is_file() else "starts anew"
        raise InputError(f"{_obituary(loader, error)}; the same command {again}") from None


def _obituary(loader, error):
    pids = set()
    while error:  # the first cause says most
        if match := DIED.match(str(error)):
            pids |= {int(pid) for pid in match[1].split(",")}
            how = match[2].split(". ")[0].strip(" .").removeprefix("is ")
        error = error.__cause__ or error.__context__
    rows = [row for pid, row in loader.ledger.tolist() if pid in pids and row != FREE]
    held = listing([loader.dataset.files[row][0] for row in rows]) or "no image"
    fate, advice = next(cause for word, cause in CAUSES.items() if word in how)
    return f"a loading process {fate} while it held {held} ({how}); {advice}"
