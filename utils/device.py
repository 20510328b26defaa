"""The device of a network: selection, number formats, transfers and memory."""

import contextlib
import ctypes
import math
import re
import sys
from pathlib import Path

import torch

from utils.errors import InputError, first_line, listing
from utils.parallel import closing, cores, free_memory

DEVICE_TYPES = ("cpu", "cuda", "mps")
COMPUTED_WITH = ("images", "mean", "std", "targets")  # the entries of a batch to move to the device
_ARCHITECTURE = re.compile(r"(sm|compute)_([0-9]+)([0-9])([af]?)")


def pick_device(spec="auto"):
    """Return the torch.device of `spec`: ``auto`` (a CUDA GPU, else Apple's, else the CPU), ``cpu``, ``cuda``,
    ``cuda:1`` or ``mps``. A CUDA GPU has an index and becomes the current one. Raise InputError if it cannot be used.
    """
    if spec == "auto":
        spec = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(spec)
        if device.type not in DEVICE_TYPES:
            raise InputError(f"--device {spec!r} is not supported; give auto, cuda, cuda:1, mps or cpu")
        if device.type == "cuda":
            device = _pick_gpu(device.index)
        torch.zeros(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"device {spec!r} cannot be used ({first_line(error)}); give another --device") from None
    if device.type == "cpu":
        device = torch.device("cpu")
        torch.set_num_threads(min(torch.get_num_threads(), cores()))
        keep_freed_memory()
    return device


def _pick_gpu(index):
    if not torch.cuda.is_available():
        raise InputError("this torch finds no CUDA GPU (nvidia-smi shows what the driver sees); give --device cpu")
    index, count = torch.cuda.current_device() if index is None else index, torch.cuda.device_count()
    if index >= count:
        names = listing([f"cuda:{number}" for number in range(count)], 8)
        raise InputError(f"--device cuda:{index} does not exist, only {names}; give one of these")
    device = torch.device("cuda", index)
    check_built_for(device)
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = True  # worthwhile, since all batches have the same shape
    return device


def check_built_for(device):
    """Raise InputError if this build of torch has no code for the GPU.

    A cubin (sm) runs on GPUs of its major version and the same or a newer minor one, PTX (compute) on any newer GPU
    (CUDA C++ Programming Guide, "Binary Compatibility" and "PTX Compatibility"); sm_90a and compute_90a only on 9.0.
    """
    own, built = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()

    def runs(kind, major, minor, ending):
        target = int(major), int(minor)
        if ending == "a":
            return own == target
        return own >= target and (own[0] == target[0] or (kind == "compute" and ending != "f"))

    known = [match for name in built if (match := _ARCHITECTURE.fullmatch(name))]
    if known and not any(runs(*match.groups()) for match in known):
        gpu = f"{torch.cuda.get_device_name(device)} (sm_{own[0]}{own[1]}; it has {', '.join(built)})"
        fix = "choose another GPU, on Kaggle T4 x2, or give --device cpu"
        raise InputError(f"this torch ({torch.__version__}) was not built for {gpu}; {fix}")


@contextlib.contextmanager
def cudnn_benchmark(allowed):
    """Disable cuDNN's benchmark mode in the block unless `allowed`, as for the smaller last batch of an epoch: on an
    H200 the search takes 10 s for SE-ResNeXt50 at 512², as long as training on 6,000 images."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and allowed
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def keep_freed_memory(mmap_threshold=2**30, trim_threshold=2**31 - 1):
    """Let this process keep memory that it frees. By default glibc returns blocks above 32 MB to the system, which
    halves the speed on a CPU (SE-ResNeXt50, 512²: 4.9 instead of 12.9 images a second)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, mmap_threshold)  # M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(-1, trim_threshold)  # M_TRIM_THRESHOLD


def amp_dtype(spec, device):
    """Return the dtype for autocast, None for float32. spec: ``auto``, ``off``, ``bf16`` or ``fp16``.

    ``auto`` is bfloat16 if the device supports it natively (emulation is slower than float32), else float16 on a CUDA
    GPU, else None.
    """
    if spec == "auto":
        if device.type == "cuda":
            with torch.cuda.device(device):
                native = torch.cuda.is_bf16_supported(including_emulation=False)
            return torch.bfloat16 if native else torch.float16
        return torch.bfloat16 if device.type == "cpu" and _cpu_has_bf16() else None
    if spec == "fp16" and device.type == "cpu":
        raise InputError("--amp fp16 needs a GPU; on a CPU use auto, bf16 or off")
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[spec]


def _cpu_has_bf16():
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def autocast(device, dtype):
    """Autocast to `dtype`; None: to float32, also inside another autocast."""
    if dtype or torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, dtype, enabled=dtype is not None)
    return contextlib.nullcontext()


def prefetch_to_device(batches, device):
    """Yield batches (see utils/data/loader.py) with their `COMPUTED_WITH` tensors on the device. A separate CUDA stream
    copies them from pinned memory while the GPU computes."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    with closing(batches):
        for batch in batches:
            with torch.cuda.stream(stream):
                moved = {name: batch[name].to(device, non_blocking=True) for name in COMPUTED_WITH if name in batch}
                arrived = stream.record_event()
            current = torch.cuda.current_stream(device)
            current.wait_event(arrived)
            for tensor in moved.values():
                tensor.record_stream(current)  # else the allocator may reuse its memory too early
            yield batch | moved


def start_copy_to_cpu(tensor, device):
    """Start to copy a tensor to the CPU: -> function that waits for the copy, not for later work, and returns it."""
    copy = copy_to_pinned(tensor) if device.type == "cuda" else tensor.cpu()
    wait = record_event(device)

    def finish():
        wait()
        return copy

    return finish


def record_event(device):
    """Return a function that waits for all work that is queued on the device now."""
    if device.type != "cuda":
        return lambda: None
    event = torch.cuda.Event()
    event.record(torch.cuda.current_stream(device))
    return event.synchronize


def copy_to_pinned(tensor):
    """Start to copy a GPU's tensor to pinned memory; the copy is complete after the work that is queued now."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def peak_memory(device):
    """Return the peak GB of tensors on a GPU, else of this process without its workers; NaN if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe_device(device, dtype):
    """Return text such as ``Tesla T4, float16`` or ``2 CPU threads, float32``."""
    cpu = f"{torch.get_num_threads()} CPU threads"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu if device.type == "cpu" else str(device)
    return f"{name}, {str(dtype or torch.float32).removeprefix('torch.')}"


@contextlib.contextmanager
def explain_out_of_memory(device, advice):
    """Turn an out-of-memory error of any allocator into InputError with the memory in use and `advice()`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # OutOfMemoryError covers only CUDA's caching allocator; other allocators raise RuntimeError.
        cpu = isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error)
        words = ("out of memory", "ALLOC_FAILED")  # of CUDA and MPS; of cuDNN and cuBLAS
        if not (cpu or isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)):
            raise
        memory = _describe_memory(torch.device("cpu") if cpu else device)
        raise InputError(f"out of memory on {memory}; {advice()}") from None


def _describe_memory(device):
    """Return text such as ``Tesla T4, 15.6 of 15.8 GB in use (1.2 GB by other processes)``."""
    if device.type != "cuda":
        name = {"cpu": "the CPU", "mps": "the Apple GPU"}.get(device.type, str(device))
        return f"{name}, {free_memory():.1f} GB of main memory free"
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    rest = f" ({others / 1e9:.1f} GB by other processes)" if others > 1e9 else ""  # less is our CUDA context
    return f"{torch.cuda.get_device_name(device)}, {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB in use{rest}"
