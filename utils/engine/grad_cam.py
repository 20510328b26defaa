"""Grad-CAM: maps of the image regions that increase a class's logit.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
equations 1 and 2: the weight of each channel of the last spatial feature map is the spatial mean of the logit's
gradient; the weighted sum is clipped at 0. If a network ends in global average pooling and one linear layer, this is
the class activation map of Zhou et al., CVPR 2016, clipped at 0 and divided by the number of positions. For other
networks it is an approximation: some end in fully connected layers on the flattened map (deeploc, m_cnn), some read
several depths (gapnet_pl). With the head `attention` it is each position's part of the logit, clipped at 0.
`utils.notebook.blanking` measures what the maps are worth."""

import contextlib
from collections import namedtuple

import numpy as np
import torch
from torch.nn import functional

from utils.data.cache import Images
from utils.data.crops import size_to_load, tile_starts
from utils.data.dataset import Normaliser, Samples
from utils.data.images import parse_channels
from utils.data.loader import batches, make_loader
from utils.errors import InputError

Maps = namedtuple("Maps", "maps logits layer")
PIXELS = 2**21  # per forward and backward pass: eight images of 512²


def grad_cam(network, images, columns, layer=None):
    """Compute a map of one class for each image, in evaluation mode, without changing the network.

    images: (N, planes, S, S) float, network input on the network's device. columns: (N,) int, the class for each.
    layer: name of a layer (default: the network's `map_layer`, else the last one with a spatial output that influences
    the logits). -> Maps: maps (N, h, w) float32 >= 0; logits (N,) float32 of these classes; the layer's name. Raises
    InputError if no layer's output is spatial."""
    chosen = layer or getattr(network, "map_layer", None)
    if not chosen and hasattr(network, "num_prefix_tokens") and hasattr(network, "blocks"):
        # In timm's vision transformers, only the class token matters after this layer.
        chosen = f"blocks.{len(network.blocks) - 1}.norm1"
    outputs, handles = [], []
    for name, part in network.named_modules():
        if name and chosen in (None, name):
            handles.append(part.register_forward_hook(lambda _, inputs, out, name=name: outputs.append((name, out))))
    try:
        with evaluation_mode(network), torch.inference_mode(False), torch.enable_grad():
            # Gradients are needed even if all weights are frozen; + 0 makes a non-leaf for in-place operations.
            logits = network(images.detach().clone().requires_grad_() + 0)
            logits = logits[0] if isinstance(logits, tuple) else logits
            own = logits.float()[torch.arange(len(images)), torch.as_tensor(columns, device=logits.device)]
            name, features, slopes = _last_spatial(network, own, outputs)
    finally:
        for handle in handles:
            handle.remove()
    if name is None:
        what = f"no layer {chosen!r}" if chosen else "no layer"
        raise InputError(
            f"the network ({type(network).__name__}) has {what} with a spatial output, so no map can be drawn"
        )
    maps = (slopes.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0)
    return Maps(maps.cpu().numpy(), own.detach().cpu().numpy(), name)


@contextlib.contextmanager
def evaluation_mode(network):
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _last_spatial(network, own, outputs):
    """-> (name, features, gradients), both (N, channels, h, w) float32, of the last spatial output with a nonzero
    gradient, else of the last with any gradient; (None, None, None) without a spatial output."""
    last = None, None, None
    for name, output in reversed(outputs):
        if _spatial(network, output, len(own)) is None:
            continue
        slopes = torch.autograd.grad(own.sum(), output, retain_graph=True, allow_unused=True)[0]
        if slopes is None:  # not on the path to the logits
            continue
        found = name, *(_spatial(network, part.detach().float(), len(own)) for part in (output, slopes))
        if slopes.any():
            return found
        last = last if last[0] else found
    return last


def _spatial(network, output, count):
    """-> a layer's output as (N, channels, h, h), or None if it is not spatial. It may also be channels-last (N, h, h,
    channels), or tokens (N, number, channels) after the prefix tokens."""
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
    """Compute Grad-CAM of whole samples, which are read, cropped and normalised by the run's config.

    files: list of tuples of paths, one for each of the config's channels, or Images. columns: (N,) int, the class for each
    sample. -> list of (H, W) float32 maps at the size of the network's image, upsampled bilinearly, with the tiles' mean where
    they overlap; the layer's name and its (h, w)."""
    maps, place, images = [], None, _as_images(config, files)
    for inputs in network_inputs(network, config, images, columns):
        found = grad_cam(network, inputs.images, inputs.columns)
        place = found.layer, found.maps.shape[1:]
        large = enlarge(found.maps, config.size)
        for row, tiles in zip(inputs.rows, inputs.split(large), strict=True):
            maps.append(_join_tiles(tiles, images.shape(row)) if config.fit in ("crop", "tiles") else tiles[0])
    return maps, *place


def mean_map(networks, configs, images, column):
    """The map of one sample, the only one of `images`, and class, the mean over networks: -> (H, W) float32, as of
    `sample_maps`."""
    pairs = zip(networks, configs, strict=True)
    return np.mean([sample_maps(network, config, images, [column])[0][0] for network, config in pairs], axis=0)


def check_maps(networks, configs):
    """Raise InputError for a network of which no map can be computed."""
    for network, config in zip(networks, configs, strict=True):
        device = next(network.parameters()).device
        grad_cam(network, torch.zeros(1, config.planes, config.size, config.size, device=device), [0])


class Inputs(namedtuple("Inputs", "rows tiles images blank protein columns")):
    """The network's input for B samples with T tiles. rows (B,): of the samples; tiles (B,): their numbers of tiles;
    images, blank (black images): (T, planes, S, S); protein: (T, S, S) or None if not read; columns (T,): classes."""

    def split(self, values):
        """Split an array (T, …) by sample."""
        return np.split(values, np.cumsum(self.tiles)[:-1])


def network_inputs(network, config, files, columns):
    """Yield Inputs in batches of `PIXELS`. files: as of `sample_maps`."""
    device = next(network.parameters()).device
    channels = parse_channels(config.channels)
    samples = Samples(_as_images(config, files), channels, config.size, config.fit, config.normalise)
    normaliser = Normaliser(channels.mix, config.normalise, config.mean, config.std, device)
    for batch in batches(make_loader(samples, max(1, PIXELS // config.size**2), 0, device)):
        black = batch | {"images": torch.zeros_like(batch["images"])}
        protein = batch["images"][:, channels.names.index("green")].numpy() if "green" in channels.names else None
        rows, tiles = batch["rows"].numpy(), batch["tiles"].numpy()
        own = np.repeat(np.asarray(columns)[rows], tiles)
        yield Inputs(rows, tiles, normaliser(batch), normaliser(black), protein, own)


def _as_images(config, files):
    return (
        files if isinstance(files, Images) else Images(files, bits=config.bits, **size_to_load(config.size, config.fit))
    )


def enlarge(maps, size):
    """Upsample bilinearly: (N, h, w) -> (N, size, size) float32."""
    maps = torch.from_numpy(np.asarray(maps, np.float32))[:, None]
    return functional.interpolate(maps, (size, size), mode="bilinear", align_corners=False)[:, 0].numpy()


def _join_tiles(maps, shape):
    """Join maps of `utils.data.images.tiles`: (T, S, S) -> (H, W), the mean where tiles overlap."""
    size = maps.shape[1]
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    starts = ((y, x) for y in tile_starts(shape[0], size) for x in tile_starts(shape[1], size))
    for one, (y, x) in zip(maps, starts, strict=True):
        total[y : y + size, x : x + size] += one
        count[y : y + size, x : x + size] += 1
    return total / count
