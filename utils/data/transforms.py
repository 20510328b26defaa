"""albumentations transforms that change some channels only, fast flips and turns, and a piecewise affine map.

Fluorescence channels are independent measurements: the stains of the reference channels vary between plates, the
protein is what the network classifies. albumentations' own transforms treat all channels alike. Images are (H, W, C)
uint8 or float32 in [0, 1].
"""

import albumentations as A
import numpy as np

from utils.opencv import cv2


class ChannelTransform(A.ImageOnlyTransform):
    """Base of transforms of some channels, with one random strength for all of them or, if `separate`, one for each.

    channels: their indices. strength: range (low, high) that it is drawn from.
    """

    separate = False

    def __init__(self, channels, strength):
        super().__init__(p=1)
        self.channels, self.strength = channels, strength

    def draw(self, generator):
        """Return a random strength per channel, as `change(plane, strength)` takes it."""
        drawn = generator.uniform(*self.strength, len(self.channels) if self.separate else 1)
        return np.broadcast_to(drawn, len(self.channels))

    def get_params(self):
        return {"steps": [(self, self.draw(self.random_generator))]}

    def apply(self, img, steps, **_):
        planes = list(cv2.split(img))
        for transform, drawn in steps:
            for channel, strength in zip(transform.channels, drawn, strict=True):
                planes[channel] = transform.change(planes[channel], strength)
        return cv2.merge(planes).reshape(img.shape)


class OneOfEach(ChannelTransform):
    """One ChannelTransform of each group in sequence, at random. In place of a OneOf after another, it splits the image
    into channels only once, which saves half of the time."""

    def __init__(self, groups):
        super().__init__([], (0, 0))
        self.groups = groups

    def get_params(self):
        chosen = [self.py_random.choice(group) for group in self.groups]
        return {"steps": [(transform, transform.draw(self.random_generator)) for transform in chosen]}


def _linear(plane, slope, offset=0.0):
    """Return slope x plane + offset (as a fraction of full scale), clipped to the range of the dtype."""
    if plane.dtype == np.uint8:
        return cv2.LUT(plane, np.clip(np.arange(256) * slope + 255 * offset + 0.5, 0, 255).astype(np.uint8))
    return np.clip(plane * np.float32(slope) + np.float32(offset), 0, 1)


def _filtered(plane, kernel):
    out = cv2.filter2D(plane, -1, kernel.astype(np.float32))
    return out if plane.dtype == np.uint8 else np.clip(out, 0, 1)


class Multiply(ChannelTransform):
    """Brightness times a factor, a separate one for each channel."""

    separate = True

    def change(self, plane, factor):
        return _linear(plane, factor)


class Contrast(ChannelTransform):
    """Distance from grey value 128 times a factor."""

    def change(self, plane, factor):
        return _linear(plane, factor, 128 / 255 * (1 - factor))


_SAME = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])
_EDGES = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])
_OUTLINES = np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]])


class Edges(ChannelTransform):
    """The image's edges (its Laplacian), blended in with a weight."""

    def change(self, plane, weight):
        return _filtered(plane, (1 - weight) * _SAME + weight * _EDGES)


class Sharpen(ChannelTransform):
    """A sharpened copy, blended in with a weight. lightness: range of the copy's brightness, 1 for that of the image."""

    def __init__(self, channels, strength, lightness):
        super().__init__(channels, strength)
        self.lightness = lightness

    def draw(self, generator):
        lightness = generator.uniform(*self.lightness)
        return [(weight, lightness) for weight in super().draw(generator)]

    def change(self, plane, strength):
        weight, lightness = strength
        return _filtered(plane, (1 - weight) * _SAME + weight * (lightness * _SAME + _OUTLINES))


class Holes(ChannelTransform):
    """Black squares, a quarter of the image wide, others in each channel. strength: fraction that they cover on average."""

    GRID = 4

    def draw(self, generator):
        return [generator.random((self.GRID, self.GRID)) < fraction for fraction in super().draw(generator)]

    def change(self, plane, cells):
        height, width = plane.shape
        for row, column in np.argwhere(cells):
            rows = slice(row * height // self.GRID, (row + 1) * height // self.GRID)
            plane[rows, column * width // self.GRID : (column + 1) * width // self.GRID] = 0
        return plane


class D4(A.D4):
    """albumentations' flips and quarter turns, all eight equally likely, computed by OpenCV in a fifth of the time."""

    TRANSPOSED = {"t", "r90", "r270", "hvt"}
    FLIPS = {"v": 0, "r90": 0, "h": 1, "r270": 1, "r180": -1, "hvt": -1}  # after transposing; OpenCV's codes

    def apply(self, img, group_element, **_):
        out = cv2.transpose(img) if group_element in self.TRANSPOSED else img
        out = cv2.flip(out, self.FLIPS[group_element]) if group_element in self.FLIPS else out
        return out.reshape(*out.shape[:2], -1)


class PiecewiseAffine(A.ImageOnlyTransform):
    """Move a grid of 4 x 4 nodes by normal deviates, never out of the image, and interpolate linearly between them.

    scale: range (low, high) of the standard deviation, as a fraction of the image's side. albumentations' own operation
    takes seconds, this one less than a millisecond.
    """

    NODES = 4

    def __init__(self, scale):
        super().__init__(p=1)
        self.scale = scale

    def get_params(self):
        scale = self.random_generator.uniform(*self.scale)
        return {"moves": self.random_generator.normal(0, scale, (2, self.NODES, self.NODES))}

    def apply(self, img, moves, **_):
        """moves: (2, NODES, NODES), how far right and below of each node the pixel is that it shows, in sides."""
        height, width = img.shape[:2]
        places = np.linspace(0, 1, self.NODES)
        x = np.clip(places + moves[0], 0, 1) * (width - 1)
        y = np.clip(places[:, None] + moves[1], 0, 1) * (height - 1)
        rows, columns = _node_weights(height, self.NODES), _node_weights(width, self.NODES)
        x, y = (rows @ nodes.astype(np.float32) @ columns.T for nodes in (x, y))
        return cv2.remap(img, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(img.shape)


def _node_weights(side, nodes):
    """(side, nodes): how much each pixel of a side takes from each node, the first and last of which are the ends."""
    distances = np.abs(np.linspace(0, nodes - 1, side)[:, None] - np.arange(nodes))
    return np.maximum(0, 1 - distances).astype(np.float32)
