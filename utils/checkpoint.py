"""Checkpoints of tensors and plain containers: enough to rebuild a network without a flag, safe to load from strangers."""

import pickle
from pathlib import Path

import torch

from utils import models
from utils.errors import InputError, first_line
from utils.files import whole_file
from utils.runs import fold_files

KEYS = {"config", "model", "epoch", "score"}  # what every checkpoint of the kit holds
NEEDED = ("model", "class_names", "channels", "planes", "stem", "size", "fit", "normalise", "mean", "std", "amp",
          "batch_size")  # fmt: skip
UNREADABLE = (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError)


def save(path, state):
    """Write a checkpoint. `state` holds `config` (dict), `model` (state dict), `epoch`, `score` and, to resume, more."""
    with whole_file(path, "wb") as file:
        torch.save(state, file)


def load_tensors(path, device="cpu"):
    """What torch.save wrote, executing nothing in it: tensors and plain values, or InputError."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except UNREADABLE as error:
        raise InputError(f"{path} is not a checkpoint of tensors and plain values ({first_line(error)})") from None


def load(path, device="cpu"):
    """Read a checkpoint of the kit. Raises InputError where it is none."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; train.py writes it")
    state = load_tensors(path, device)
    if not isinstance(state, dict) or not set(state) >= KEYS or not isinstance(state["config"], dict):
        raise InputError(f"{path} is not a checkpoint written by train.py; give a run's best.pt or last.pt")
    return state


def load_network(path, device="cpu"):
    """Rebuild the network of a checkpoint: -> (network in evaluation mode on `device`, config)."""
    state = load(path, device)
    config = state["config"]
    if missing := [key for key in NEEDED if key not in config]:
        raise InputError(f"{path}: its config lacks {', '.join(missing)}; give a checkpoint that train.py wrote")
    moments = [config[key] for key in ("mean", "std") if isinstance(config[key], list)]
    if config["normalise"] == "dataset" and [len(values) for values in moments] != [config["planes"]] * 2:
        raise InputError(f"{path}: its config lacks the mean and std of its {config['planes']} planes")
    try:
        network = models.build(
            config["model"], len(config["class_names"]), config["planes"], config["size"], config["stem"]
        )
        network.load_state_dict(state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: the weights do not fit the network its config names ({first_line(error)})") from None
    return network.to(device).eval(), config


def find_checkpoints(run):
    """The checkpoints behind a path a user gives: a checkpoint file, a fold's folder, or a run's folder of fold<k>/."""
    run = Path(run)
    if run.is_file():
        return [run]
    if found := fold_files(run, "best.pt", itself=True):
        return found
    raise InputError(f"{run} holds no best.pt and no fold<k>/best.pt; give a run that train.py wrote")
