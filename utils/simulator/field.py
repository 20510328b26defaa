"""One layer of a scene in pixels: maps of its cells, textures, and lines and discs drawn at any width."""

from functools import cached_property, lru_cache

import numpy as np

from utils.opencv import cv2
from utils.simulator.cell import ANGLES, MITOSIS, TURN
from utils.simulator.scene import BEND_GRAIN, FIELD, MARGIN

BLOCK = 32  # windows are aligned to it, so that coarse textures can be computed at fewer pixels
FRACTION_BITS = 4  # OpenCV draws at 1/16 of a pixel


class Field:
    """The cells of one layer in pixels: the (height, width) part `window` of a `size` x `size` image.

    Maps are (height, width). owner: number of the cell, -1 outside. rim, edge: distance inward from the nuclear rim and
    from the cell's edge, micrometres. depth: 0 nuclear rim and inside .. 1 cell edge. contact: 1 where the nearest edge
    presses against a neighbour. shown: (number, Cell) of the cells in view. main: True for the first layer.
    """

    def __init__(self, scene, layer, size, shift=(0.0, 0.0)):
        """layer: number in `scene.layers`. shift: displacement of the view, (2,) micrometres."""
        self.pixel, self.shift = FIELD / size, np.asarray(shift, float)
        self.cells, self.main = scene.layers[layer], layer == 0
        self.bridges = scene.bridges if self.main else []
        self.debris = scene.debris if self.main else scene.debris[:0]
        self.unbend, self.texture, self.bent = scene.unbend, scene.texture, float(np.abs(scene.bend).max()) + 1
        left, top, right, bottom = (0, 0, size, size) if self.main else self._around(self.cells, size)
        self.window, self.shape = np.s_[top:bottom, left:right], (bottom - top, right - left)
        self.corner = self.shift + self.pixel * np.array([left, top])
        self.owner = np.full(self.shape, -1, np.int16)
        self.rim, self.edge = np.full(self.shape, -9, np.float32), np.full(self.shape, -9, np.float32)
        self.depth, self.contact = np.ones(self.shape, np.float32), np.zeros(self.shape, np.float32)
        self.shown = []
        if right > left and bottom > top:
            bent = self._sample(scene.bend, BEND_GRAIN)
            for axis, count in enumerate(self.shape[::-1]):
                steps = np.arange(count, dtype=np.float32) + 0.5
                place = np.float32(self.pixel) * steps + np.float32(self.corner[axis])
                bent[..., axis] += place if axis == 0 else place[:, None]
            self.shown = [(number, cell) for number, cell in enumerate(self.cells) if self._map(number, cell, bent)]

    def _around(self, cells, size):
        """-> bounding box of these cells: left, top, right, bottom in pixels."""
        low = np.min([cell.centre - cell.outline.max() - self.bent for cell in cells], axis=0)
        high = np.max([cell.centre + cell.outline.max() + self.bent for cell in cells], axis=0)
        low, high = (np.clip((edge - self.shift) / self.pixel, 0, size) for edge in (low, high))
        low, high = np.floor(low / BLOCK).astype(int) * BLOCK, np.ceil(high / BLOCK).astype(int) * BLOCK
        return *low, *np.minimum(high, size)

    def _sample(self, coarse, grain, skip=(0, 0)):
        """Interpolate a texture to every pixel: knots `grain` micrometres apart, from `skip` knots before -MARGIN."""
        height, width = self.shape
        fewer = 1  # coarse textures are computed at fewer pixels and enlarged
        while 5 * fewer * self.pixel < grain and height % (4 * fewer) == width % (4 * fewer) == 0:
            fewer *= 2
        step = fewer * self.pixel / grain
        start = (self.corner + 0.5 * fewer * self.pixel + MARGIN) / grain + skip
        matrix = np.array([[step, 0, start[0]], [0, step, start[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        few = width // fewer, height // fewer
        texture = cv2.warpAffine(coarse, matrix, few, flags=flags, borderMode=cv2.BORDER_REFLECT)
        return cv2.resize(texture, (width, height)) if fewer > 1 else texture

    def _map(self, number, cell, bent):
        """Add one cell to the maps; return whether it is in view. bent: the pixels' positions, (height, width, 2)."""
        reach = cell.outline.max() + self.bent
        low, high = ((cell.centre + side * reach - self.corner) / self.pixel for side in (-1, 1))
        low = np.clip(low, 0, self.shape[::-1]).astype(int)
        high = np.clip(high + 1, 0, self.shape[::-1]).astype(int)
        if (high <= low).any():
            return False
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        fine = ANGLES * max(1, round(FIELD / self.pixel) // 512)
        x, y = (bent[window][..., axis] - np.float32(cell.centre[axis]) for axis in (0, 1))
        radius, angle = cv2.cartToPolar(x, y)
        ray = (angle * (fine / (2 * np.pi))).astype(np.int32) % fine
        nucleus, outline = (_finer(radii, fine) for radii in (cell.nucleus, cell.outline))
        rim_here, edge_here = nucleus[ray], outline[ray]
        edge = (edge_here - radius) * _slant(outline)[ray]
        inside = (edge > -0.5 * self.pixel) & (self.rim[window] <= 0)  # arms do not cover nuclei
        if not inside.any():
            return False
        rim = (rim_here - radius) * _slant(nucleus)[ray]
        depth = np.clip((radius - rim_here) / np.maximum(edge_here - rim_here, 0.1), 0, 1)
        contact = _finer(cell.contact, fine)[ray]
        maps = (self.owner, self.edge, self.rim, self.depth, self.contact)
        for whole, own in zip(maps, (number, edge, rim, depth, contact)):
            np.copyto(whole[window], own, where=inside)
        return True

    @cached_property
    def dividing(self):
        """(cells,) bool: cells in mitosis."""
        return np.array([cell.stage == MITOSIS for cell in self.cells])

    @cached_property
    def nucleus(self):
        """1 inside nuclei; dividing cells have none."""
        return np.clip(self.rim / self.pixel + 0.5, 0, 1) * self.per_cell(~self.dividing)

    @cached_property
    def body(self):
        """1 inside cells, nucleus included."""
        return np.clip(self.edge / self.pixel + 0.5, 0, 1)

    @cached_property
    def cytoplasm(self):
        """Inside cells and outside nuclei, weighted by thickness, which falls towards the edge."""
        flat = self.per_cell([cell.kind.flat for cell in self.cells] * ~self.dividing)
        return (self.body - self.nucleus) * ((1 - flat) + flat * (0.4 + 0.6 * (1 - self.depth)))

    @cached_property
    def nucleoli(self):
        canvas = self.blank()
        if self.shown:
            holes = np.concatenate([cell.nucleoli for _, cell in self.shown])
            self.discs(canvas, holes[:, :2], holes[:, 2])
        rough = 0.25 * self.noise(np.random.default_rng((self.texture, 3)), 1.3)
        return np.clip(self.soft(canvas, 0.55) * 2.2 - 0.7 + rough, 0, 1) * self.nucleus

    @cached_property
    def chromosomes(self):
        canvas = self.blank()
        for _, cell in self.shown:
            if cell.chromosomes is not None:
                self.lines(canvas, cell.chromosomes, 0.9)
        return self.soft(canvas, 0.25)

    def per_cell(self, values):
        """Map values (number of cells,) to the cells' pixels: (height, width) float32, 0 outside."""
        return np.append(np.asarray(values, np.float32), np.float32(0))[self.owner]

    @cached_property
    def _numbers(self):
        return self.owner.ravel().astype(np.intp) + 1

    def sums(self, light):
        """Integrate a map over each cell's pixels: (height, width) -> (number of cells,), times square micrometres."""
        return np.bincount(self._numbers, light.ravel(), len(self.cells) + 1)[1:] * self.pixel**2

    def noise(self, rng, grain):
        """Smooth noise of about unit variance, fixed to the scene, with a grain of `grain` micrometres."""
        coarser = max(0, round(4 * np.log2(self.pixel / grain)))  # finer than a pixel averages out, as in a microscope
        tile = _noise_tile(coarser)
        room = len(tile) - int((FIELD + 2 * MARGIN) / grain) - 3
        skip = rng.integers(0, 2**31, 2) % room
        return self._sample(tile, grain, skip) * np.float32(1.4)

    def blank(self):
        return np.zeros(self.shape, np.uint8)

    def soft(self, canvas, width):
        """Convert a uint8 canvas to float32 0..1 and blur it by `width` micrometres."""
        light = canvas * np.float32(1 / 255)
        return cv2.GaussianBlur(light, (0, 0), width / self.pixel) if width > 0.3 * self.pixel else light

    def pixels(self, points):
        """Convert points of the unbent scene (N, P, 2) to OpenCV's fixed-point pixels."""
        points = np.asarray(points, np.float32)
        knots = (points + np.float32(MARGIN)) * np.float32(1 / BEND_GRAIN)
        moved = cv2.remap(self.unbend, knots, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        place = (points + moved - self.corner.astype(np.float32)) * np.float32(1 / self.pixel)
        return np.rint((place - np.float32(0.5)) * (1 << FRACTION_BITS)).astype(np.int32)

    def contains(self, point):
        """Return whether a point (2,) of the unbent scene is in view."""
        x, y = self.pixels(np.reshape(point, (1, 1, 2)))[0, 0] >> FRACTION_BITS
        return 0 <= x < self.shape[1] and 0 <= y < self.shape[0]

    def lines(self, canvas, paths, width, value=1.0):
        """Draw open polylines (F, P, 2) of one `width` in micrometres on a uint8 canvas; `value` 0..1."""
        if len(paths):
            self.strokes(canvas, self.pixels(paths), width, value)

    def strokes(self, canvas, pixels, width, value=1.0):
        """Like `lines`, for paths converted by `pixels`."""
        wanted = width / self.pixel
        thickness = max(1, round(wanted))  # thinner lines are a pixel wide and fainter
        shade = 255 * min(float(value) * min(1.0, wanted), 1)
        cv2.polylines(canvas, list(pixels), False, shade, thickness, cv2.LINE_AA, FRACTION_BITS)

    def discs(self, canvas, centres, radii, values=1.0, ring=None):
        """Draw filled discs (N, 2), (N,) in micrometres on a uint8 canvas, or circles of line width `ring`."""
        if not len(centres):
            return
        radii = np.broadcast_to(radii, len(centres)) / self.pixel
        drawn = np.maximum(radii, 0.6)
        if ring is None:
            thickness, faint = -1, (radii / drawn) ** 2
        else:
            thickness, faint = max(1, round(ring / self.pixel)), min(1.0, ring / self.pixel)
        shades = 255 * np.minimum(np.broadcast_to(values, len(centres)) * faint, 1.0)
        fixed = np.rint(drawn * (1 << FRACTION_BITS)).astype(int)
        for place, radius, shade in zip(self.pixels(centres[None])[0].tolist(), fixed.tolist(), shades.tolist()):
            cv2.circle(canvas, place, radius, shade, thickness, cv2.LINE_AA, FRACTION_BITS)


@lru_cache
def _noise_tile(coarser=0):
    """White noise for all textures, (1024, 1024) float32, averaged over 2 ** (coarser / 4) knots."""
    tile = np.random.default_rng(0).standard_normal((1024, 1024), np.float32)
    return cv2.GaussianBlur(tile, (0, 0), 0.4 * 2 ** (coarser / 4)) if coarser else tile


def _finer(radii, count):
    """Interpolate radii by angle, (ANGLES,) -> (count,) float32."""
    if count == ANGLES:
        return radii.astype(np.float32)
    return np.interp(np.linspace(0, 2 * np.pi, count, endpoint=False), TURN, radii, period=2 * np.pi).astype(np.float32)


def _slant(radii):
    """Factor by angle that converts a difference of radii to a distance from the curve."""
    around = np.concatenate([radii[-1:], radii, radii[:1]])
    slope = (around[2:] - around[:-2]) * (len(radii) / (4 * np.pi))
    return (radii / np.hypot(radii, slope)).astype(np.float32)
