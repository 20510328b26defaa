"""The networks of trained folds, which predict together."""

from dataclasses import replace

import torch

from utils.data.images import parse_channels
from utils.engine import checkpoint
from utils.errors import InputError, listing
from utils.files import first_repeated

SHARED = (
    "class_names",
    "channels",
    "size",
    "fit",
    "normalise",
    "bits",
    "activation",
)  # folds that are averaged must agree on these


def load_networks(runs, device):
    """Every checkpoint behind the given paths: -> networks, configs. They must look at images in the same way."""
    paths = [path for run in runs for path in checkpoint.find_checkpoints(run)]
    if repeated := first_repeated(paths):
        raise InputError(f"{repeated} is named twice; name each fold once")
    networks, configs = zip(*(checkpoint.load_network(path, device) for path in paths), strict=True)
    for path, config in zip(paths, configs, strict=True):
        for key in SHARED:
            if getattr(config, key) != getattr(configs[0], key):
                what = f"{path} was trained with another {key} than {paths[0]}"
                raise InputError(f"{what}; predict with each alone and average with ensemble.py")
    return [network.to(memory_format=torch.channels_last) for network in networks], configs


def fold_folders(runs):
    """The folders of the checkpoints behind the given paths."""
    return [path.parent for run in runs for path in checkpoint.find_checkpoints(run)]


def without_channels(config, names):
    """Return the config of a network whose channels `names` are not read."""
    if unused := [name for name in names if name not in parse_channels(config.channels).names]:
        what = f"the network of {config.name} does not use {unused[0]} (channels {config.channels})"
        raise InputError(f"{what}; leave out --without {unused[0]}")
    return replace(config, channels=f"{config.channels}-{''.join(name[0] for name in names)}")


def same_tta(runs, configs):
    """The number of TTA views that all networks were trained to be predicted with."""
    counts = sorted({config.tta for config in configs})
    if len(counts) > 1:
        raise InputError(f"{', '.join(runs)} differ in their number of TTA views ({listing(counts)}); give --tta")
    return counts[0]


def check_fold(configs, fold):
    """Raise InputError if a network was trained on the rows of `fold`: one that validated on another fold."""
    for config in configs:
        if config.fold not in (None, fold):
            what = f"fold {config.fold}'s network was trained on rows of fold {fold}"
            raise InputError(f"{what}; name only fold{fold}'s folder")
