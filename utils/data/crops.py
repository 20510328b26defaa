"""The part of an image that a network sees: all of it, a zoomed part, a crop, or tiles. Images are (H, W, C)."""

import numpy as np

from utils.data.images import resize

LEAST_ZOOM = 2 / 3  # of the image's sides that --fit zoom crops, and of the crops at test time


def size_to_load(size, fit):
    """The arguments `size` and `enlarge` of `load_sample` for a network that sees `size`² pixels: whole images for crops
    of this size, and for ``zoom`` at most as large as the smallest crop needs."""
    if fit == "zoom":
        return {"size": round(size / LEAST_ZOOM), "enlarge": False}
    return {"size": size if fit == "resize" else None, "enlarge": True}


def random_zoom(image, size, rng):
    """Return a random part of (H, W, C), `LEAST_ZOOM` to 1 of its sides, anywhere, as (size, size, C)."""
    zoom = rng.uniform(LEAST_ZOOM, 1)
    height, width = (round(zoom * side) for side in image.shape[:2])
    return resize(random_crop(image, height, width, rng), size, size)


def random_crop(image, height, width, rng):
    """Return a random (height, width, C) part of (H, W, C)."""
    y, x = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape, (height, width)))
    return image[y : y + height, x : x + width]


def middle(image, size):
    """The middle size² of an image at least as large."""
    y, x = ((side - size) // 2 for side in image.shape[:2])
    return image[y : y + size, x : x + size]


def corner_crops(image, size, count):
    """Return the whole of (H, W, C), or with `count` 4 its corners, with 5 its centre too, each `LEAST_ZOOM` of the
    sides: (count, size, size, C)."""
    if count == 1:
        return resize(image, size, size)[None]
    shape = image.shape[:2]
    height, width = (round(LEAST_ZOOM * side) for side in shape)
    down, right = shape[0] - height, shape[1] - width
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)][:count]
    return np.stack([resize(image[y : y + height, x : x + width], size, size) for y, x in places])


def tiles(image, size):
    """Cut (H, W, C) into the fewest size x size tiles that cover it, evenly spaced: (T, size, size, C).

    With size 1024, a 2048² image gives the 2 x 2 patches of Rumetshofer et al., section 3.1; those of 1728² overlap.
    """
    rows, columns = (tile_starts(length, size) for length in image.shape[:2])
    return np.stack([image[y : y + size, x : x + size] for y in rows for x in columns])


def most_tiles(sizes, size, fit):
    """Return the number of tiles of the largest image. sizes: (N, 2) of height, width."""
    return 1 if fit not in ("crop", "tiles") else int(np.prod(-(-sizes.max(axis=0) // size)))


def tile_starts(length, size):
    count = -(-length // size)
    return [round(i * (length - size) / max(count - 1, 1)) for i in range(count)]
