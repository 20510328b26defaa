"""Starting weights: ImageNet files, checkpoints of this kit and of others, GapNet-PL as published."""

import contextlib
import os
import re
from pathlib import Path

import numpy as np
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
COUNTER = "num_batches_tracked"  # of batch norm, unused; files from before 2018 lack it


def load_start(network, config):
    """Load the starting weights `config.weights` (``none``, ``imagenet`` or a path) into `network`, in place.

    -> a message that describes what was loaded. Layers are matched by name, or by order if the file has the same layers
    under other names. An RGB stem is widened as `config.stem` specifies; a stem for other or more channels is
    rearranged. A head for other classes, and a head other than the file's, stay random. Raises InputError for the weights of another
    network.
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
    body = own if config.head == "own" else {key: value for key, value in own.items() if key not in last}
    state, ordered = match_by_order(state, body, {*stems, *last}, surplus=0 if body is own else 2)
    for stem in stems:
        if stem in state and state[stem].ndim == 4:
            state[stem] = _fit_channels(state[stem], own[stem], origin, config, source)
    same_classes = origin is None or (origin.class_names, origin.head) == (list(config.class_names), config.head)
    fits = same_classes and all(key in state and state[key].shape == own[key].shape for key in last)
    fresh = [] if fits or (same_classes and origin) else last
    deeper = [key for key in state if key not in own and state[key].ndim == 4 and "aux" not in key.lower()]
    wrong = [key for key in own if key not in fresh and key in state and state[key].shape != own[key].shape]
    missing = [key for key in own if key not in fresh and key not in state and not key.endswith(COUNTER)]
    if misfits := wrong or missing or deeper:
        other = f" (it was made for images of {origin.size} pixels)" if origin and origin.size != config.size else ""
        raise InputError(f"{source} holds weights of another network than {name}: {listing(misfits)} do not fit{other}")
    network.load_state_dict({key: own[key] if key in fresh else state.get(key, own[key]) for key in own})
    how = " (layers under other names, matched in order)" if ordered else ""
    return f"weights from {source}{how}{', a new last layer' if fresh else ''}"


def match_by_order(state, own, free, surplus=0):
    """Rename the tensors of `state` to the names of `own` in order: -> (state, whether it was renamed).

    This needs the same number of tensors, and pairs of the same kind (last part of the name: weight, bias,
    running_mean) and of the same shape, except for the names in `free` (stem and last layer). surplus: how many tensors `state` may have
    more at its end, its own last layer."""
    theirs, mine = ([key for key in part if not key.endswith(COUNTER)] for part in (state, own))
    if set(theirs) >= set(mine) - free or len(theirs) not in (len(mine), len(mine) + surplus):
        return state, False
    pairs = list(zip(theirs, mine))
    for a, b in pairs:
        same_kind = a.rpartition(".")[2] == b.rpartition(".")[2]
        if not same_kind or state[a].ndim != own[b].ndim or (b not in free and state[a].shape != own[b].shape):
            return state, False
    return {b: state[a] for a, b in pairs}, True


def _fit_channels(weight, own, origin, config, source):
    """Adapt a first convolution's weight (out, in, height, width) to the network's channels. own: its random weight."""
    planes = own.shape[1]
    if origin is None or origin.channels is None:  # three planes are RGB
        if weight.shape[1] != 3 or planes == 3:
            return weight
        return own if config.stem == "random" else widen_stem(weight, planes, config.stem)
    before, now = (parse_channels(part.channels) for part in (origin, config))
    if before == now:
        return weight
    if before.mix or now.mix or not set(now.names) <= set(before.names):
        text = f"was trained on the channels {origin.channels}, not {config.channels}; give --channels"
        raise InputError(f"{source} {text}")
    return weight[:, [before.names.index(channel) for channel in now.names]]


def check_apart_from_start(weights, ids):
    """Raise InputError if the run that wrote `weights` was trained on some of the validation images `ids`."""
    rows = Path(weights).parent / "rows.csv"
    if not Path(weights).is_file() or not rows.is_file():
        return
    table = read_table(rows, ["Id", "part"], what="the rows of a run")
    seen = set(table["Id"][table["part"] == "train"])
    if both := [id_ for id_ in ids if id_ in seen]:
        count = f"{plural(len(both), 'image')} of the {len(ids):,} to validate"
        fix = "start from the same fold of a run with the same folds file"
        raise InputError(f"{weights} was trained on {count}: {listing(both)}; {fix}")


def moments_of_start(config):
    """Return the RunConfig of the starting weights' run if it has a mean and std of the same channels, else None."""
    origin = read_state(config.weights)[1] if config.weights != "imagenet" else None
    return origin if origin and origin.channels == config.channels and origin.mean and origin.std else None


def imagenet_state(name, size):
    """Load ImageNet weights from input/weights/, torch's cache or a publisher: -> (path, state dict). timm loads its
    own networks, at `size` if that is fixed, since it knows the layout of its files."""
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
        WEIGHT_FOLDER.rmdir()  # only an empty one
    return InputError(
        f"no ImageNet weights for {name}: no publisher answers; put {' or '.join(files)} "
        f"into {WEIGHT_FOLDER}{os.sep}, or start with --weights none"
    )


def _from_timm(word, size):
    import timm  # here, since it takes seconds

    files = [f"{word}{ending}" for ending in (".safetensors", ".bin", ".pth")]
    local = next((path for file in files if (path := WEIGHT_FOLDER / file).is_file()), None)
    if local:
        read_file(local)  # raises InputError for a damaged or unsafe file
    overlay = {"file": str(local)} if local else {}
    WEIGHT_FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        options = {"pretrained_cfg_overlay": overlay, "cache_dir": WEIGHT_FOLDER, **external.size_for(word, size)}
        network = timm.create_model(word, pretrained=True, **options)
        return local or f"timm's {word}", network.state_dict()
    except Exception as error:  # a download or a stranger's file can raise any type
        if local:
            raise InputError(f"{local} is not a weight file of timm's {word} ({str(error)[:120]})") from None
        print(f"timm could not fetch {word} ({type(error).__name__})")
    raise _not_available(f"timm:{word}", files)


def _imagenet_urls(name, word):
    """URLs of a network's ImageNet weights, in the order to try. The file name ends with the start of its SHA-256."""
    if name == "pretrainedmodels":
        import pretrainedmodels  # imported here, since it takes 480 MB and half a second

        settings = pretrainedmodels.pretrained_settings[word]
        return (settings.get("imagenet", next(iter(settings.values())))["url"],)
    urls = models.NETWORKS[name].imagenet_urls if name in models.NETWORKS else ()
    if not urls:
        raise InputError(f"there are no ImageNet weights for {name}; use --weights none or a file")
    return urls


def read_state(path, own=None):
    """-> (state dict {name: tensor}, RunConfig of its run, or None if the file has none).

    Reads .safetensors, .pt and .pth files, of the kit and of others, and the GapNet-PL authors' .npz. own: the
    network's state dict; it selects one of several state dicts in a file. Without it the first is used.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"--weights {path} does not exist; give a file, imagenet or none")
    if path.suffix == ".npz":
        return read_gapnet_authors(path), GAPNET_AUTHORS
    content = read_file(path)
    states = {where: _without_prefix(state) for where, state in _states(content).items()}
    if not states:
        fix = "save one with torch.save(network.state_dict(), …)"
        raise InputError(f"{path} holds no state dict (names and tensors); {fix}")
    where = _choose(path, states, own)
    config = content.get("config") if where in USUAL else None
    named = isinstance(config, dict) and "class_names" in config
    return states[where], RunConfig.from_dict(config, path) if named else None


USUAL = (("state_dict",), ("model",))  # preferred keys of state dicts; the kit's is model


def _states(content):
    """Find the state dicts in a file's content, at the first level of nesting that has any: {keys on the way: state
    dict}. An optimiser's state is not a state dict: its tensors have numbers as names and lie deeper."""
    level, seen = {(): content}, set()
    for _ in range(3):
        if found := {where: value for where, value in level.items() if is_state(value) and (value or where in USUAL)}:
            return found
        inner = {}
        for where, outer in level.items():
            for key, value in outer.items() if isinstance(outer, dict) else ():
                if isinstance(value, dict) and id(value) not in seen:  # one dict may lie under many keys
                    seen.add(id(value))
                    inner[(*where, key)] = value
        level = inner
    return {}


def _without_prefix(state):
    """Remove the prefixes that DataParallel and torch.compile add to all names."""
    for prefix in ("module.", "_orig_mod."):
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return dict(state)


def _choose(path, states, own):
    """Choose a key of {where: state dict}: the only one with most names of `own`, else the one with a usual key."""
    fitting = [where for where, state in states.items() if own and 2 * len(own.keys() & state.keys()) > len(own)]
    left = fitting or list(states)
    usual = [where for where in USUAL if where in left]
    if len(left) > 1 and not usual and own is not None:
        shown = listing([".".join(map(str, where)) for where in left], show=6)
        raise InputError(f"{path} holds several state dicts ({shown}); save the one to start from in a file of its own")
    return (usual or left)[0]


def read_gapnet_authors(path):
    """Read the GapNet-PL authors' weights: ConvLayer-1…8 (height, width, in, out) and FC-1…3 (in, out)."""
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


# The authors' channel order, normalisation and patches, for their published weights.
GAPNET_AUTHORS = RunConfig(
    class_names=list(CYTO_CLASSES),
    model="gapnet_pl",
    stem="mean",
    tta=1,
    channels="bgry",
    planes=4,
    size=1024,
    fit="crop",
    normalise="image",
    amp="off",
    batch_size=40,
    input_pixel_size=0.08,
)
