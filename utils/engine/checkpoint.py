"""Checkpoints of tensors and plain containers: enough to rebuild a network without a flag, safe to load from strangers."""

import copy
import pickle
from pathlib import Path

import torch

from utils import models
from utils.device import copy_to_pinned, record_event
from utils.errors import InputError, first_line, listing
from utils.files import whole_file
from utils.runs.config import NETWORK, RunConfig
from utils.runs.run_folder import fold_files
from utils.safe_torch import check_torch_file

KEYS = {"config", "model", "epoch", "score"}  # what every checkpoint of the kit holds
UNCHECKED_SIZE = 2048  # pixels up to which a network may be built without knowing beforehand what it takes
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, TypeError, MemoryError,
    AssertionError, OverflowError,
)  # fmt: skip


def save(path, state):
    """Write a checkpoint. `state` holds `config` (dict), `model` (state dict), `epoch`, `score` and, to resume, more."""
    with whole_file(path, "wb") as file:
        torch.save(state, file)


def snapshot(state, device):
    """A copy of a nested state, its tensors in main memory, that does not change with what it was copied from: -> (copy, wait).

    From a GPU the tensors travel to pinned memory while the GPU goes on; the copy is complete when `wait()` returns.
    """
    take = copy_to_pinned if device.type == "cuda" else lambda tensor: tensor.cpu().clone()

    def copied(value):
        if isinstance(value, torch.Tensor):
            return take(value.detach())
        if isinstance(value, dict):
            other = copy.copy(value)  # of its own kind: a state dict knows the versions of its layers
            other.update({key: copied(part) for key, part in value.items()})
            return other
        return [copied(part) for part in value] if isinstance(value, list) else value

    return copied(state), record_event(device)


def load_tensors(path, device="cpu"):
    """What torch.save wrote, executing nothing in it and allocating no more than it holds: tensors and plain values, or
    InputError."""
    check_torch_file(path)
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as error:
        raise InputError(f"{path} is not a checkpoint of tensors and plain values ({first_line(error)})") from None


def load(path, device="cpu"):
    """Read a checkpoint of the kit: a dict with KEYS, its config as `check_config` wants it, and where that names a network,
    with weights that fit it. Raises InputError where it is none."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; train.py writes it")
    state = load_tensors(path, device)
    if not isinstance(state, dict) or not set(state) >= KEYS or not isinstance(state["config"], dict):
        raise InputError(f"{path} is not a checkpoint written by train.py; give a run's best.pt or last.pt")
    state["config"] = RunConfig.from_dict(state["config"], path)
    if not is_state(state["model"]):
        raise InputError(f"{path}: its weights are no tensors with names; give a checkpoint that train.py wrote")
    for key, fits in PROGRESS.items():
        if key in state and not fits(state[key]):
            raise InputError(f"{path}: its {key} is not what train.py writes; give a checkpoint that it wrote")
    if all(getattr(state["config"], name) is not None for name in NETWORK):
        _check_without_memory(path, state)
    return state


def _is_count(value):
    return type(value) is int and 0 <= value < 2**48


def _is_number(value):
    return type(value) in (int, float)


def _are_rows(value):
    return isinstance(value, list) and all(
        isinstance(row, dict) and all(isinstance(key, str) and _is_number(cell) for key, cell in row.items())
        for row in value
    )


def _are_columns(value):
    return (
        is_state(value)
        and len({tuple(column.shape) for column in value.values()}) <= 1
        and all(column.ndim == 1 for column in value.values())
    )


def _are_parts(value):
    """The states of optimiser, plateau and what else changes while a run trains."""
    if not isinstance(value, dict) or not all(isinstance(part, dict) for part in value.values()):
        return False
    optimiser = value.get("optimiser", {})
    state, groups = optimiser.get("state"), optimiser.get("param_groups")
    return isinstance(state, dict) and isinstance(groups, list) and all(isinstance(group, dict) for group in groups)


# What a checkpoint says of the training's progress, in best.pt the first two.
PROGRESS = {
    "epoch": _is_count, "score": lambda value: value is None or _is_number(value), "step": _is_count, "stage": _is_count,
    "best_epoch": _is_count, "smooth_f1": _is_number, "spent": _is_number, "finished": lambda value: type(value) is bool,
    "log": _are_rows, "steps": lambda value: _are_columns(value) or _are_rows(value), "parts": _are_parts,
    "position": _is_count, "left_out": _is_count,
    "spent_in_epoch": _is_number, "random": lambda value: isinstance(value, list) and all(is_state(state) for state in value),
}  # fmt: skip


def is_state(content):
    """Is it a state dict: names and tensors?"""
    return isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )


def load_network(path, device="cpu"):
    """Rebuild the network of a checkpoint: -> (network in evaluation mode on `device`, config)."""
    state = load(path)  # on the device there need not be room for all that a checkpoint holds
    config = state["config"]
    config.require(path, *NETWORK)
    try:
        network = _build(config)
        network.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise _misfit(path, error) from None
    return network.to(device).eval(), config


def _build(config):
    return models.build(config.model, len(config.class_names), config.planes, config.size, config.stem)


def _check_without_memory(path, state):
    """Raise InputError unless the weights are those of the network that the config names, by names, shapes and kinds of numbers;
    before anything is allocated, since a config may ask for a network of any size."""
    config, weights = state["config"], state["model"]
    try:
        with torch.device("meta"):
            own = _build(config).state_dict()
    except (InputError, NotImplementedError):
        if config.size > UNCHECKED_SIZE:
            raise
        return  # some networks of the libraries cannot be built without numbers
    except (KeyError, TypeError, RuntimeError) as error:
        raise _misfit(path, error) from None
    if differing := sorted(set(own) ^ set(weights)):
        raise _misfit(path, f"{listing(differing)} missing or too many")
    for key, value in own.items():
        if weights[key].shape != value.shape or weights[key].is_floating_point() != value.is_floating_point():
            raise _misfit(path, f"{key} has the shape {tuple(weights[key].shape)}, not {tuple(value.shape)}")


def _misfit(path, why):
    return InputError(f"{path}: the weights do not fit the network its config names ({first_line(why)})")


def find_checkpoints(run):
    """The checkpoints behind a path a user gives: a checkpoint file, a fold's folder, or a run's folder of fold<k>/."""
    run = Path(run)
    if run.is_file():
        return [run]
    if found := fold_files(run, "best.pt", itself=True):
        return found
    raise InputError(f"{run} holds no best.pt and no fold<k>/best.pt; give a run that train.py wrote")
