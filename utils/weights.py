"""Starting weights: ImageNet files, a checkpoint of the kit, a bare state dict, GapNet-PL as its authors published it.

`python -m utils.weights gapnet_pl_weights.npz -o runs/gapnet_pl_published/fold0` turns the authors' file into a run
directory, ready for predict.py and for `train.py --weights runs/gapnet_pl_published/fold0/best.pt`.
"""

import argparse
import os
import pickle
from pathlib import Path

import numpy as np
import torch

from utils import checkpoint, models
from utils.errors import InputError, listing, run_script
from utils.files import write_json
from utils.labels import CYTO_CLASSES
from utils.models.se_resnext50 import STEM, widen_stem

# Where se_resnext50_32x4d's ImageNet file is published, in the order they are tried: the name pretrainedmodels uses and
# the name timm uses for the same tensors. The letters after the dash begin the file's SHA-256.
IMAGENET_URLS = (
    "http://data.lip6.fr/cadene/pretrainedmodels/se_resnext50_32x4d-a260b3a4.pth",
    "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/legacy_se_resnext50_32x4d-f3651bad.pth",
)
WEIGHT_FOLDER = Path("input/weights")


def load_start(network, name, spec, stem):
    """Load starting weights into `network` (a `models.build(name, …)`), in place.

    `spec`: ``none``, ``imagenet`` or a path. Layers are matched by name; a first convolution for another number of
    planes is widened as `stem` says, and a last layer for other classes keeps its random start.
    Returns a sentence that says what was loaded.
    """
    if spec == "none":
        return "random weights"
    source, state = imagenet_state(name) if spec == "imagenet" else (Path(spec), read_state(spec))
    own = network.state_dict()
    if name == "se_resnext50_32x4d" and STEM in state and state[STEM].shape != own[STEM].shape:
        if state[STEM].shape[1] != 3:
            raise InputError(f"{source}: its first convolution has {state[STEM].shape[1]} planes, the network {own[STEM].shape[1]}")
        state[STEM] = widen_stem(state[STEM], own[STEM].shape[1], stem)
    last = [key for key in own if key.rpartition(".")[0] in ("head", "last_linear")]
    dropped = [key for key in last if key in state and state[key].shape != own[key].shape]
    for key in dropped:
        del state[key]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    lacking = [key for key in own if key not in state and key not in last and not key.endswith("num_batches_tracked")]
    if wrong or lacking:
        raise InputError(f"{source} holds the weights of another network than {name}: {listing(wrong or lacking)} do not fit")
    network.load_state_dict({key: state.get(key, own[key]) for key in own})
    return f"weights from {source}" + (", a new last layer" if dropped or not any(key in state for key in last) else "")


def imagenet_state(name):
    """(path, state dict) of the ImageNet weights: from input/weights/, torch's cache, or one of the two publishers."""
    if name != "se_resnext50_32x4d":
        raise InputError(f"there are no ImageNet weights for {name}; use --weights none or a file")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    names = [url.rpartition("/")[2] for url in IMAGENET_URLS]
    for path in [folder / file for folder in (WEIGHT_FOLDER, cache) for file in names]:
        if path.is_file():
            return path, read_state(path)
    for url, file in zip(IMAGENET_URLS, names, strict=True):
        try:
            print(f"fetching {url}")
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(cache / file), hash_prefix=file[-12:-4])
            return cache / file, read_state(cache / file)
        except (OSError, RuntimeError) as error:  # no network, no such file, or a file whose hash is wrong
            print(f"  not to be had there ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
    raise InputError(
        f"no ImageNet weights for {name}: neither publisher answers; put {names[0]} or {names[1]} "
        f"into {WEIGHT_FOLDER}{os.sep}, or start with --weights none"
    )


def read_state(path):
    """A state dict {name: tensor} from a .pt/.pth file, a checkpoint of the kit or the GapNet-PL authors' .npz."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--weights {path} does not exist; give a file, imagenet or none")
    if path.suffix == ".npz":
        return read_gapnet_authors(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not a file of tensors ({str(error).splitlines()[0][:120]})") from None
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path} holds no state dict (names and tensors)")
    return dict(state)


def read_gapnet_authors(path):
    """GapNet-PL as published by its authors: ConvLayer-1…8 (height, width, in, out) and FC-1…3 (in, out)."""
    own = list(models.build("gapnet_pl", len(CYTO_CLASSES), 4).state_dict())
    sources = [f"{kind}-{i + 1}/{part}_{tail}" for kind, count, tail in (("ConvLayer", 8, "conv"), ("FC", 3, "dense"))
               for i in range(count) for part in "Wb"]  # fmt: skip
    try:
        with np.load(path, allow_pickle=False) as arrays:
            tensors = [torch.from_numpy(arrays[source].astype(np.float32)) for source in sources]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not the GapNet-PL authors' weight file ({str(error)[:120]})") from None
    return {key: _to_torch(tensor) for key, tensor in zip(own, tensors, strict=True)}


def _to_torch(tensor):
    """(height, width, in, out) -> (out, in, height, width); (in, out) -> (out, in)."""
    return {4: lambda t: t.permute(3, 2, 0, 1), 2: lambda t: t.T}.get(tensor.ndim, lambda t: t.flatten())(tensor).contiguous()


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
    state = read_state(args.weights)
    network = models.build("gapnet_pl", len(CYTO_CLASSES), 4)
    told = load_start(network, "gapnet_pl", args.weights, "mean")
    config = GAPNET_AUTHORS | {"weights": str(args.weights)}
    out = Path(args.out)
    checkpoint.save(out / "best.pt", {"config": config, "model": state, "epoch": 0, "score": None})
    write_json(out / "config.json", config)
    print(f"{told} -> {out / 'best.pt'}")


if __name__ == "__main__":
    run_script(main)
