"""Mixing: a training sample joined with another one of the training set, pixels and labels.

To add a way of mixing, add an entry to `MIXES`. CutMix is by Yun et al., ICCV 2019, mixup by Zhang et al., ICLR 2018.
Both weight the labels by share. With several classes per image the mixed image has the classes of both: the union of
the labels, which stay 0 or 1. So that they can be seen, each sample keeps a quarter of the image at least.
"""

from dataclasses import dataclass

import numpy as np

from utils.opencv import cv2

SHARE = (0.25, 0.75)  # of the image that is the other sample's, drawn uniformly


def cutmix(image, other, share, rng):
    """Copy a rectangle of `other` over the same place of `image`, both (H, W, C): -> the result, the rectangle's share
    of the area, which is `share` but for whole pixels. Its sides have the image's aspect ratio; it lies anywhere."""
    shape = image.shape[:2]
    height, width = (round(length * share**0.5) for length in shape)
    y, x = (int(rng.integers(length - part + 1)) for length, part in zip(shape, (height, width), strict=True))
    rows, columns = slice(y, y + height), slice(x, x + width)
    image = np.array(image)  # it may be a view of the packed file, which is read-only
    image[rows, columns] = other[rows, columns]
    return image, height * width / (shape[0] * shape[1])


def mixup(image, other, share, rng):
    """-> the weighted mean of two images (H, W, C), and `share`, the weight of `other`."""
    return cv2.addWeighted(image, 1 - share, other, share, 0).reshape(image.shape), share


def union(targets, other, share):
    """The labels of either sample: (classes,) each."""
    return np.maximum(targets, other)


def by_share(targets, other, share):
    """The mean of the labels, weighted by what is seen of each sample: (classes,) in [0, 1]."""
    return (1 - share) * targets + share * other


MIXES = {"cutmix": (cutmix, union), "mixup": (mixup, union), "cutmix_area": (cutmix, by_share)}
SOFT = [name for name, (_, labels) in MIXES.items() if labels is by_share]  # whose labels are not 0 or 1


@dataclass(frozen=True)
class Mix:
    """Mixes a sample with another one, with a probability. name: of `MIXES`."""

    name: str
    probability: float

    def __call__(self, one, other, rng):
        """one, other: (image (H, W, C) uint8, or float32 in [0, 1]; labels (classes,) float32): -> image, labels."""
        pixels, labels = MIXES[self.name]
        images = [one[0], other[0]]
        if images[0].dtype != images[1].dtype:
            images = [image / np.float32(255) if image.dtype == np.uint8 else image for image in images]
        image, share = pixels(*images, rng.uniform(*SHARE), rng)
        return image, labels(one[1], other[1], np.float32(share))


def build(name, probability):
    """Return the Mix of a name, or None for ``none``."""
    return None if name == "none" else Mix(name, probability)
