"""Batches of samples, from DataLoader workers for training and from threads for prediction; crashes of workers.

A batch is a dict:
    images   (sum of tiles, C, S, S) uint8, or float32 in [0, 1] if a file has 16 bits; channels last in memory
    tiles    (B,) int64, the number of tiles of each sample
    mean,std (sum of tiles, planes) float32, statistics of each tile, or of its whole image (per-image normalisation only)
    rows     (B,) int64, positions in the list of files; ~position for padding (see distributed.py)
    targets  (B, classes) float32 (only with labels)
    whole    int, samples of the batch over all processes (only with several)
"""

import functools
import math
import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch.utils.data import BatchSampler, DataLoader, Sampler, get_worker_info

from utils.data.dataset import IDLE
from utils.data.sampling import count_repeats
from utils.device import keep_freed_memory
from utils.distributed import SINGLE_PROCESS, DistributedBatchSampler
from utils.errors import InputError, data_size, explain_system_error, first_line, listing, plural
from utils.parallel import closing, cores, free_memory, in_order, starting

AHEAD = 2  # batches prepared ahead, by each worker or by all threads together


class EpochOrder(Sampler):
    """Yield keys (epoch, row, step, repeat) of `rows` after the first `skip`; `shuffle` seeds the order with (seed, epoch).

    step: batches of `batch_size` before the sample's, in this epoch and in those before it, of `steps` batches each. repeat: see
    `dataset.Key`. sampler: a `RowSampler` that draws the rows of each epoch, None: all of them once. Set `epoch` and `skip` before
    each pass.
    """

    def __init__(self, rows, seed=0, shuffle=False, batch_size=1, steps=0, sampler=None):
        self.rows, self.seed, self.shuffle, self.epoch, self.skip = rows, seed, shuffle, 0, 0
        self.batch_size, self.steps, self.sampler = batch_size, steps, sampler

    def __len__(self):
        return len(self.sampler or self.rows)

    def __iter__(self):
        rng = np.random.default_rng((self.seed, self.epoch))
        rows = self.sampler.rows(self.epoch, rng) if self.sampler else np.array(self.rows, dtype=np.int64)
        if self.shuffle:
            rng.shuffle(rows)
        before = max(0, self.epoch - 1) * self.steps
        steps = before + np.arange(len(rows)) // self.batch_size
        keys = zip(rows.tolist(), steps.tolist(), count_repeats(rows).tolist(), strict=True)
        return iter([(self.epoch, *key) for key in keys][self.skip :])


def make_loader(samples, batch_size, workers, device, shuffle=False, context=SINGLE_PROCESS, sampler=None):
    """Make a loader of the batches of `samples`, or of this process's shards. Its `order` is an `EpochOrder`.

    At most `workers` persistent processes load samples that are augmented or shuffled (0: this process), and `workers`
    threads all others: reading and decoding release the interpreter lock, and threads need not copy batches between
    processes. With `shuffle`, a last batch of a single image is dropped, a different image each epoch. sampler: as of
    `EpochOrder`, with `shuffle` only.
    """
    if not samples.augment and not shuffle:
        rows = range(context.rank, len(samples), context.world_size)
        return ThreadedLoader(samples, batch_size, EpochOrder(rows), workers, device)
    draws = len(sampler or samples)
    drop_last = shuffle and _last_is_single(draws, batch_size)
    steps = count_steps(draws, batch_size) if shuffle else 0
    order = EpochOrder(range(len(samples)), samples.seed, shuffle, batch_size, steps, sampler)
    batches = BatchSampler(order, batch_size, drop_last)
    workers, prefetch = fit_workers(
        workers, samples.bytes_each() * -(-batch_size // context.world_size), context.local_world_size
    )
    reading = shared_tensor((workers, 2), torch.int64).fill_(IDLE)
    loader = DataLoader(
        samples,
        batch_sampler=DistributedBatchSampler(batches, context) if context.world_size > 1 else batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=prefetch if workers else None,
        worker_init_fn=functools.partial(init_worker, reading, os.getpid()) if workers else None,
        generator=torch.Generator(),  # the default one is for dropout
    )
    # reading: (workers, 2), each worker's process id and the row that it reads, or IDLE
    loader.order, loader.reading, loader.processes = order, reading, set()
    return loader


def _last_is_single(images, batch_size):
    """Whether the last batch would be a single image, from which batch norm cannot learn."""
    return images > batch_size and images % batch_size == 1


def count_steps(images, batch_size):
    """The number of batches in an epoch of training."""
    return -(-images // batch_size) - _last_is_single(images, batch_size)


def begin_epoch(loader, epoch, skip=0):
    """Start an epoch of the training loader after its first `skip` samples: -> iterator over the batches."""
    loader.order.epoch, loader.order.skip = epoch, skip
    return batches(loader)


def batches(loader):
    """Start to load: -> iterator over the batches. It raises a worker's InputError in the main process."""
    before = set(multiprocessing.active_children())
    with starting("DataLoader workers", "--workers 0"), ignored_signals():  # the processes start here
        iterator = iter(loader)
    if hasattr(loader, "processes"):  # persistent workers of make_loader
        loader.processes |= set(multiprocessing.active_children()) - before
    return _checked(iterator, loader)


def _checked(iterator, loader):
    pinned = getattr(loader, "pin_memory", False)
    try:
        with closing(iterator):
            for batch in iterator:
                if isinstance(batch, InputError):
                    raise batch
                # The benchmark passes other loaders, too.
                yield as_tensors(batch, pinned) if isinstance(batch, dict) else batch
    except Exception:
        processes = getattr(loader, "processes", ())
        if processes and all(process.is_alive() for process in processes):  # else the crash is reported first
            _end_workers(loader)
        raise


def _end_workers(loader):
    """End the workers after an exception. Otherwise torch waits 5 s for each: the traceback is a reference cycle, and
    its collection closes the queues that stop the workers before it closes the iterator."""
    if hasattr(signal, "sigtimedwait"):  # the workers then exit on SIGTERM, see `_end_with_parent`
        for process in loader.processes:
            process.terminate()
    loader.processes = set()


class ThreadedLoader:
    """A DataLoader without shuffling: `threads` prepare up to `AHEAD` batches ahead (0: the caller reads each batch).
    Batches for a GPU are in pinned memory."""

    def __init__(self, samples, batch_size, order, threads, device):
        self.dataset, self.order, self.threads, self.pinned = samples, order, threads, device.type == "cuda"
        self.batch_size, self.batches = batch_size, BatchSampler(order, batch_size, drop_last=False)

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        if not self.threads:
            yield from (collate(self.dataset.__getitems__(keys), self.pinned) for keys in self.batches)
            return
        readers, joiner = ThreadPoolExecutor(self.threads), ThreadPoolExecutor(1)

        def submit(keys):
            self.dataset.images.will_need([row for _, row, *_ in keys])
            samples = [readers.submit(self.dataset.__getitem__, key) for key in keys]
            return joiner.submit(lambda: collate([sample.result() for sample in samples], self.pinned))

        try:
            for batch in in_order(submit, self.batches, AHEAD):
                yield batch.result()
        finally:
            for pool in (readers, joiner):
                pool.shutdown(cancel_futures=True)


def collate(samples, pinned=False):
    """Join samples: -> batch (see the top of this file), or the first InputError among them. pinned: in pinned memory.

    A DataLoader worker puts the images into shared memory and pickles small values as numpy arrays; `batches` makes
    tensors of them.
    """
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    in_worker = get_worker_info() is not None
    images = [sample["images"] for sample in samples]
    if len({image.dtype for image in images}) > 1:
        images = [image / np.float32(255) if image.dtype == np.uint8 else image for image in images]
    small = {
        "rows": np.array([sample["rows"] for sample in samples]),
        "tiles": np.array([len(image) for image in images]),
    }
    for key in ("mean", "std") if "mean" in samples[0] else ():
        of_tiles = zip(images, (sample[key] for sample in samples), strict=True)
        small[key] = np.concatenate([np.broadcast_to(each, (len(image), each.shape[-1])) for image, each in of_tiles])
    if "targets" in samples[0]:
        small["targets"] = np.stack([sample["targets"] for sample in samples])
    batch = {"whole": samples[0]["whole"]} if samples[0].get("whole") else {}
    try:
        batch["images"] = concatenate(images, pinned)
    except (OSError, RuntimeError) as error:
        if not in_worker:
            raise
        room = "give fewer --workers or a smaller --batch-size, or enlarge /dev/shm (docker run --shm-size 8g)"
        why = f"no shared memory is left for a batch ({first_line(error)}); {room}"
        return InputError(explain_system_error(error) or why)
    return batch | (small if in_worker else as_tensors(small, pinned))


def as_tensors(batch, pinned):
    """Convert the numpy arrays of a batch to tensors."""
    arrays = {key: torch.from_numpy(value) for key, value in batch.items() if isinstance(value, np.ndarray)}
    return batch | {key: value.pin_memory() if pinned else value for key, value in arrays.items()}


def concatenate(images, pinned=False):
    """Concatenate [(tiles, S, S, C)] arrays: -> (sum of tiles, C, S, S) tensor, channels last; a worker's is shared."""
    shape = (sum(map(len, images)), *images[0].shape[1:])
    dtype = torch.uint8 if images[0].dtype == np.uint8 else torch.float32
    in_worker = get_worker_info() is not None
    joined = shared_tensor(shape, dtype) if in_worker else torch.empty(shape, dtype=dtype, pin_memory=pinned)
    np.concatenate(images, out=joined.numpy())
    return joined.permute(0, 3, 1, 2)


def shared_tensor(shape, dtype):
    """Return an uninitialised tensor in shared memory. Raise OSError or RuntimeError if memory is short.

    Torch's own shared tensors are files in /dev/shm, 64 MB by default in containers: less than 64 four-channel images
    of 512². This one is an anonymous file, for which torch has only a private function.
    """
    size = math.prod(shape) * dtype.itemsize
    if not size or not hasattr(os, "memfd_create"):  # not Linux
        return torch.empty(shape, dtype=dtype).share_memory_()
    file = os.memfd_create("batch", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
        storage = torch.UntypedStorage._new_shared_fd_cpu(file, size)  # duplicates the descriptor
    finally:
        os.close(file)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def pick_workers(wanted, device, context=SINGLE_PROCESS):
    """Return the number of DataLoader workers per process: `wanted`, or for -1 the process's part of the cores less one
    with a GPU, and one or two on a CPU, where training needs the cores."""
    if wanted >= 0:
        return wanted
    own = cores() // context.local_world_size
    return max(1, min(own - 1, 16)) if device.type != "cpu" else min(2, max(1, own // 4))


def fit_workers(workers, batch_bytes, trainings=1):
    """Limit DataLoader workers and the batches that each prepares ahead to half of the free memory, which `trainings`
    processes share: -> (workers, batches ahead). Print a reduction."""
    room = free_memory() * 1e9 / 2
    most = max(0, room / trainings / batch_bytes - 1)  # one more batch is in use
    if not workers or workers * AHEAD <= most:
        return workers, AHEAD
    fewer = min(workers, int(most))
    plan = f"{plural(fewer, 'DataLoader worker')} with one batch ahead each" if fewer else "no DataLoader workers"
    why = f"a batch takes {data_size(batch_bytes)}, and {data_size(room)} of main memory is available"
    print(f"{plan}, instead of {plural(workers, 'worker')} with {AHEAD}: {why}")
    return fewer, 1


def init_worker(reading, parent, worker):
    """Prepare a DataLoader worker. reading: see make_loader; parent: process id of the main process."""
    reading[worker, 0] = os.getpid()
    get_worker_info().dataset.reading = reading[worker]
    keep_freed_memory()  # augmentation takes and frees a dozen images a sample
    threadpool_limits(1, user_api="blas")  # a matrix product's threads would compete with the other workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = lambda *_: None  # torch's thread for shared memory prints a traceback at the end
    if hasattr(signal, "sigtimedwait"):
        threading.Thread(target=_end_with_parent, args=[parent], daemon=True).start()


@contextmanager
def ignored_signals():
    """Let processes started in the block ignore Ctrl+C and a batch system's signals, so that the main process can
    finish its step. SIGTERM from the parent still ends them."""
    if not hasattr(signal, "sigtimedwait"):  # as on macOS
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(parent):
    """End this process on SIGTERM from the parent or when the parent has ended."""
    while os.getppid() == parent:
        sent = signal.sigtimedwait({signal.SIGTERM}, 2)
        if sent and sent.si_pid == parent:
            break
    os._exit(0)


ADVICE = {  # by the signal that ended a worker
    signal.SIGBUS: "shared memory may have run out: enlarge /dev/shm, or give fewer --workers",
    signal.SIGSEGV: "fetch its files again, or leave its row out",
}


@contextmanager
def naming_file_of_crashed_worker(loader, last):
    """If a worker of `loader` dies in the block, raise InputError with the file that it was reading (torch raises
    RuntimeError at any point). last: path of the checkpoint to resume from, which may not exist."""
    try:
        yield
    except RuntimeError:
        dead = {process.pid: process.exitcode for process in loader.processes if process.exitcode is not None}
        if not dead:
            raise
        code = next(iter(dead.values()))
        how = signal.strsignal(-code) if code < 0 else f"exit code {code}"
        rows = [row for pid, row in loader.reading.tolist() if pid in dead and row != IDLE]
        files = listing([loader.dataset.files[row][0] for row in rows]) or "no image"
        _end_workers(loader)
        advice = ADVICE.get(-code, "memory may have run out: give fewer --workers")
        again = f"resumes from {last}" if last.is_file() else "starts again"
        died = f"a DataLoader worker died while it read {files} ({how})"
        raise InputError(f"{died}; {advice}; the same command {again}") from None
