"""torch.compile: whether it works on this machine, and a one-sentence error if it does not."""

import contextlib

import torch
from torch import nn

from utils.engine import activation_checkpointing
from utils.errors import InputError, first_line

COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "triton")  # modules of its errors


def check_compiles(device, checkpointing=False):
    """Raise InputError if torch.compile does not work on this machine, or not together with --checkpointing."""
    try:
        torch.compile(lambda values: values.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # a missing or broken compiler raises one of many
        raise InputError(
            f"--compile does not work on this machine ({type(error).__name__}: {_cause(error)}); leave it out, or install "
            f"{'a C++ compiler' if device.type == 'cpu' else 'triton and a C compiler'}"
        ) from None
    if checkpointing and not _counts_once(device):
        raise InputError(
            f"with torch {torch.__version__} --compile and --checkpointing together count batch norm's statistics twice; leave one of "
            "them out, or update torch"
        )


def _counts_once(device):
    """Whether a compiled layer with checkpointing updates batch norm's statistics once per step. (Not in torch 2.6.)"""
    layers = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).to(device).train()
    activation_checkpointing.checkpoint_blocks(layers)
    torch.compile(layers)(torch.ones(2, 1, 4, 4, device=device)).sum().backward()
    return int(layers[1].num_batches_tracked) == 1


def _cause(error):
    """The cause of an exception that may only name the backend of torch.compile that failed."""
    return first_line(getattr(error, "inner_exception", error), 120)


@contextlib.contextmanager
def explaining_compile_errors(name):
    """Raise InputError with the compiler's message if the network called `name` cannot be compiled inside."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(COMPILERS):
            raise
        raise InputError(
            f"--compile: {name} cannot be compiled by torch {torch.__version__} ({_cause(error)}); leave --compile out"
        ) from None
