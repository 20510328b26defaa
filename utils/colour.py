"""A channel that is stored as a colour image: grey in all planes, or one colour on black."""

import numpy as np

from utils.errors import InputError

EXACT = 0.02  # of full scale: what planes may differ where nothing was lost in compression
# JPEG halves the resolution of colour, which shows at edges: 99.9 % of pixels and the mean stay within these shares of the
# brightest pixels and of the brightest mean.
LOSSY, LOSSY_MEAN = 0.45, 0.05


def grey_of(data, path, lossy=False):
    """(H, W, planes) -> (H, W) of the same type. Planes: grey, RGB or BGR, and opacity behind where they are two or four.

    The planes must be equal, or all but one near 0 (a channel shown in red, green or blue), or two equal and the third near 0 (yellow).
    Raises InputError for every other image, since no single plane of it is the channel, and for one that is not opaque.
    """
    full = np.iinfo(data.dtype).max
    if data.shape[-1] % 2 == 0:
        if (data[..., -1] != full).any():
            raise InputError(
                f"{path} is partly transparent (it has data in its alpha plane); save the channel as a grey image"
            )
        data = data[..., :-1]
    planes = [data[..., number] for number in range(data.shape[-1])]
    means = [float(plane.mean()) for plane in planes]

    def near(a, b):
        """Is `a` about `b` (None: 0) everywhere?"""
        off = a if b is None else np.abs(a.astype(np.int32) - b)
        if not lossy:
            return off.max() <= EXACT * full
        return (
            off.mean() <= LOSSY_MEAN * max(means) + 1
            and np.quantile(off, 0.999) <= LOSSY * np.quantile(data, 0.999) + 2
        )

    bright = [plane for plane in planes if not near(plane, None)] or planes
    if all(near(plane, bright[0]) for plane in bright[1:]):
        return bright[0].copy() if len(bright) == 1 else np.mean(bright, axis=0).round().astype(data.dtype)
    raise InputError(
        f"{path} is a colour image whose red, green and blue planes differ; save each channel as a grey image of its own"
    )
