"""CUDA GPUs imitated on the CPU, so that every line meant for a GPU runs where there is none.

Tensors "on the GPU" lie in main memory, and what is computed is computed at once. But what is copied without being waited for, to
the GPU on another stream than the one that computes or back into pinned memory, is NaN (or 170 as whole numbers) until it is waited
for as CUDA asks: by an event that was recorded after it, or by waiting for the whole device. So code that forgets to wait computes
with NaN here, as it might on a GPU.
"""

import contextlib
import functools
import sys

import pytest
import torch

FACTORIES = ("empty", "zeros", "ones", "full", "tensor", "arange", "empty_like", "zeros_like", "ones_like", "as_tensor")


def is_cuda(value):
    return isinstance(value, (str, torch.device)) and torch.device(value).type == "cuda"


def on_cpu(value):
    return torch.device("cpu") if is_cuda(value) else value


def not_for_torch(function):
    """True to all but torch itself, whose own code must not look for the GPU."""
    return lambda: function() if sys._getframe(2).f_globals["__name__"].startswith("torch.") else True


class Stream:
    def __init__(self, device=None):
        self.waiting = []

    def record_event(self):
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event):
        event.synchronize()

    def synchronize(self):
        self.run(len(self.waiting))

    def run(self, count):
        for copy in self.waiting[:count]:
            copy()
        self.waiting[:count] = [lambda: None] * count  # events know their places by number


class Event:
    def record(self, stream):
        self.stream, self.count = stream, len(stream.waiting)

    def synchronize(self):
        self.stream.run(self.count)


class GPUs:
    """`count` GPUs of a compute capability. `calls` are the names of torch.cuda's functions that were called, `pinned` the number
    of tensors in pinned memory."""

    def __init__(self, patch, count=2, capability=(8, 0), bf16=True):
        self.patch, self.count, self.capability, self.bf16 = patch, count, capability, bf16
        self.pinned_places = set()  # addresses, which may be used for other tensors later
        self.calls, self.pinned, self.current, self.random = [], 0, 0, torch.Generator().manual_seed(1)
        self.main = self.stream = Stream()
        for name, function in {
            "is_available": not_for_torch(torch.cuda.is_available), "device_count": lambda: count, "current_device": lambda: self.current,
            "set_device": self.set_device, "get_device_capability": lambda *_: capability, "get_device_name": lambda *_: "Imitated GPU",
            "get_arch_list": lambda: [f"sm_{capability[0]}{capability[1]}"], "is_bf16_supported": lambda **_: bf16,
            "device": lambda *_: contextlib.nullcontext(), "Stream": Stream, "Event": Event, "stream": self.on_stream,
            "current_stream": lambda *_: self.stream, "synchronize": lambda *_: self.main.synchronize(),
            "max_memory_allocated": lambda *_: 3 * 10**9, "memory_reserved": lambda *_: 4 * 10**9,
            "mem_get_info": lambda *_: (10**9, 16 * 10**9), "get_rng_state": lambda *_: self.random.get_state(),
            "set_rng_state": lambda state, *_: self.random.set_state(state),
        }.items():  # fmt: skip
            self.patch.setattr(torch.cuda, name, self.noting(name, function))
        for name in FACTORIES:
            self.patch.setattr(torch, name, self.factory(getattr(torch, name)))
        for name in ("to", "copy_", "pin_memory", "record_stream"):
            self.patch.setattr(torch.Tensor, name, getattr(self, name)(getattr(torch.Tensor, name)))
        for module, name in ((torch, "autocast"), (torch.amp, "GradScaler"), (torch, "is_autocast_enabled")):
            self.patch.setattr(module, name, self.of_cpu(getattr(module, name)))

    def noting(self, name, function):
        def called(*args, **kwargs):
            self.calls.append(name)
            return function(*args, **kwargs)

        return called

    def set_device(self, device):
        index = torch.device(device).index
        if index is None:
            raise ValueError(f"Expected a torch.device with a specified index or an integer, but got:{device}")
        self.current = index

    @contextlib.contextmanager
    def on_stream(self, stream):
        before, self.stream = self.stream, stream
        yield
        self.stream = before

    def later(self, target, source):
        """Copy when it is waited for what `source` is now; until then `target` holds nothing of use."""
        source = source.detach().clone()
        target.detach().fill_(
            float("nan") if target.is_floating_point() else 170 if target.dtype != torch.bool else True
        )
        self.stream.waiting.append(lambda: real_copy(target.detach(), source))
        return target

    def factory(self, function):
        @functools.wraps(function)
        def made(*args, pin_memory=False, device=None, **kwargs):
            tensor = function(*args, **kwargs | ({"device": on_cpu(device)} if device is not None else {}))
            if pin_memory:
                self.pinned += 1
                self.pinned_places.add(tensor.data_ptr())
            return tensor

        return made

    def to(self, function):
        def to(tensor, *args, non_blocking=False, **kwargs):
            there = any(map(is_cuda, (*args, *kwargs.values())))
            args, kwargs = [on_cpu(value) for value in args], {key: on_cpu(value) for key, value in kwargs.items()}
            moved = function(tensor, *args, **kwargs)
            if not there:
                return moved
            moved = real_clone(moved)  # another memory: what changes here does not change there
            return self.later(moved, tensor) if non_blocking and self.stream is not self.main else moved

        return to

    def copy_(self, function):
        def copy_(target, source, non_blocking=False):
            if non_blocking and target.data_ptr() in self.pinned_places:
                return self.later(target, source)
            return function(target, source)

        return copy_

    def pin_memory(self, function):
        def pin_memory(tensor, *_):
            self.pinned += 1
            return real_clone(tensor)

        return pin_memory

    def record_stream(self, function):
        return lambda tensor, stream: self.calls.append("record_stream")

    def of_cpu(self, function):
        return lambda device_type, *args, **kwargs: function(
            "cpu" if device_type == "cuda" else device_type, *args, **kwargs
        )


real_copy, real_clone = torch.Tensor.copy_, torch.Tensor.clone


@pytest.fixture
def gpus(monkeypatch):
    return GPUs(monkeypatch)
