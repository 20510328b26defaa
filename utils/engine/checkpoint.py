"""A run's weights and its state: `best.safetensors` with `config.json` beside it rebuild a network; `last.pt`
continues a training.

Both come from strangers too. Safetensors hold numbers only and check their own sizes. `torch.load(weights_only=True)`
executes nothing; the zip archive around it is checked here and mapped, so that a storage that claims more than its
record has cannot be read beyond it (torch itself compares the two from 2.10 on only).
"""

import copy
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from utils import models
from utils.device import copy_to_pinned, record_event
from utils.errors import InputError, first_line, listing
from utils.files import whole_file
from utils.runs.config import NETWORK, RunConfig
from utils.runs.run_folder import ANY_WEIGHTS, fold_files
from utils.safe_load import file_size, read_json

KEYS = {"config", "model", "epoch", "score"}  # of every checkpoint of the kit
KIT_METADATA = "train.py"  # the key in a safetensors file's metadata, for JSON of epoch and score
UNCHECKED_SIZE = 2048  # pixels up to which a network is built without checking its weights first
NUMBER = (int, float)
PROGRESS = {  # how far a training is: last.pt says all of it, the weights of the best epoch only epoch and score
    **dict.fromkeys(("epoch", "step", "stage", "position", "best_epoch", "left_out"), int),
    **dict.fromkeys(("spent", "spent_in_epoch"), NUMBER),
    **{"score": (*NUMBER, type(None)), "finished": bool, "log": list},
}
MOST_STRUCTURE = 2**25  # bytes of a .pt file without its tensors
MOST_EXPANDED = 2**24  # numbers of a tensor that repeats what is stored


def save(path, state):
    """Write a nested state of tensors and plain values with torch.save."""
    with whole_file(path, "wb") as file:
        torch.save(state, file)


def save_weights(path, model, epoch, score):
    """Write a state dict as safetensors, with the epoch and macro F1 that it had. Its config.json is to lie beside
    it."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.items()}
    metadata = {KIT_METADATA: json.dumps({"epoch": epoch, "score": score})}
    with whole_file(path, "wb") as file:
        file.write(safetensors.torch.save(tensors, metadata))


def snapshot(state, device):
    """A copy of a nested state with its tensors in main memory, independent of the original: -> (copy, wait).

    From a GPU the tensors travel to pinned memory while the GPU goes on; the copy is complete when `wait()` returns.
    """
    take = copy_to_pinned if device.type == "cuda" else lambda tensor: tensor.cpu().clone()

    def copied(value):
        if isinstance(value, torch.Tensor):
            return take(value.detach())
        if isinstance(value, dict):
            other = copy.copy(value)  # of its own type: a state dict knows the versions of its layers
            other.update({key: copied(part) for key, part in value.items()})
            return other
        return [copied(part) for part in value] if isinstance(value, list) else value

    return copied(state), record_event(device)


def read_file(path):
    """The content of a file of weights, .safetensors or of torch.save. Executes nothing in it and allocates no more
    than it holds.

    -> a dict: what torch.save wrote, or of safetensors `model`, the tensors by name, and `config`, `epoch` and
    `score` if train.py wrote the file. Raises InputError for anything else.
    """
    path = Path(path)
    file_size(path)
    safe = path.suffix == ".safetensors"
    try:
        return _read_safetensors(path) if safe else _read_torch(path)
    except InputError:
        raise
    except Exception as error:  # whatever torch's unpickler meets in a damaged file
        # torch replaces its unpickler's reason by advice for trusted files.
        cause = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
        kind = "safetensors file" if safe else "checkpoint of tensors and plain values"
        raise InputError(f"{path} is not a {kind} ({first_line(cause)})") from None


def _read_safetensors(path):
    with safetensors.safe_open(path, "pt") as file:
        content = {"model": {name: file.get_tensor(name) for name in file.keys()}}  # noqa: SIM118
        metadata = file.metadata() or {}
    if KIT_METADATA in metadata:
        best = json.loads(metadata[KIT_METADATA])
        content |= {"epoch": best["epoch"], "score": best["score"]}
        fix = "keep the config.json that train.py wrote beside the weights"
        content["config"] = read_json(path.with_name("config.json"), "a run's config", fix)
    return content


def _read_torch(path):
    with open(path, "rb") as file:
        # A file of torch before 1.6 is no archive, and its reader compares each storage with its bytes.
        if zipped := file.read(4) == b"PK\x03\x04":
            _check_archive(file, file_size(path))
    with warnings.catch_warnings(action="ignore"):  # torch's, about the kinds of tensors that are refused next
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    _check_expanded(content)
    return content


def _check_archive(file, size):
    """Raise ValueError unless a zip archive is as torch writes it: its records are not compressed and have the file's
    bytes."""
    file.seek(-22, 2)
    if file.read(4) != b"PK\x05\x06":  # zip readers differ on what they find behind a comment
        raise ValueError("not a zip archive as torch writes it")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("its records are compressed")
    if sum(max(entry.file_size, entry.compress_size) for entry in entries) > size:
        raise ValueError("its records claim more bytes than it has")
    if any(entry.file_size > MOST_STRUCTURE for entry in entries if entry.filename.endswith(".pkl")):
        raise ValueError("its structure is too large")


def _check_expanded(content):
    """Raise ValueError for a tensor that repeats its few numbers into many: a copy of it would fill the memory."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided or value.is_meta:
                raise ValueError("a tensor that is not dense")
            if value.numel() > max(MOST_EXPANDED, value.untyped_storage().nbytes()):
                raise ValueError(f"a tensor of {value.numel():,} numbers, of which most are not in the file")
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def load(path):
    """Read a checkpoint of the kit: a dict with KEYS, `config` as a RunConfig, and its weights those of
    the network that the config names, if it names one. Raises InputError otherwise."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; train.py writes it")
    state = read_file(path)
    if not isinstance(state, dict) or not set(state) >= KEYS or not isinstance(state["config"], dict):
        raise InputError(f"{path} is not a checkpoint written by train.py; give a run's best.safetensors or last.pt")
    state["config"] = RunConfig.from_dict(state["config"], path)
    if not is_state(state["model"]):
        raise InputError(f"{path}: its weights are no tensors with names; give a checkpoint that train.py wrote")
    wrong = [key for key, kinds in PROGRESS.items() if key in state and not isinstance(state[key], kinds)]
    if not wrong and not all(map(_is_log_row, state.get("log", []))):
        wrong = ["log"]
    if wrong:
        raise InputError(f"{path}: its {wrong[0]} is not what train.py writes; give a checkpoint that it wrote")
    if state["config"].names_network:
        _check_weights(path, state)
    return state


def _is_log_row(row):
    return isinstance(row, dict) and isinstance(row.get("seconds"), NUMBER)


def is_state(content):
    """Return whether it is a state dict: names and tensors."""
    return isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )


def load_network(path, device="cpu"):
    """Rebuild the network of a checkpoint: -> (network in evaluation mode on `device`, config)."""
    state = load(path)  # into main memory: the device may not have room for all that a checkpoint holds
    config = state["config"]
    config.require(path, *NETWORK)
    try:
        network = _build(config)
        network.load_state_dict(state["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _misfit(path, error) from None
    return network.to(device).eval(), config


def _build(config):
    return models.build(config.model, len(config.class_names), config.planes, config.size, config.stem)


def _check_weights(path, state):
    """Raise InputError unless the weights are those of the network that the config names, by names, shapes and kinds
    of numbers. This allocates nothing, since a config may ask for a network of any size."""
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
    """The weights behind a path that a user gives: a file of weights, a fold's folder, or a run's folder of fold<k>/."""
    run = Path(run)
    if run.is_file():
        return [run]
    if found := fold_files(run, *ANY_WEIGHTS, itself=True):
        return found
    raise InputError(f"{run} holds no best.safetensors and no fold<k>/best.safetensors; give a run that train.py wrote")
