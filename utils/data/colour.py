"""A channel that is stored as a colour image: grey in all planes, or one colour on black."""

import itertools

import numpy as np

from utils.errors import InputError
from utils.opencv import cv2

EXACT = 0.02  # of full scale: what planes may differ where compression loses nothing
BLOCK = 16  # pixels: JPEG keeps colour in blocks of 8, of every second pixel
# Levels of 255 that the mean of a block may be off its colour. JPEG's quality 50 rounds a block's mean to two levels.
LOSSY, CONVERTED = 5.0, 12.0
TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)  # JFIF 1.02, page 3
SHADES = [
    np.array(shade) for shade in itertools.product((0, 1), repeat=3) if any(shade)
]  # of red, green, blue: grey, yellow, …


def grey_of(data, path, lossy=False, ycc=None):
    """(H, W, planes) -> (H, W) of the same type. Planes: grey or RGB, and opacity behind where they are two or four.

    The planes must be equal, or all but one near 0 (a channel shown in red, green or blue), or two equal and the third near 0 (yellow).
    lossy: was the image compressed as JPEG does; ycc: (H, W, 3) uint8, its luma and chroma, where they are known. Then it is a block's
    mean that counts, since single pixels of colour are blurred.
    Raises InputError for every other image, since no single plane of it is the channel, and for one that is not opaque.
    """
    full = np.iinfo(data.dtype).max
    if data.shape[-1] % 2 == 0:
        if (data[..., -1] != full).any():
            raise InputError(
                f"{path} is partly transparent (it has data in its alpha plane); save the channel as a grey image"
            )
        data = data[..., :-1]
    if data.shape[-1] == 1:
        return data[..., 0].copy()
    shade = _lossy_shade(data * (255 / full), ycc) if lossy else _exact_shade(data, EXACT * full)
    if shade is None:
        raise InputError(
            f"{path} is a colour image whose red, green and blue planes differ; save each channel as a grey image of its own"
        )
    bright = data[..., shade.astype(bool)]
    return bright[..., 0].copy() if shade.sum() == 1 else bright.mean(-1).round().astype(data.dtype)


def _exact_shade(data, most):
    bright = np.array([data[..., plane].max() > most for plane in range(3)]).astype(int)
    if not bright.any():
        bright[:] = 1  # black
    shown = data[..., bright.astype(bool)].astype(np.int32)
    return bright if np.ptp(shown, axis=-1).max() <= most else None


def _lossy_shade(rgb, ycc):
    """The one of `SHADES` that the image consists of, within what compression may change; None where it is none."""
    most = LOSSY if ycc is not None else CONVERTED
    ycc = (
        rgb.astype(np.float32) @ TO_YCC.T.astype(np.float32)
        if ycc is None
        else ycc.astype(np.float32) - np.float32([0, 128, 128])
    )
    height, width = ycc.shape[:2]
    blocks = ycc[: height - height % BLOCK or height, : width - width % BLOCK or width]
    size = max(1, blocks.shape[1] // BLOCK), max(1, blocks.shape[0] // BLOCK)
    blocks = cv2.resize(blocks, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    off = []
    for shade in SHADES:
        direction = TO_YCC @ shade
        along = np.clip(
            blocks @ direction / (direction @ direction), 0, None
        )  # the channel's brightness, least squares
        off.append(np.abs(blocks - along[:, None] * direction).max())
    best = int(np.argmin(off))
    return SHADES[best] if off[best] <= most else None
