"""Where does a network look? Grad-CAM: the places of a feature map that speak for a class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1
and 2: each channel of the last feature map that has places weighs as much as the mean over places of the logit's gradient;
the weighted sum is cut off at 0. Of a network that ends in a global average and one linear layer this is the class-activation
map of Zhou et al., CVPR 2016, cut off at 0 and divided by the number of places. Of any other, such as those that end in fully
connected layers on the flattened map (deeploc, m_cnn) or whose head sees several depths (gapnet_pl), it is an approximation.
`blanking` measures what a map is worth.
"""

import contextlib
from collections import namedtuple

import numpy as np
import torch
from torch.nn import functional

from utils.data.cache import Images
from utils.data.dataset import Normaliser, Samples
from utils.data.images import image_size, parse_channels, tile_starts
from utils.data.loader import batches, make_loader
from utils.errors import InputError

Maps = namedtuple("Maps", "maps logits layer")
AT_ONCE = 2**21  # pixels in one pass forward and back: eight pictures of 512²


def grad_cam(network, images, columns, layer=None):
    """Maps of one class for each picture, in evaluation mode; the network is left as it was.

    images: (N, planes, S, S) float network input on the network's device. columns: (N,) int, the class of each. layer: the
    name of a layer; else the network's own `map_layer`, else the last one whose output has places that the logits depend on.
    -> Maps: maps (N, h, w) float32, 0 or more; logits (N,) float32 of these classes; the layer's name. Raises InputError
    where no layer's output has places.
    """
    chosen = layer or getattr(network, "map_layer", None) or _last_tokens(network)
    layers = [(name, part) for name, part in network.named_modules() if name and chosen in (None, name)]
    seen = []
    with _evaluated(network), _watched(layers, seen), torch.inference_mode(False), torch.enable_grad():
        # A graph even where all weights are frozen, and no leaf, which an operation in place could not change.
        logits = network(images.detach().clone().requires_grad_() + 0)
        logits = logits[0] if isinstance(logits, tuple) else logits
        own = logits.float()[torch.arange(len(images)), torch.as_tensor(columns, device=logits.device)]
        found = _last_that_counts(network, own, seen)
    if found is None:
        what = f"no layer {chosen!r}" if chosen else "no layer"
        raise InputError(
            f"the network ({type(network).__name__}) has {what} whose output has places, so there is no map of it; name another layer"
        )
    name, features, slopes = found
    maps = (slopes.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0)
    return Maps(maps.cpu().numpy(), own.detach().cpu().numpy(), name)


def _last_tokens(network):
    """Of timm's vision transformers: after this layer only the class token counts, before it patches do too."""
    if hasattr(network, "num_prefix_tokens") and hasattr(network, "blocks"):
        return f"blocks.{len(network.blocks) - 1}.norm1"
    return None


@contextlib.contextmanager
def _evaluated(network):
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def _watched(layers, seen):
    """Append (name, output) of each layer to `seen` in the order in which they are done."""
    handles = [
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.append((name, output)))
        for name, layer in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _last_that_counts(network, own, seen):
    """-> (name, features, gradients), both (N, channels, h, w) float32, of the last layer that the logits depend on; of the last
    where they depend on none; None where no output has places."""
    first = None
    for name, output in reversed(seen):
        if _places(network, output, len(own)) is None:
            continue
        slopes = torch.autograd.grad(own.sum(), output, retain_graph=True, allow_unused=True)[0]
        if slopes is None:  # beside the path to the logits
            continue
        features, slopes = (_places(network, part.detach().float(), len(own)) for part in (output, slopes))
        first = first or (name, features, slopes)
        if slopes.any():
            return name, features, slopes
    return first


def _places(network, output, count):
    """A layer's output as (N, channels, h, h), or None where it has no places: also of layers whose channels are last (N, h, h,
    channels), and of tokens (N, number, channels) behind those that are no patch."""
    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or len(output) != count:
        return None
    if output.ndim == 3 and (prefix := getattr(network, "num_prefix_tokens", None)) is not None:
        side = round((output.shape[1] - prefix) ** 0.5)
        if side > 1 and side**2 == output.shape[1] - prefix:
            return output[:, prefix:].transpose(1, 2).unflatten(2, (side, side))
    if output.ndim == 4:
        for places in (output, output.permute(0, 3, 1, 2)):
            if places.shape[2] == places.shape[3] > 1:
                return places
    return None


def sample_maps(network, config, files, columns, layer=None):
    """Grad-CAM of whole samples, which are read, cut and normalised as the run's config says.

    files: list of tuples of paths, one for each of the config's channels. columns: (N,) int, the class of each sample.
    -> list of (H, W) float32 maps of each whole picture as the network sees it, enlarged bilinearly, tiles put together (the
    mean where they overlap); the layer's name and its (h, w).
    """
    pictures, where = [], None
    for inputs in _inputs(network, config, files, columns):
        found = grad_cam(network, inputs.images, inputs.columns, layer)
        where = found.layer, found.maps.shape[1:]
        large = _enlarge(found.maps, config["size"])
        for row, own in zip(inputs.rows, np.split(large, np.cumsum(inputs.tiles)[:-1]), strict=True):
            pictures.append(own[0] if config["fit"] == "resize" else _put_together(own, image_size(files[row][0])))
    return pictures, *where


Inputs = namedtuple("Inputs", "rows tiles images blank protein columns")


def _inputs(network, config, files, columns):
    """The network's inputs, a few samples at a time: rows and tiles (B,) of the samples; of each tile its image (planes, S, S), the
    same all black, the protein's channel (S, S) or None where it is not read, and its class."""
    device = next(network.parameters()).device
    channels = parse_channels(config["channels"])
    images = Images(files, config["size"] if config["fit"] == "resize" else None, bits=config.get("bits", 0))
    samples = Samples(images, channels, config["size"], config["fit"], config["normalise"])
    normaliser = Normaliser(channels.mix, config["normalise"], config["mean"], config["std"], device)
    for batch in batches(make_loader(samples, max(1, AT_ONCE // config["size"] ** 2), 0, device)):
        black = batch | {"images": torch.zeros_like(batch["images"])}
        protein = batch["images"][:, channels.names.index("green")].numpy() if "green" in channels.names else None
        tiles = batch["tiles"].numpy()
        own = np.repeat(np.asarray(columns)[batch["rows"].numpy()], tiles)
        yield Inputs(batch["rows"].numpy(), tiles, normaliser(batch), normaliser(black), protein, own)


def _enlarge(maps, size):
    """(N, h, w) -> (N, size, size) float32, bilinear."""
    maps = torch.from_numpy(np.asarray(maps, np.float32))[:, None]
    return functional.interpolate(maps, (size, size), mode="bilinear", align_corners=False)[:, 0].numpy()


def _put_together(maps, shape):
    """The maps (T, S, S) of `utils.data.images.tiles` -> (H, W) of the whole image, the mean where tiles overlap."""
    size = maps.shape[1]
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    starts = ((y, x) for y in tile_starts(shape[0], size) for x in tile_starts(shape[1], size))
    for one, (y, x) in zip(maps, starts, strict=True):
        total[y : y + size, x : x + size] += one
        count[y : y + size, x : x + size] += 1
    return total / count


def blanking(network, config, files, columns, share=0.1, draws=5, seed=0, layer=None):
    """How much a class's logit falls where a part of the picture is made black in all channels: a map that means something
    marks what the logit hangs on.

    -> {name: (N,) float32 logit before − after}: `marked`, the share of the pixels that the map marks most; `random`, an area of the
    same size and shape, turned and moved at random (the mean of `draws`); `brightest`, as large a part where the protein is
    brightest, seen as coarsely as the map (left out where the protein is not read). NaN where a map marks nothing. Of a
    sample cut into tiles each tile is tried by itself, and the mean over those whose map marks anything counts.
    """
    rng = np.random.default_rng(seed)
    falls = {}
    for inputs in _inputs(network, config, files, columns):
        found = grad_cam(network, inputs.images, inputs.columns, layer)
        size = inputs.images.shape[-1]
        marked = _highest(_enlarge(found.maps, size), share)
        masks = {"marked": [marked], "random": [_elsewhere(marked, rng) for _ in range(draws)]}
        if inputs.protein is not None:
            coarse = functional.adaptive_avg_pool2d(torch.from_numpy(inputs.protein).float(), found.maps.shape[1:])
            masks["brightest"] = [_highest(_enlarge(coarse, size), share)]
        for name, ways in masks.items():
            after = np.mean([_logits_without(network, inputs, mask) for mask in ways], axis=0)
            fall = np.where(found.maps.any(axis=(1, 2)), found.logits - after, np.nan)
            falls.setdefault(name, []).extend(_mean_of(tiles) for tiles in np.split(fall, np.cumsum(inputs.tiles)[:-1]))
    return {name: np.array(parts, np.float32) for name, parts in falls.items()}


def _mean_of(falls):
    """The mean of a sample's tiles whose map marks anything; NaN where none does."""
    kept = falls[np.isfinite(falls)]
    return kept.mean() if len(kept) else np.nan


def _highest(maps, share):
    """(N, S, S) -> bool, true for the `share` of each one's pixels that is highest."""
    flat = maps.reshape(len(maps), -1)
    chosen = np.zeros(flat.shape, bool)
    order = np.argsort(-flat, axis=1, kind="stable")[:, : round(share * flat.shape[1])]
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen.reshape(maps.shape)


def _elsewhere(masks, rng):
    """Each mask turned, and moved round the picture's edges, at random."""
    size = masks.shape[1]
    return np.stack([np.roll(np.rot90(mask, rng.integers(4)), rng.integers(size, size=2), (0, 1)) for mask in masks])


@torch.inference_mode()
def _logits_without(network, inputs, masks):
    """Logits (N,) of the inputs' classes with black where the masks (N, S, S) are true."""
    masks = torch.from_numpy(masks)[:, None].to(inputs.images.device)
    with _evaluated(network):
        logits = network(torch.where(masks, inputs.blank, inputs.images))
    return logits.float().cpu().numpy()[np.arange(len(masks)), inputs.columns]


def say_blanking(falls, share=0.1):
    """What `blanking` found, in one line: means ± standard deviation over pictures."""
    names = {"marked": "by the map", "random": "elsewhere, same shape", "brightest": "where the protein is brightest"}
    kept = np.isfinite(falls["marked"])
    if not kept.any():
        return f"none of {len(kept):,} maps marks anything, so there is nothing to make black"
    parts = [f"{falls[name][kept].mean():.2f} ± {falls[name][kept].std(ddof=min(1, kept.sum() - 1)):.2f} {text}"
             for name, text in names.items() if name in falls]  # fmt: skip
    more = int((falls["marked"] > falls["random"])[kept].sum())
    empty = f"; {(~kept).sum():,} maps mark nothing" if not kept.all() else ""
    return f"{share:.0%} black, logit falls by {', '.join(parts)}; more by the map than elsewhere: {more:,} of {kept.sum():,}{empty}"
