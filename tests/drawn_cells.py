"""Cells drawn by hand: discs with a nucleus, in pairs that touch, in micrometres on a field of 164."""

from functools import lru_cache

import numpy as np

from utils.opencv import cv2

RGBY = ("red", "green", "blue", "yellow")
FIELD = 164
# Centre of each cell and its nucleus: two cells that touch, two whose nuclei touch too, two alone, one of them at the border.
CELLS = [(40, 40), (67, 40), (108, 46), (124, 46), (60, 120), (140, 163)]
RADIUS, NUCLEUS = 14, 8.2
FINE = 768  # pixels that the light is computed at


def draw(size, field=FIELD):
    """Draw the upper left part of `field` µm: -> image (size, size, 4) uint8, label image (size, size), truth."""
    light, truth = _light(field)
    method = cv2.INTER_AREA if size < FINE else cv2.INTER_LINEAR
    light = cv2.resize(light, (size, size), interpolation=method)
    noise = np.random.default_rng(0).normal(0.02, 0.006, light.shape)
    image = np.rint(np.clip(light + noise, 0, 1) * 255).astype(np.uint8)
    return image, cv2.resize(truth, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)


@lru_cache
def _light(field):
    y, x = (np.mgrid[:FINE, :FINE].astype(np.float32) + 0.5) * field / FINE
    away = np.stack([np.hypot(x - cx, y - cy) for cx, cy in CELLS])
    near, second = np.partition(away, 1, axis=0)[:2]
    seam = np.clip((second - near) / 3, 0.25, 1)  # cells end in a dark seam
    body = np.where(near < RADIUS, seam * (1.1 - 0.5 * near / RADIUS), 0)
    light = np.stack([0.5 * body, 0 * body, np.where(near < NUCLEUS, 0.7 * np.sqrt(seam), 0), 0.7 * body], axis=-1)
    return light, np.where(near < RADIUS, away.argmin(axis=0) + 1, 0).astype(np.uint16)
