"""Where and how a network runs: the device, and the number format of its arithmetic."""

import contextlib
import ctypes
import math
import re
import sys
from pathlib import Path

import torch

from utils.errors import InputError, first_line, listing
from utils.parallel import closing, cores, free_memory

KINDS = ("cpu", "cuda", "mps")
ON_DEVICE = ("images", "mean", "std", "targets")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
CPU_ALLOCATOR = "DefaultCPUAllocator"  # what torch's errors name it
AMP = ("auto", "off", "bf16", "fp16")


def pick_device(spec="auto"):
    """The device to compute on: ``auto`` is the current CUDA GPU, else Apple's, else the CPU; or ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    -> torch.device, a CUDA GPU with its index and made this process's current one. Raises InputError for any other device, and
    for one that is not there or does not compute.
    """
    if spec == "auto":
        spec = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(spec)
        if device.type not in KINDS:
            raise InputError(f"--device {spec!r} is none that the kit computes on; give auto, cuda, cuda:1, mps or cpu")
        if device.type == "cuda":
            device = _cuda_device(device)
        torch.zeros(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"device {spec!r} cannot be used ({first_line(error)}); give another --device, cpu for one"
        ) from None
    if device.type == "cpu":
        device = torch.device("cpu")
        torch.set_num_threads(min(torch.get_num_threads(), cores()))
        keep_freed_memory()
    return device


def _cuda_device(device):
    """The same device with an index, made the current one."""
    if not torch.cuda.is_available():
        raise InputError("this torch finds no CUDA GPU (nvidia-smi shows what the driver sees); give --device cpu")
    count = torch.cuda.device_count()
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= count:
        names = listing([f"cuda:{number}" for number in range(count)], 8)
        raise InputError(f"--device cuda:{index}: there is no such GPU, only {names}; give one of these")
    device = torch.device("cuda", index)
    check_built_for(device)
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = (
        True  # batches are alike, so the search for the fastest convolutions pays; see `tuned`
    )
    return device


@contextlib.contextmanager
def tuned(usual):
    """May cuDNN search for the fastest convolutions inside? Not for the smaller last batch of an epoch: on an H200 the search takes 10 s
    for SE-ResNeXt50 at 512², as long as the training of 6,000 images."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and usual
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def check_built_for(device):
    """Raise InputError where this build of torch has no code for the GPU: it would fail at the first operation, after the images
    are packed. A cubin runs on its own major version from its minor version on, PTX on whatever is newer (CUDA C++ Programming
    Guide, "Binary Compatibility" and "PTX Compatibility"); code for sm_90a or compute_90a only on just that one."""
    own, built = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    known = [match for name in built if (match := _ARCHITECTURE.fullmatch(name))]

    def runs(kind, capability, ending):
        if ending == "a":
            return own == capability
        older = own[0] == capability[0] if kind == "sm" or ending == "f" else True
        return older and own >= capability

    if known and not any(
        runs(kind, (int(major), int(minor)), ending) for kind, major, minor, ending in map(re.Match.groups, known)
    ):
        raise InputError(
            f"this torch ({torch.__version__}) was not built for {torch.cuda.get_device_name(device)} (sm_{own[0]}{own[1]}; it has "
            f"{', '.join(built)}); choose another GPU, on Kaggle T4 x2, or give --device cpu"
        )


_ARCHITECTURE = re.compile(r"(sm|compute)_([0-9]+)([0-9])([af]?)")


def keep_freed_memory(mmap_threshold=2**30, trim_threshold=2**31 - 1):
    """Let this process keep memory that it frees. glibc gives blocks beyond 32 MB back to the system each time, and getting them
    again, page by page, costs a network more than half of its speed on a CPU (SE-ResNeXt50, 16 images of 512²: 4.9 a second, or 12.9)."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, mmap_threshold)
        libc.mallopt(M_TRIM_THRESHOLD, trim_threshold)


def amp_dtype(spec, device):
    """The 16-bit format for autocast, or None for plain float32.

    ``auto`` takes bfloat16 where the device computes with it, else float16 on a GPU, else none. A CPU counts when it
    has bfloat16 instructions: emulated, it would be slower than float32.
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
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def autocast(device, dtype):
    """Compute in the 16-bit format, or with None in float32, also inside another autocast."""
    if dtype or torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, dtype, enabled=dtype is not None)
    return contextlib.nullcontext()


def on_device(batches, device):
    """Yield batches (see utils/data/loader.py) with what is computed with on the device. To a GPU they travel from pinned memory on a stream
    of their own: one that is asked for while the GPU computes arrives beside that."""
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)
    with closing(batches):
        for batch in batches:
            with torch.cuda.stream(stream):
                moved = {name: batch[name].to(device, non_blocking=True) for name in ON_DEVICE if name in batch}
                arrived = stream.record_event()
            here = torch.cuda.current_stream(device)
            here.wait_event(arrived)
            for tensor in moved.values():
                tensor.record_stream(here)  # or its memory could be given to the next batch too early
            yield batch | moved


def fetch(tensor, device):
    """Send a tensor of the device to main memory: -> a function that waits for it, but for nothing that the device is given to
    do afterwards, and returns it."""
    copy = to_pinned(tensor) if device.type == "cuda" else tensor.cpu()
    wait = until_now(device)

    def result():
        wait()
        return copy

    return result


def until_now(device):
    """-> a function that waits until the device has done all that it was given before this call, and returns None."""
    if device.type != "cuda":
        return lambda: None
    done = torch.cuda.Event()
    done.record(torch.cuda.current_stream(device))
    return done.synchronize


def to_pinned(tensor):
    """A copy of a GPU's tensor in pinned memory, complete once the GPU has got that far."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def peak_memory(device):
    """GB that training has taken at most so far: on a GPU what tensors held there, else what this process held in memory
    (its loading processes not counted); NaN where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def describe(device, dtype):
    """One line for logs: the device's name and the number format."""
    names = {
        "cuda": lambda: torch.cuda.get_device_name(device),
        "cpu": lambda: f"{torch.get_num_threads()} CPU threads",
    }
    name = names.get(device.type, lambda: str(device))()
    return f"{name}, {str(dtype or torch.float32).removeprefix('torch.')}"


@contextlib.contextmanager
def explaining_out_of_memory(device, advice):
    """Where the memory of the device, or of this machine, is not enough for what is done inside, raise InputError: what was in use,
    and `advice()`, what to do about it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        where = torch.device("cpu") if isinstance(error, MemoryError) or CPU_ALLOCATOR in str(error) else device
        raise InputError(f"out of memory on {describe_memory(where)}; {advice()}") from None


def is_out_of_memory(error):
    """Does the exception say that an allocation failed, on whatever device?"""
    words = ("out of memory", "ALLOC_FAILED", CPU_ALLOCATOR)  # of CUDA and MPS; of cuDNN and cuBLAS; of torch on a CPU
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


def describe_memory(device):
    """``Tesla T4, 15.6 of 15.8 GB in use (1.2 GB by other processes)``."""
    if device.type != "cuda":
        name = {"cpu": "the CPU", "mps": "the Apple GPU"}.get(device.type, str(device))
        return f"{name}, {free_memory():.1f} GB of main memory free"
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    rest = (
        f" ({others / 1e9:.1f} GB by other processes)" if others > 1e9 else ""
    )  # less is the CUDA context of this one
    return f"{torch.cuda.get_device_name(device)}, {(total - free) / 1e9:.1f} of {total / 1e9:.1f} GB in use{rest}"
