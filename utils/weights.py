"""Starting weights: ImageNet files, checkpoints, GapNet-PL as published.

    python -m utils.weights authors.npz -o runs/published/fold0

turns the GapNet-PL authors' file into a run directory, ready for predict.py
and for `train.py --weights runs/published/fold0/best.pt`.
"""

import argparse
import contextlib
import os
import zipfile
from pathlib import Path

import numpy as np
import torch

from utils import checkpoint, models
from utils.errors import InputError, listing, run_script
from utils.files import check_writable, write_json
from utils.images import parse_channels
from utils.labels import CYTO_CLASSES
from utils.models.se_resnext50 import STEM, widen_stem

# Where se_resnext50_32x4d's ImageNet file is published, in the order they are tried: the name pretrainedmodels uses and
# the name timm uses for the same tensors. The letters after the dash begin the file's SHA-256.
IMAGENET_URLS = (
    "http://data.lip6.fr/cadene/pretrainedmodels/se_resnext50_32x4d-a260b3a4.pth",
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth",
)
WEIGHT_FOLDER = Path("input/weights")
FIRST = {"gapnet_pl": "block1.0.weight", "se_resnext50_32x4d": STEM}  # the layer that sees the channels
LAST = ("head.weight", "head.bias", "last_linear.weight", "last_linear.bias")  # the layer that knows the classes


def load_start(network, config):
    """Load starting weights into `network`, in place; returns a sentence that says what was loaded.

    config: dict with `model`, `stem`, `channels`, `class_names` of the network, and `weights`: ``none``, ``imagenet`` or
    a path. Layers are matched by name. A first convolution for RGB is widened as `stem` says, one for the same channels
    in another order is turned round. A last layer for other classes keeps its random start.
    """
    if config["weights"] == "none":
        return "random weights"
    name, own = config["model"], network.state_dict()
    if config["weights"] == "imagenet":
        source, state, origin = *imagenet_state(name), {}
    else:
        source = Path(config["weights"])
        state, origin = read_state(source)
    state = _fit_channels(state, FIRST[name], own, origin, config, source)
    last = [key for key in LAST if key in own]
    same_classes = origin.get("class_names", config["class_names"]) == list(config["class_names"])
    fresh = [key for key in last if key not in state or not same_classes or state[key].shape != own[key].shape]
    wrong = [key for key in own if key not in fresh and key in state and state[key].shape != own[key].shape]
    lacking = [key for key in own if key not in fresh and key not in state and not key.endswith("num_batches_tracked")]
    if wrong or lacking:
        raise InputError(
            f"{source} holds the weights of another network than {name}: {listing(wrong or lacking)} do not fit"
        )
    network.load_state_dict({key: own[key] if key in fresh else state.get(key, own[key]) for key in own})
    return f"weights from {source}" + (", a new last layer" if fresh else "")


def _fit_channels(state, first, own, origin, config, source):
    """Make the first convolution of `state` fit the channels that the network sees."""
    if first not in state or first not in own:
        return state
    if first == STEM and state[first].shape[1] == 3 != own[first].shape[1]:
        return state | {first: widen_stem(state[first], own[first].shape[1], config["stem"])}
    before, now = (parse_channels(dictionary.get("channels", config["channels"])) for dictionary in (origin, config))
    if before == now:
        return state
    if before.mix or now.mix or set(before.names) != set(now.names):
        raise InputError(
            f"{source} was trained on the channels {origin['channels']}, not {config['channels']}; give --channels"
        )
    return state | {first: state[first][:, [before.names.index(channel) for channel in now.names]]}


def imagenet_state(name):
    """(path, state dict) of the ImageNet weights: from input/weights/, torch's cache, or one of the two publishers."""
    if name != "se_resnext50_32x4d":
        raise InputError(f"there are no ImageNet weights for {name}; use --weights none or a file")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    names = [url.rpartition("/")[2] for url in IMAGENET_URLS]
    for path in [folder / file for folder in (WEIGHT_FOLDER, cache) for file in names]:
        if path.is_file():
            return path, read_state(path)[0]
    for url, file in zip(IMAGENET_URLS, names, strict=True):
        try:
            print(f"fetching {url}")
            WEIGHT_FOLDER.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(WEIGHT_FOLDER / file), hash_prefix=file[-12:-4])
            return WEIGHT_FOLDER / file, read_state(WEIGHT_FOLDER / file)[0]
        except (OSError, RuntimeError) as error:  # no network, no such file, or a file whose hash is wrong
            print(f"  not to be had there ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    with contextlib.suppress(OSError):
        WEIGHT_FOLDER.rmdir()  # if it was made for nothing
    raise InputError(
        f"no ImageNet weights for {name}: neither publisher answers; put {names[0]} or {names[1]} "
        f"into {WEIGHT_FOLDER}{os.sep}, or start with --weights none"
    )


def read_state(path):
    """-> (state dict {name: tensor}, config of the run it comes from, {} where the file does not say).

    Reads .pt/.pth files, checkpoints of the kit and the GapNet-PL authors' .npz.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--weights {path} does not exist; give a file, imagenet or none")
    if path.suffix == ".npz":
        return read_gapnet_authors(path), GAPNET_AUTHORS
    content = checkpoint.load_tensors(path)
    state, config = content, {}
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            state, config = content[key], content.get("config") or {}
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict (names and tensors)")
    return dict(state), config if isinstance(config, dict) else {}


def read_gapnet_authors(path):
    """GapNet-PL as published by its authors: ConvLayer-1…8 (height, width, in, out) and FC-1…3 (in, out)."""
    own = list(models.build("gapnet_pl", len(CYTO_CLASSES), 4).state_dict())
    sources = [f"{kind}-{i + 1}/{part}_{tail}" for kind, count, tail in (("ConvLayer", 8, "conv"), ("FC", 3, "dense"))
               for i in range(count) for part in "Wb"]  # fmt: skip
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tensors = [torch.from_numpy(arrays[source].astype(np.float32)) for source in sources]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not the GapNet-PL authors' weight file ({str(error)[:120]})") from None
    return {key: _to_torch(tensor) for key, tensor in zip(own, tensors, strict=True)}


def _to_torch(tensor):
    """(height, width, in, out) -> (out, in, height, width); (in, out) -> (out, in)."""
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor.flatten()


# How the authors trained and used their network: channel order, normalisation and patches of the published weights.
GAPNET_AUTHORS = {
    "model": "gapnet_pl", "stem": "mean", "channels": "bgry", "planes": 4, "size": 1024, "fit": "crop",
    "normalise": "image", "mean": None, "std": None, "amp": "off", "batch_size": 40, "class_names": list(CYTO_CLASSES),
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="the authors' .npz of GapNet-PL, 22 arrays")
    parser.add_argument("-o", "--out", required=True, help="run directory to write best.pt and config.json to")
    args = parser.parse_args()
    out = Path(args.out)
    check_writable(out / "best.pt")
    if Path(args.weights).suffix != ".npz":
        raise InputError(f"{args.weights} is no .npz; give the authors' file")
    config = GAPNET_AUTHORS | {"weights": str(args.weights)}
    network = models.build("gapnet_pl", len(CYTO_CLASSES), 4)
    told = load_start(network, config)
    checkpoint.save(out / "best.pt", {"config": config, "model": network.state_dict(), "epoch": 0, "score": None})
    write_json(out / "config.json", config)
    print(f"{told} -> {out / 'best.pt'}")


if __name__ == "__main__":
    run_script(main)
