"""Files of a run: `best.safetensors` and `config.json` rebuild a network; `last.pt` continues a training.

Files may come from strangers. Safetensors contain numbers only, and the library checks their sizes.
`torch.load(weights_only=True)` executes nothing; this module checks the zip archive around it and maps it, so that a
storage larger than its record cannot be read beyond it (torch compares the two only since 2.10).
"""

import copy
import json
import pickle
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from utils import models
from utils.device import copy_to_pinned, record_event
from utils.errors import InputError, first_line, ignored_warnings, listing
from utils.files import whole_file
from utils.runs.config import NETWORK, RunConfig
from utils.runs.run_folder import ANY_WEIGHTS, fold_files
from utils.safe_load import file_size, read_json

KEYS = {"config", "model", "epoch", "score"}  # in every checkpoint of the kit
KIT_METADATA = "train.py"  # metadata key of a safetensors file; its value is JSON with epoch and score
UNCHECKED_SIZE = 2048  # largest image size (pixels) for which a network is built without a check of its weights
NUMBER = (int, float)
PROGRESS = {  # types of a training's progress: last.pt has every key, best.safetensors only epoch and score
    **dict.fromkeys(("epoch", "step", "stage", "position", "best_epoch", "left_out"), int),
    **dict.fromkeys(("spent", "spent_in_epoch"), NUMBER),
    **{"score": (*NUMBER, type(None)), "finished": bool, "log": list},
}
MOST_STRUCTURE = 2**25  # bytes of a .pt file without its tensors
MOST_EXPANDED = 2**24  # elements of a tensor that is larger than its storage


def save(path, state):
    """Write a nested state of tensors and plain values with torch.save."""
    with whole_file(path, "wb") as file:
        torch.save(state, file)


def save_weights(path, model, epoch, score):
    """Write a state dict as safetensors with its epoch and macro F1. `load` also needs config.json in its folder."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.items()}
    metadata = {KIT_METADATA: json.dumps({"epoch": epoch, "score": score})}
    with whole_file(path, "wb") as file:
        file.write(safetensors.torch.save(tensors, metadata))


def snapshot(state, device):
    """Copy a nested state to main memory: -> (copy, wait). On a GPU the copy is complete when `wait()` returns."""
    take = copy_to_pinned if device.type == "cuda" else lambda tensor: tensor.cpu().clone()

    def copied(value):
        if isinstance(value, torch.Tensor):
            return take(value.detach())
        if isinstance(value, dict):
            other = copy.copy(value)  # keeps the type: a state dict knows the versions of its layers
            other.update({key: copied(part) for key, part in value.items()})
            return other
        return [copied(part) for part in value] if isinstance(value, list) else value

    return copied(state), record_event(device)


def read_file(path):
    """Read a file of weights, .safetensors or of torch.save, without executing its content or allocating more than its
    size.

    -> what torch.save wrote; from safetensors a dict of `model` (tensors by name), and of `config`, `epoch` and `score`
    if train.py wrote the file. Raises InputError for anything else.
    """
    path = Path(path)
    file_size(path)
    safe = path.suffix == ".safetensors"
    try:
        return _read_safetensors(path) if safe else _read_torch(path)
    except InputError:
        raise
    except Exception as error:  # torch's unpickler raises any type for a damaged file
        # torch replaces the unpickler's reason by advice for trusted files.
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
        # Files of torch before 1.6 are not archives; their reader compares each storage with its bytes.
        if zipped := file.read(4) == b"PK\x03\x04":
            _check_archive(file, file_size(path))
    with ignored_warnings():
        content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped)
    _check_expanded(content)
    return content


def _check_archive(file, size):
    """Raise ValueError unless the zip archive is as torch writes it: uncompressed, and no larger than the file."""
    file.seek(-22, 2)
    if file.read(4) != b"PK\x05\x06":  # zip readers differ on archives with a comment
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
    """Raise ValueError for a tensor much larger than its storage: a copy of it would fill the memory."""
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            if value.layout is not torch.strided or value.is_meta:
                raise ValueError("a tensor that is not dense")
            if value.numel() > max(MOST_EXPANDED, value.untyped_storage().nbytes()):
                raise ValueError(f"a tensor of {value.numel():,} numbers, most of them not in the file")
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value


def load(path):
    """Read a checkpoint of the kit: -> a dict with KEYS, `config` as a RunConfig. Raises InputError if it is none, or
    if the weights do not fit the network that the config names."""
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; train.py writes it")
    state = read_file(path)
    if not isinstance(state, dict) or not set(state) >= KEYS or not isinstance(state["config"], dict):
        raise InputError(f"{path} is not a checkpoint written by train.py; give a run's best.safetensors or last.pt")
    state["config"] = RunConfig.from_dict(state["config"], path)
    if not is_state(state["model"]):
        raise InputError(f"{path}: its weights are not tensors with names; give a checkpoint that train.py wrote")
    wrong = [key for key, kinds in PROGRESS.items() if key in state and not isinstance(state[key], kinds)]
    if not wrong and not all(
        isinstance(row, dict) and isinstance(row.get("seconds"), NUMBER) for row in state.get("log", [])
    ):
        wrong = ["log"]
    if wrong:
        raise InputError(f"{path}: its {wrong[0]} is not what train.py writes; give a checkpoint that it wrote")
    if state["config"].names_network:
        _check_weights(path, state)
    return state


def is_state(content):
    """Return whether `content` is a state dict: names and tensors."""
    return isinstance(content, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    )


def load_network(path, device="cpu"):
    """Rebuild the network of a checkpoint: -> (network in evaluation mode on `device`, config)."""
    state = load(path)  # in main memory: a whole checkpoint may not fit on the device
    config = state["config"]
    config.require(path, *NETWORK)
    try:
        network = _build(config)
        network.load_state_dict(state["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _misfit(path, error) from None
    return network.to(device).eval(), config


def _build(config):
    return models.build(config.model, len(config.class_names), config.planes, config.size, config.head)


def _check_weights(path, state):
    """Raise InputError unless names, shapes and kinds of numbers of the weights fit the network that the config names.
    The check allocates nothing, since a config may ask for a network of any size."""
    config, weights = state["config"], state["model"]
    try:
        with torch.device("meta"):
            own = _build(config).state_dict()
    except (InputError, NotImplementedError):
        if config.size > UNCHECKED_SIZE:
            raise
        return  # some library networks cannot be built on the meta device
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
    """List the weights at a user's path: a file of weights, a fold's folder, or a run's folder of fold<k>/."""
    run = Path(run)
    if run.is_file():
        return [run]
    if found := fold_files(run, *ANY_WEIGHTS, itself=True):
        return found
    raise InputError(f"{run} holds no best.safetensors and no fold<k>/best.safetensors; give a run that train.py wrote")
