"""The microscope's camera: blur, haze, bleed-through, exposure, noise, 8 or 16 bits."""

import numpy as np

from utils.opencv import cv2
from utils.simulator.scene import FIELD

# Exposed brightness of a field's brightest parts (quantile .998 of its light at 64 x 64 points; 1 = white): median, and
# spread of the logarithm, of red, green, blue, yellow. With these, means and deviations of all pixels match the
# competition's train and test images; the external set is brighter.
EXPOSURE = {
    "train": ((0.64, 0.31, 0.68, 0.56), (0.37, 0.65, 0.33, 0.45)),
    "test": ((0.47, 0.29, 0.47, 0.42), (0.37, 0.65, 0.33, 0.45)),
    "external": ((0.85, 0.60, 0.85, 0.90), (0.35, 0.55, 0.30, 0.35)),
}
PHOTONS = (
    (20, 100),
    (8, 60),
    (120, 500),
    (22, 110),
)  # range per channel of the photons that make one of 512 x 512 pixels white
NOISE_SIZE = 512  # smaller images have less noise, as if reduced from this size


def photograph(rng, light, size, split, bits=8):
    """Expose `light` (S, S, 4) float32, 0 dark: (size, size, 4) uint8, or uint16 of 0..65535 for 16 `bits`.

    The same `rng` state gives the same exposure at every size.
    """
    drawn = FIELD / len(light)
    sharp = rng.uniform(0.14, 0.24) if rng.random() < 0.85 else rng.uniform(0.3, 0.7)  # sometimes out of focus
    if sharp > 0.3 * drawn:
        light = cv2.GaussianBlur(light, (0, 0), sharp / drawn)
    if size != len(light):
        light = cv2.resize(light, (size, size), interpolation=cv2.INTER_AREA)
    small = cv2.resize(light, (128, 128), interpolation=cv2.INTER_AREA if size >= 128 else cv2.INTER_LINEAR)
    white = np.maximum(np.quantile(small[::2, ::2].reshape(-1, 4), 0.998, axis=0), 0.02)
    light = light / white.astype(np.float32)
    light += cv2.resize(_haze(rng, small / white.astype(np.float32)), (size, size))
    light = light @ _bleed(rng)
    middle, spread = EXPOSURE[split]
    light *= (np.array(middle) * np.exp(rng.normal(0, spread))).astype(np.float32)
    corners = rng.uniform(0, 0.012, (2, 2, 4)).astype(np.float32)
    light += cv2.resize(corners, (size, size), interpolation=cv2.INTER_LINEAR)
    photons = np.exp(rng.uniform(*np.log(PHOTONS).T)).astype(np.float32)
    read = np.float32(rng.uniform(0.002, 0.012))
    black = rng.uniform((0.008, 0.015, 0.012, 0.008), (0.035, 0.06, 0.045, 0.035)).astype(np.float32)
    light = _noisy(
        rng, light, photons, read, np.float32(min(1.0, size / NOISE_SIZE))
    )  # last, since it draws a number per pixel
    depth = np.uint8 if bits == 8 else np.uint16
    return np.rint(np.clip(light - black, 0, 1) * np.iinfo(depth).max).astype(depth)


def _haze(rng, small):
    """Light from above and below the focal plane: (128, 128, 4) float32."""
    near, far = rng.uniform(0.01, (0.24, 0.14, 0.06, 0.14)), rng.uniform(0.0, (0.08, 0.05, 0.015, 0.05))
    around = cv2.GaussianBlur(small, (0, 0), 1.6) * near.astype(np.float32)
    return around + cv2.GaussianBlur(small, (0, 0), 9) * far.astype(np.float32)


def _bleed(rng):
    """Fraction of each channel (row) that appears in each channel (column): (4, 4) float32."""
    mix = np.eye(4)
    mix[0, 3], mix[3, 0], mix[1, 3], mix[2, 1], mix[0, 1] = rng.uniform(0, (0.08, 0.08, 0.05, 0.04, 0.04))
    return mix.astype(np.float32)


def _noisy(rng, light, photons, read, kept):
    """Add shot noise (by Anscombe's transform) and read noise, both scaled by `kept`."""
    noise = rng.standard_normal(light.shape, np.float32)
    counts = np.sqrt(np.maximum(light, 0) * photons + np.float32(0.375))
    shot = (counts + np.float32(0.5) * kept * noise) ** 2 - (np.float32(0.375) + np.float32(0.25) * kept**2)
    return shot / photons + read * kept * rng.standard_normal(light.shape, np.float32)
