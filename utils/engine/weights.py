"""Starting weights: ImageNet files, checkpoints of this kit and of others, GapNet-PL as published."""

import contextlib
import os
import re
from pathlib import Path

import numpy as np
import timm
import torch

from utils import models
from utils.data.images import parse_channels
from utils.data.labels import CYTO_CLASSES
from utils.data.tables import read_table
from utils.engine.checkpoint import is_state, read_file
from utils.errors import InputError, first_line, listing, plural
from utils.files import destination
from utils.models import external
from utils.models.layers import widen_stem
from utils.runs.config import RunConfig
from utils.safe_load import read_npz

WEIGHT_FOLDER = Path("input/weights")
COUNTER = "num_batches_tracked"  # batch norm's; files from before 2018 lack it, and nothing depends on it


def load_start(network, config):
    """Load starting weights into `network`, in place: -> a sentence that says what was loaded.

    config: RunConfig, with `weights`: ``none``,
    ``imagenet`` or a path. Layers are matched by name, or if the file has the same layers under other names, by their
    order. A first convolution for RGB is widened as `stem` says; one for the same channels in another order, or for
    more channels, is rearranged. A last layer for other classes keeps its random start. Raises InputError for the
    weights of another network.
    """
    if config.weights == "none":
        return "random weights"
    name, own = config.model, network.state_dict()
    if config.weights == "imagenet":
        source, state, origin = *imagenet_state(name, config.size), None
    else:
        source = Path(config.weights)
        state, origin = read_state(source, own)
    stems = [key for key in models.parameters_of(network, network.stem_layers) if own[key].ndim == 4]
    last = models.parameters_of(network, network.head_layers)
    state, ordered = match_by_order(state, own, {*stems, *last})
    for stem in stems:
        if stem in state and state[stem].ndim == 4:
            state[stem] = _fit_channels(state[stem], own[stem].shape[1], origin, config, source)
    same_classes = origin is None or origin.class_names == list(config.class_names)
    fits = same_classes and all(key in state and state[key].shape == own[key].shape for key in last)
    fresh = [] if fits or (same_classes and origin) else last
    deeper = [key for key in state if key not in own and state[key].ndim == 4 and "aux" not in key.lower()]
    wrong = [key for key in own if key not in fresh and key in state and state[key].shape != own[key].shape]
    missing = [key for key in own if key not in fresh and key not in state and not key.endswith(COUNTER)]
    if misfits := wrong or missing or deeper:
        size = origin.size if origin else config.size
        other = f" (it was made for images of {size} pixels)" if size != config.size else ""
        raise InputError(
            f"{source} holds the weights of another network than {name}: {listing(misfits)} do not fit{other}"
        )
    network.load_state_dict({key: own[key] if key in fresh else state.get(key, own[key]) for key in own})
    how = " (layers under other names, matched in order)" if ordered else ""
    return f"weights from {source}{how}{', a new last layer' if fresh else ''}"


def match_by_order(state, own, free):
    """Rename the tensors of `state` to the names of `own`, if these are as many, in the same order, of the same kind
    (the last part of the name: weight, bias, running_mean) and, except for those named in `free` (stem and last
    layer), of the same shapes: -> (state, whether it was done)."""
    theirs, mine = ([key for key in part if not key.endswith(COUNTER)] for part in (state, own))
    if set(theirs) >= set(mine) - free or len(theirs) != len(mine):
        return state, False
    pairs = list(zip(theirs, mine, strict=True))
    for a, b in pairs:
        same_kind = a.rpartition(".")[2] == b.rpartition(".")[2]
        if not same_kind or state[a].ndim != own[b].ndim or (b not in free and state[a].shape != own[b].shape):
            return state, False
    return {b: state[a] for a, b in pairs}, True


def _fit_channels(weight, planes, origin, config, source):
    """A first convolution's weight (out, in, height, width) made to fit the channels that the network sees, `planes`
    of them."""
    if origin is None or origin.channels is None:  # three planes are RGB
        return widen_stem(weight, planes, config.stem) if weight.shape[1] == 3 != planes else weight
    before, now = (parse_channels(part.channels) for part in (origin, config))
    if before == now:
        return weight
    if before.mix or now.mix or not set(now.names) <= set(before.names):
        raise InputError(
            f"{source} was trained on the channels {origin.channels}, not {config.channels}; give --channels"
        )
    return weight[:, [before.names.index(channel) for channel in now.names]]


def check_apart_from_start(weights, ids):
    """Raise InputError if a run that training starts from was itself trained on images `ids` that now validate."""
    rows = Path(weights).parent / "rows.csv"
    if not Path(weights).is_file() or not rows.is_file():
        return
    table = read_table(rows, ["Id", "part"], what="the rows of a run")
    seen = set(table["Id"][table["part"] == "train"])
    if both := [id_ for id_ in ids if id_ in seen]:
        raise InputError(
            f"{weights} was trained on {plural(len(both), 'image')} of the {len(ids):,} to validate: {listing(both)}; "
            f"start from the same fold of a run with the same folds file"
        )


def moments_of_start(config):
    """The RunConfig of the run that the starting weights come from, if it has a mean and std of the same channels; else None."""
    origin = read_state(config.weights)[1] if config.weights != "imagenet" else None
    return origin if origin and origin.channels == config.channels and origin.mean and origin.std else None


def imagenet_state(name, size):
    """(path, state dict) of the ImageNet weights: from input/weights/, torch's cache, or a publisher. timm loads its
    own networks itself, at `size` if that is fixed: it knows each file's layout."""
    library, _, word = name.partition(":")
    if library == "timm":
        return _from_timm(word, size)
    urls = _imagenet_urls(library, word)
    files = list(dict.fromkeys(url.rpartition("/")[2] for url in urls))
    for folder in (WEIGHT_FOLDER, Path(torch.hub.get_dir()) / "checkpoints"):
        for path in (folder / file for file in files):
            if path.is_file():
                return path, read_state(path)[0]
    for url in urls:
        path = WEIGHT_FOLDER / url.rpartition("/")[2]
        prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
        try:
            print(f"fetching {url}")
            WEIGHT_FOLDER.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(destination(path)), hash_prefix=prefix and prefix[1])
            return path, read_state(path)[0]
        except (OSError, RuntimeError) as error:  # no network, no such file, or a file whose hash is wrong
            print(f"  not available there ({first_line(error)})")
    raise _not_available(name, files)


def _not_available(name, files):
    with contextlib.suppress(OSError):
        WEIGHT_FOLDER.rmdir()  # if it was made for nothing
    return InputError(
        f"no ImageNet weights for {name}: no publisher answers; put {' or '.join(files)} "
        f"into {WEIGHT_FOLDER}{os.sep}, or start with --weights none"
    )


def _from_timm(word, size):
    files = [f"{word}{ending}" for ending in (".safetensors", ".bin", ".pth")]
    local = next((path for file in files if (path := WEIGHT_FOLDER / file).is_file()), None)
    if local:
        read_file(local)  # raises InputError for a file that timm should not open
    overlay = {"file": str(local)} if local else {}
    WEIGHT_FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        options = {"pretrained_cfg_overlay": overlay, "cache_dir": WEIGHT_FOLDER, **external.size_for(word, size)}
        network = timm.create_model(word, pretrained=True, **options)
        return local or f"timm's {word}", network.state_dict()
    except Exception as error:  # whatever a download or someone's file can bring
        if local:
            raise InputError(f"{local} is no weight file of timm's {word} ({str(error)[:120]})") from None
        print(f"timm could not fetch {word} ({type(error).__name__})")
    raise _not_available(f"timm:{word}", files)


def _imagenet_urls(name, word):
    """Where a network's ImageNet weights are published, in the order to try: as pretrainedmodels knows, else
    of `NETWORKS`. The letters after the dash begin the file's SHA-256."""
    if name == "pretrainedmodels":
        import pretrainedmodels  # here, since it takes 480 MB and half a second

        settings = pretrainedmodels.pretrained_settings[word]
        return (settings.get("imagenet", next(iter(settings.values())))["url"],)
    urls = models.NETWORKS[name].imagenet_urls if name in models.NETWORKS else ()
    if not urls:
        raise InputError(f"there are no ImageNet weights for {name}; use --weights none or a file")
    return urls


def read_state(path, own=None):
    """-> (state dict {name: tensor}, RunConfig of the run it comes from, None if the file has none).

    Reads .safetensors, .pt and .pth files, of the kit and of others, and the GapNet-PL authors' .npz. own: the
    network's state dict, to choose by if a file holds several; without it the first is taken.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--weights {path} does not exist; give a file, imagenet or none")
    if path.suffix == ".npz":
        return read_gapnet_authors(path), GAPNET_AUTHORS
    content = read_file(path)
    states = {where: _without_prefix(state) for where, state in _states(content).items()}
    if not states:
        raise InputError(
            f"{path} holds no state dict (names and tensors); save one with torch.save(network.state_dict(), …)"
        )
    where = _choose(path, states, own)
    config = content.get("config") if where in USUAL else None
    named = isinstance(config, dict) and "class_names" in config
    return states[where], RunConfig.from_dict(config, path) if named else None


USUAL = (("state_dict",), ("model",))  # keys of state dicts that come before others; the kit's is model


def _states(content):
    """The state dicts in what a file holds: itself, else the values of a dict that are, else those in dicts in it:
    {keys that lead there: state dict}. States of an optimiser are none: their tensors have numbers for names, and lie
    deeper."""
    level, seen = {(): content}, set()
    for _ in range(3):
        if found := {where: value for where, value in level.items() if is_state(value) and (value or where in USUAL)}:
            return found
        inner = {}
        for where, outer in level.items():
            for key, value in outer.items() if isinstance(outer, dict) else ():
                if (
                    isinstance(value, dict) and id(value) not in seen
                ):  # a file may hold one dict under any number of keys
                    seen.add(id(value))
                    inner[(*where, key)] = value
        level = inner
    return {}


def _without_prefix(state):
    """A state dict without what several GPUs or torch.compile put before all its names."""
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _choose(path, states, own):
    """Which of the state dicts {where: state dict} to take: the only one with most names of `own`, else the one with
    a usual key."""
    fitting = [where for where, state in states.items() if own and 2 * len(own.keys() & state.keys()) > len(own)]
    left = fitting or list(states)
    usual = [where for where in USUAL if where in left]
    if len(left) > 1 and not usual and own is not None:
        shown = listing([".".join(map(str, where)) for where in left], show=6)
        raise InputError(f"{path} holds several state dicts ({shown}); save the one to start from in a file of its own")
    return (usual or left)[0]


def read_gapnet_authors(path):
    """GapNet-PL as published by its authors: ConvLayer-1…8 (height, width, in, out) and FC-1…3 (in, out)."""
    own = models.build("gapnet_pl", len(CYTO_CLASSES), 4).state_dict()
    layers = [f"ConvLayer-{i}/{{}}_conv" for i in range(1, 9)] + [f"FC-{i}/{{}}_dense" for i in range(1, 4)]
    names = [layer.format(part) for layer in layers for part in "Wb"]
    arrays = read_npz(path, names, "the GapNet-PL authors' weight file")
    tensors = [_to_torch(torch.from_numpy(array.astype(np.float32))) for array in arrays]
    return dict(zip(own, tensors, strict=True))


def _to_torch(tensor):
    """(height, width, in, out) -> (out, in, height, width); (in, out) -> (out, in)."""
    if tensor.ndim == 4:
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor.flatten()


# How the authors trained and used their network: channel order, normalisation and patches of the published weights.
GAPNET_AUTHORS = RunConfig(
    class_names=list(CYTO_CLASSES),
    model="gapnet_pl",
    stem="mean",
    channels="bgry",
    planes=4,
    size=1024,
    fit="crop",
    normalise="image",
    amp="off",
    batch_size=40,
)
