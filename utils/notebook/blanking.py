"""How meaningful Grad-CAM maps are: how much a class's logit falls when the area that its map marks is blanked."""

import numpy as np
import torch
from torch.nn import functional

from utils.engine.grad_cam import enlarge, evaluation_mode, grad_cam, network_inputs


def measure_blanking(network, config, files, columns, fraction=0.1, draws=5, seed=0):
    """Measure how much a class's logit falls when a part of the image is black in all channels. If a map is meaningful,
    blanking the area that it marks lowers the logit most.

    -> {name: (N,) float32, logit before − after}: `marked` blanks this fraction of the pixels, those with the highest
    map; `random` the same shape, rotated and moved at random (mean of `draws`); `brightest` an equal area with the
    brightest protein, at the map's resolution (left out if the protein is not read). NaN for an empty map. Each tile is
    blanked on its own; a sample's value is the mean over tiles with a nonempty map."""
    rng = np.random.default_rng(seed)
    falls = {}
    for inputs in network_inputs(network, config, files, columns):
        found = grad_cam(network, inputs.images, inputs.columns)
        size = inputs.images.shape[-1]
        marked = _highest(enlarge(found.maps, size), fraction)
        masks = {"marked": [marked], "random": [_move(marked, rng) for _ in range(draws)]}
        if inputs.protein is not None:
            coarse = functional.adaptive_avg_pool2d(torch.from_numpy(inputs.protein).float(), found.maps.shape[1:])
            masks["brightest"] = [_highest(enlarge(coarse, size), fraction)]
        marks = found.maps.any(axis=(1, 2))
        for name, ways in masks.items():
            fall = found.logits - np.mean([_blanked_logits(network, inputs, mask) for mask in ways], axis=0)
            tiles = zip(inputs.split(fall), inputs.split(marks), strict=True)
            falls.setdefault(name, []).extend(part[kept].mean() if kept.any() else np.nan for part, kept in tiles)
    return {name: np.array(parts, np.float32) for name, parts in falls.items()}


def _highest(maps, fraction):
    """(N, S, S) -> bool, true for the highest `fraction` of the pixels of each map."""
    flat = maps.reshape(len(maps), -1)
    order = np.argsort(-flat, axis=1, kind="stable")[:, : round(fraction * flat.shape[1])]
    chosen = np.zeros(flat.shape, bool)
    np.put_along_axis(chosen, order, True, axis=1)
    return chosen.reshape(maps.shape)


def _move(masks, rng):
    """Rotate each mask and shift it cyclically, at random."""
    size = masks.shape[1]
    return np.stack([np.roll(np.rot90(mask, rng.integers(4)), rng.integers(size, size=2), (0, 1)) for mask in masks])


@torch.inference_mode()
def _blanked_logits(network, inputs, masks):
    """-> logits (N,) of the inputs' classes, with the masks (N, S, S) black."""
    masks = torch.from_numpy(masks)[:, None].to(inputs.images.device)
    with evaluation_mode(network):
        logits = network(torch.where(masks, inputs.blank, inputs.images))
    return logits.float().cpu().numpy()[np.arange(len(masks)), inputs.columns]


def describe_blanking(falls, fraction=0.1):
    """Describe the result of `measure_blanking` in one line: means ± standard deviations over images."""
    kept = np.isfinite(falls["marked"])
    if not kept.any():
        return f"all {len(kept):,} maps are empty: nothing to blank"
    names = {"marked": "by the map", "random": "elsewhere, same shape", "brightest": "where the protein is brightest"}
    spread = min(1, kept.sum() - 1)
    own = {names[name]: fall[kept] for name, fall in falls.items()}
    parts = ", ".join(f"{fall.mean():.2f} ± {fall.std(ddof=spread):.2f} {name}" for name, fall in own.items())
    more = f"more by the map than elsewhere: {(falls['marked'] > falls['random'])[kept].sum():,} of {kept.sum():,}"
    text = f"{fraction:.0%} blanked, logit falls by {parts}; {more}"
    return text if kept.all() else f"{text}; {(~kept).sum():,} maps are empty"
