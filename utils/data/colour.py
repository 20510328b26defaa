"""A channel that is stored as a colour image: grey in all planes, or one colour on black."""

import itertools

import numpy as np

from utils.errors import InputError
from utils.opencv import cv2

EXACT = 0.02  # of full scale: how much planes may differ if the compression is lossless
BLOCK = 16  # pixels: JPEG stores colour in blocks of 8, of every second pixel
# Levels of 255 that the mean of a block may be off its colour. JPEG's quality 50 rounds a block's mean to two levels.
LOSSY, CONVERTED = 5.0, 12.0
# JFIF 1.02, page 3
TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
# of red, green, blue: grey, yellow, …
SHADES = [np.array(shade) for shade in itertools.product((0, 1), repeat=3) if any(shade)]


def grey_of(data, path, lossy=False, ycc=None):
    """(H, W, planes) -> (H, W) of the same dtype. planes: grey or RGB, followed by alpha if there are two or four.

    The planes must be equal, or all but one near 0 (a channel shown in red, green or blue), or two equal and the third
    near 0 (yellow). lossy: the compression blurs colours, as JPEG does, so means of blocks are compared instead of
    pixels. ycc: (H, W, 3) uint8, its luma and chroma, if they are known. Raises InputError for every other image, since
    no plane of it is the channel, and for one that is not opaque.
    """
    full = np.iinfo(data.dtype).max
    if data.shape[-1] % 2 == 0:
        if (data[..., -1] != full).any():
            raise InputError(
                f"{path} is partly transparent (its alpha plane has data); save the channel as a grey image"
            )
        data = data[..., :-1]
    if data.shape[-1] == 1:
        return data[..., 0].copy()
    shade = _lossy_shade(data, ycc) if lossy else _exact_shade(data, EXACT * full)
    if shade is None:
        raise InputError(
            f"{path} is a colour image whose red, green and blue planes differ; save each channel as its own grey image, "
            "or name one as #red, #green or #blue in a table of images"
        )
    bright = data[..., shade.astype(bool)]
    return bright[..., 0].copy() if shade.sum() == 1 else bright.mean(-1).round().astype(data.dtype)


def _exact_shade(data, tolerance):
    bright = np.array([data[..., plane].max() > tolerance for plane in range(3)]).astype(int)
    if not bright.any():
        bright[:] = 1  # black
    shown = data[..., bright.astype(bool)].astype(np.int32)
    return bright if np.ptp(shown, axis=-1).max() <= tolerance else None


def _lossy_shade(data, ycc):
    """The one of `SHADES` that the image consists of, within the tolerance of compression; None if there is none."""
    if ycc is None:
        rgb = data * np.float32(255 / np.iinfo(data.dtype).max)
        tolerance, ycc = CONVERTED, rgb @ TO_YCC.T.astype(np.float32)
    else:
        tolerance, ycc = LOSSY, ycc.astype(np.float32) - np.float32([0, 128, 128])
    height, width = ycc.shape[:2]
    blocks = ycc[: height - height % BLOCK or height, : width - width % BLOCK or width]
    size = max(1, blocks.shape[1] // BLOCK), max(1, blocks.shape[0] // BLOCK)
    blocks = cv2.resize(blocks, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    deviations = []
    for shade in SHADES:
        direction = TO_YCC @ shade
        brightness = np.clip(blocks @ direction / (direction @ direction), 0, None)  # least squares
        deviations.append(np.abs(blocks - brightness[:, None] * direction).max())
    best = int(np.argmin(deviations))
    return SHADES[best] if deviations[best] <= tolerance else None
