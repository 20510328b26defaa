"""albumentations transforms with a separate strength per channel.

Fluorescence channels are independent measurements: the stains of the reference channels vary between plates, the
protein is what the network classifies. albumentations' own transforms treat all channels alike. Images are (H, W, C)
uint8 or float32 in [0, 1]. `strengths` has one range (low, high) per channel to draw from, or None for no change.
"""

import albumentations as A
import numpy as np

from utils.opencv import cv2


class PerChannel(A.ImageOnlyTransform):
    def __init__(self, strengths):
        super().__init__(p=1)
        self.strengths = strengths

    def get_params(self):
        uniform = self.random_generator.uniform
        return {"drawn": [None if bounds is None else uniform(*bounds) for bounds in self.strengths]}

    def apply(self, img, drawn, **_):
        planes = [cv2.extractChannel(img, channel) for channel in range(len(drawn))]
        changed = [plane if s is None else self.change(plane, s) for plane, s in zip(planes, drawn, strict=True)]
        return cv2.merge(changed).reshape(img.shape)


def _linear(plane, slope, offset=0.0):
    """Return slope x plane + offset (as a fraction of full scale), clipped to the range of the dtype."""
    if plane.dtype == np.uint8:
        return cv2.LUT(plane, np.clip(np.arange(256) * slope + 255 * offset + 0.5, 0, 255).astype(np.uint8))
    return np.clip(plane * np.float32(slope) + np.float32(offset), 0, 1)


def _filtered(plane, kernel):
    out = cv2.filter2D(plane, -1, kernel.astype(np.float32))
    return out if plane.dtype == np.uint8 else np.clip(out, 0, 1)


class Multiply(PerChannel):
    """Brightness times a factor."""

    def change(self, plane, factor):
        return _linear(plane, factor)


class Contrast(PerChannel):
    """Distance from mid-grey times a factor."""

    def change(self, plane, factor):
        return _linear(plane, factor, 0.5 * (1 - factor))


_SAME = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
_EDGES = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
_SHARP = np.array([[-1, -1, -1], [-1, 9, -1], [-1, -1, -1]])


class Edges(PerChannel):
    """The image's edges (its Laplacian), blended in with a weight."""

    def change(self, plane, weight):
        return _filtered(plane, (1 - weight) * _SAME + weight * _EDGES)


class Sharpen(PerChannel):
    """A sharpened copy, blended in with a weight; the mean stays."""

    def change(self, plane, weight):
        return _filtered(plane, (1 - weight) * _SAME + weight * _SHARP)


class Holes(PerChannel):
    """Square holes, 1/32 of the image wide, that cover a fraction of the channel on average."""

    def get_params(self):
        drawn = super().get_params()["drawn"]
        grids = [None if part is None else self.random_generator.random((32, 32)) < part for part in drawn]
        return {"drawn": grids}

    def change(self, plane, cells):
        height, width = plane.shape
        for row, column in zip(*np.nonzero(cells), strict=True):
            plane[row * height // 32 : (row + 1) * height // 32, column * width // 32 : (column + 1) * width // 32] = 0
        return plane


class PiecewiseAffine(A.ImageOnlyTransform):
    """Move the centres of 4 x 4 equal parts by normal deviates and interpolate linearly between them.

    scale: range (low, high) of the standard deviation, as a fraction of the image's side. albumentations' own operation
    takes seconds, this one about a millisecond.
    """

    def __init__(self, scale, nodes=4):
        super().__init__(p=1)
        self.scale, self.nodes = scale, nodes

    def get_params(self):
        scale = self.random_generator.uniform(*self.scale)
        return {"moves": self.random_generator.normal(0, scale, (self.nodes, self.nodes, 2)).astype(np.float32)}

    def apply(self, img, moves, **_):
        height, width = img.shape[:2]
        shifts = cv2.resize(moves * np.float32([width, height]), (width, height), interpolation=cv2.INTER_LINEAR)
        shifts[..., 0] += np.arange(width, dtype=np.float32)
        shifts[..., 1] += np.arange(height, dtype=np.float32)[:, None]
        return cv2.remap(img, shifts, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101).reshape(img.shape)
