"""Grad-CAM: the places of a feature map that increase a class's logit.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017, equations 1
and 2: each channel of the last feature map with places is weighted by the mean over places of the logit's gradient; the
weighted sum is clipped at 0. For a network that ends in a global average and one linear layer this is the class-activation
map of Zhou et al., CVPR 2016, clipped at 0 and divided by the number of places. For any other, such as those that end in
fully connected layers on the flattened map (deeploc, m_cnn) or whose head reads several depths (gapnet_pl), it is an
approximation. `measure_blanking` tests how much a map means.
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
PIXELS = 2**21  # in one forward and backward pass: eight images of 512²


def grad_cam(network, images, columns, layer=None):
    """Maps of one class for each image, in evaluation mode; the network's state is not changed.

    images: (N, planes, S, S) float network input on the network's device. columns: (N,) int, the class of each. layer: the
    name of a layer (default: the network's `map_layer`, else the last one whose output has places that the logits depend on).
    -> Maps: maps (N, h, w) float32, 0 or more; logits (N,) float32 of these classes; the layer's name. Raises InputError
    if no layer's output has places.
    """
    chosen = layer or getattr(network, "map_layer", None) or _last_tokens(network)
    outputs, handles = [], []
    for name, part in network.named_modules():
        if name and chosen in (None, name):
            handles.append(part.register_forward_hook(lambda _, inputs, out, name=name: outputs.append((name, out))))
    try:
        with _evaluation(network), torch.inference_mode(False), torch.enable_grad():
            # A graph even if all weights are frozen, and no leaf, which an in-place operation could not change.
            logits = network(images.detach().clone().requires_grad_() + 0)
            logits = logits[0] if isinstance(logits, tuple) else logits
            own = logits.float()[torch.arange(len(images)), torch.as_tensor(columns, device=logits.device)]
            name, features, slopes = _last_that_counts(network, own, outputs)
    finally:
        for handle in handles:
            handle.remove()
    if name is None:
        what = f"no layer {chosen!r}" if chosen else "no layer"
        kind = type(network).__name__
        raise InputError(
            f"the network ({kind}) has {what} whose output has places, so it has no map; name another layer"
        )
    maps = (slopes.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0)
    return Maps(maps.cpu().numpy(), own.detach().cpu().numpy(), name)


def _last_tokens(network):
    """In timm's vision transformers: the last layer before which patches count, not only the class token."""
    if hasattr(network, "num_prefix_tokens") and hasattr(network, "blocks"):
        return f"blocks.{len(network.blocks) - 1}.norm1"
    return None


@contextlib.contextmanager
def _evaluation(network):
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _last_that_counts(network, own, outputs):
    """-> (name, features, gradients), both (N, channels, h, w) float32, of the last layer with a gradient that is not 0, else
    of the last with any; three None if no output has places."""
    last = None, None, None
    for name, output in reversed(outputs):
        if _places(network, output, len(own)) is None:
            continue
        slopes = torch.autograd.grad(own.sum(), output, retain_graph=True, allow_unused=True)[0]
        if slopes is None:  # not on the path to the logits
            continue
        found = name, *(_places(network, part.detach().float(), len(own)) for part in (output, slopes))
        if slopes.any():
            return found
        last = last if last[0] else found
    return last


def _places(network, output, count):
    """A layer's output as (N, channels, h, h), or None if it has no places. Channels may also be last (N, h, h, channels), and
    places may be tokens (N, number, channels) after the prefix tokens."""
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


def sample_maps(network, config, files, columns):
    """Grad-CAM of whole samples, which are read, cropped and normalised as the run's config says.

    files: list of tuples of paths, one for each of the config's channels. columns: (N,) int, the class of each sample.
    -> list of (H, W) float32 maps of each whole image as the network sees it, enlarged bilinearly, tiles joined (the mean
    where they overlap); the layer's name and its (h, w).
    """
    maps, place = [], None
    for inputs in _inputs(network, config, files, columns):
        found = grad_cam(network, inputs.images, inputs.columns)
        place = found.layer, found.maps.shape[1:]
        large = _enlarge(found.maps, config.size)
        for row, tiles in zip(inputs.rows, inputs.split(large), strict=True):
            maps.append(tiles[0] if config.fit == "resize" else _join_tiles(tiles, image_size(files[row][0])))
    return maps, *place


class Inputs(namedtuple("Inputs", "rows tiles images blank protein columns")):
    """The network's input for a few samples. rows: of the samples; tiles: their numbers of tiles, both (B,). Of all tiles (T):
    images and the same all black (T, planes, S, S), the protein's channel (T, S, S), None if it is not read, and the class."""

    def split(self, values):
        """One array per sample."""
        return np.split(values, np.cumsum(self.tiles)[:-1])


def _inputs(network, config, files, columns):
    """Yield the Inputs, a few samples at a time."""
    device = next(network.parameters()).device
    channels = parse_channels(config.channels)
    images = Images(files, config.size if config.fit == "resize" else None, bits=config.bits)
    samples = Samples(images, channels, config.size, config.fit, config.normalise)
    normaliser = Normaliser(channels.mix, config.normalise, config.mean, config.std, device)
    for batch in batches(make_loader(samples, max(1, PIXELS // config.size**2), 0, device)):
        black = batch | {"images": torch.zeros_like(batch["images"])}
        protein = batch["images"][:, channels.names.index("green")].numpy() if "green" in channels.names else None
        rows, tiles = batch["rows"].numpy(), batch["tiles"].numpy()
        yield Inputs(
            rows, tiles, normaliser(batch), normaliser(black), protein, np.repeat(np.asarray(columns)[rows], tiles)
        )


def _enlarge(maps, size):
    """(N, h, w) -> (N, size, size) float32, bilinear."""
    maps = torch.from_numpy(np.asarray(maps, np.float32))[:, None]
    return functional.interpolate(maps, (size, size), mode="bilinear", align_corners=False)[:, 0].numpy()


def _join_tiles(maps, shape):
    """The maps (T, S, S) of `utils.data.images.tiles` -> (H, W) of the whole image, the mean where tiles overlap."""
    size = maps.shape[1]
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    starts = ((y, x) for y in tile_starts(shape[0], size) for x in tile_starts(shape[1], size))
    for one, (y, x) in zip(maps, starts, strict=True):
        total[y : y + size, x : x + size] += one
        count[y : y + size, x : x + size] += 1
    return total / count


def measure_blanking(network, config, files, columns, fraction=0.1, draws=5, seed=0):
    """How much a class's logit falls when a part of the image is blanked, black in all channels. Blanking the area that a
    meaningful map marks lowers the logit most.

    -> {name: (N,) float32 logit before − after}: `marked`, the fraction of the pixels with the highest map; `random`, an area of
    the same size and shape, turned and moved at random (the mean of `draws`); `brightest`, an equal area where the protein
    is brightest, at the map's resolution (left out if the protein is not read). NaN for an empty map. Tiles are blanked one
    by one; a sample's value is the mean over its tiles with a map that is not empty.
    """
    rng = np.random.default_rng(seed)
    falls = {}
    for inputs in _inputs(network, config, files, columns):
        found = grad_cam(network, inputs.images, inputs.columns)
        size = inputs.images.shape[-1]
        marked = _highest(_enlarge(found.maps, size), fraction)
        masks = {"marked": [marked], "random": [_move(marked, rng) for _ in range(draws)]}
        if inputs.protein is not None:
            coarse = functional.adaptive_avg_pool2d(torch.from_numpy(inputs.protein).float(), found.maps.shape[1:])
            masks["brightest"] = [_highest(_enlarge(coarse, size), fraction)]
        marks = found.maps.any(axis=(1, 2))
        for name, ways in masks.items():
            fall = found.logits - np.mean([_blanked_logits(network, inputs, mask) for mask in ways], axis=0)
            tiles = zip(inputs.split(fall), inputs.split(marks), strict=True)
            falls.setdefault(name, []).extend(part[kept].mean() if kept.any() else np.nan for part, kept in tiles)
    return {name: np.array(parts, np.float32) for name, parts in falls.items()}


def _highest(maps, fraction):
    """(N, S, S) -> bool, true for this fraction of each one's pixels, the highest."""
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, : round(fraction * flat.shape[1])]
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen.reshape(maps.shape)


def _move(masks, rng):
    """Each mask turned, and moved around the image's edges, at random."""
    size = masks.shape[1]
    return np.stack([np.roll(np.rot90(mask, rng.integers(4)), rng.integers(size, size=2), (0, 1)) for mask in masks])


@torch.inference_mode()
def _blanked_logits(network, inputs, masks):
    """Logits (N,) of the inputs' classes with black where the masks (N, S, S) are true."""
    masks = torch.from_numpy(masks)[:, None].to(inputs.images.device)
    with _evaluation(network):
        logits = network(torch.where(masks, inputs.blank, inputs.images))
    return logits.float().cpu().numpy()[np.arange(len(masks)), inputs.columns]


def describe_blanking(falls, fraction=0.1):
    """The result of `measure_blanking` in one line: means ± standard deviations over images."""
    kept = np.isfinite(falls["marked"])
    if not kept.any():
        return f"all of {len(kept):,} maps are empty, so there is nothing to blank"
    names = {"marked": "by the map", "random": "elsewhere, same shape", "brightest": "where the protein is brightest"}
    spread = min(1, kept.sum() - 1)
    parts = [
        f"{fall[kept].mean():.2f} ± {fall[kept].std(ddof=spread):.2f} {names[name]}" for name, fall in falls.items()
    ]
    more = int((falls["marked"] > falls["random"])[kept].sum())
    text = f"{fraction:.0%} blanked, logit falls by {', '.join(parts)}; more by the map than elsewhere: {more:,} of {kept.sum():,}"
    return text if kept.all() else f"{text}; {(~kept).sum():,} maps are empty"
