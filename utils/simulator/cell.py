"""One cell: its shape between neighbours, its contents, its division. Points are (x, y) in micrometres.

A cell is star-shaped about the centre of its nucleus: nucleus and outline are radii by angle, so that an angle and a
depth (`Cell.at`) always lie in the same part of the cell. The cell's own seed determines its contents, whatever part of
the field is drawn.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

ANGLES = 512
TURN = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
COSINES, SINES = np.cos(np.outer(np.arange(41), TURN)), np.sin(np.outer(np.arange(41), TURN))
INTERPHASE, DAUGHTER, MITOSIS = range(3)


def unit(angle):
    """Directions of length 1: (...) radians -> (..., 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _rays(angle):
    """-> index of each angle in an array of radii by angle, 0 .. ANGLES - 1."""
    return (angle * (ANGLES / (2 * np.pi))).astype(int) % ANGLES


@dataclass
class Cell:
    """One cell: `nucleus`, `outline`, `contact` are (ANGLES,)."""

    kind: tuple  # of CELL_TYPES
    seed: int
    stage: int
    centre: np.ndarray
    nucleus: np.ndarray
    outline: np.ndarray
    contact: np.ndarray  # 0 free edge .. 1 pressed against a neighbour
    axis: float  # direction of the long axis, in mitosis of the spindle
    pole: float  # the side of the nucleus where Golgi and organising centre lie
    radius: float  # mean radius of the nucleus
    brightness: np.ndarray  # (3,) of red, blue, yellow
    chromosomes: np.ndarray = None  # (lines, points, 2), only in mitosis

    def stream(self, key):
        """Return the cell's random generator for purpose `key`, a number."""
        return np.random.default_rng((self.seed, key + 1))  # without + 1, key 0 would be the seed alone

    def at(self, angle, depth):
        """Points (..., 2) at `angle` and `depth`: -1 centre, 0 nuclear rim, 1 cell edge."""
        angle, depth = np.broadcast_arrays(angle, depth)
        ray = _rays(angle)
        rim, edge = self.nucleus[ray], self.outline[ray]
        radius = rim + depth * np.where(depth < 0, rim, edge - rim)
        return self.centre + radius[..., None] * unit(angle)

    def by_rim(self, angle, distance):
        """Points (..., 2) at `angle`, `distance` micrometres outside the nuclear rim but inside the cell."""
        angle, distance = np.broadcast_arrays(angle, distance)
        ray = _rays(angle)
        radius = np.minimum(self.nucleus[ray] + distance, np.maximum(self.outline[ray] - 0.6, 0.5 * self.outline[ray]))
        return self.centre + radius[..., None] * unit(angle)

    def confine(self, points, inner=0.3, outer=0.4):
        """Move `points` into the cytoplasm, `outer` µm from the edge, `inner` from the nucleus (None: also over it)."""
        centre = self.centre.astype(np.float32)
        away = np.asarray(points - centre, np.float32)
        radius = np.maximum(np.hypot(away[..., 0], away[..., 1]), np.float32(1e-6))
        ray = _rays(np.arctan2(away[..., 1], away[..., 0]))
        edge, rim = (radii.astype(np.float32)[ray] for radii in (self.outline, self.nucleus))
        wanted = np.minimum(radius, np.maximum(edge - outer, np.float32(0.8) * edge))
        if inner is not None:
            wanted = np.maximum(wanted, np.minimum(rim + inner, np.float32(0.97) * edge))
        return centre + away * (wanted / radius)[..., None]

    @cached_property
    def area(self):
        """Area of the cytoplasm, square micrometres."""
        return float(np.pi * (np.mean(self.outline**2) - np.mean(self.nucleus**2)))

    @cached_property
    def organisers(self):
        """(1 or 2, 2) microtubule organising centres."""
        if self.stage == MITOSIS:
            return self.centre + np.outer((0.6, -0.6), unit(self.axis)) * self.outline.min()
        return self.by_rim(np.array([self.pole]), np.array([self.stream(0).uniform(0.4, 1.6)]))

    @cached_property
    def nucleoli(self):
        """(K, 3): x, y and radius; the dark holes in the nucleus."""
        if self.stage == MITOSIS:
            return np.zeros((0, 3))
        rng = self.stream(1)
        count = 1 + rng.poisson(max(self.kind.nucleoli - 1, 0))
        places = self.at(rng.uniform(0, 2 * np.pi, count), -np.sqrt(rng.uniform(0.1, 0.8, count)))
        size = self.radius * rng.uniform(0.13, 0.3, count) * min(1, np.sqrt(3.5 / count))
        return np.column_stack([places, size])

    @cached_property
    def fibres(self):
        """(F, P, 2) microtubules, each from its root to its tip."""
        return _spindle(self) if self.stage == MITOSIS else _microtubules(self)


def _wave(rng, lowest=1, highest=8, fall=1.1):
    """A random smooth closed curve: (ANGLES,), about unit variance."""
    height = np.arange(1, highest - lowest + 2) ** -fall * rng.standard_normal((2, highest - lowest + 1))
    return (height[0] @ COSINES[lowest : highest + 1] + height[1] @ SINES[lowest : highest + 1]) * 0.71


def _bump(angle, width):
    """A bump of height 1 around `angle`, `width` radians wide: (ANGLES,)."""
    return np.exp((np.cos(TURN - angle) - 1) / width**2)


def _ellipse(radius, aspect, axis):
    """Radii by angle of an ellipse with the area of a circle of `radius`."""
    turned = TURN - axis
    return radius / np.sqrt(np.cos(turned) ** 2 / aspect + np.sin(turned) ** 2 * aspect)


def grow(kind, zoom, seed, centre, bound, stage, lead):
    """Grow an interphase cell: an irregular outline that stops at its neighbours, around an oval nucleus."""
    rng = np.random.default_rng(seed)
    axis = lead + rng.normal(0, 0.12 + 1.5 * (1 - kind.aligned))
    free = _ellipse(zoom * kind.size * np.exp(rng.normal(0, 0.16)), kind.stretch * rng.uniform(0.75, 1.3), axis)
    free *= np.exp(0.75 * kind.ragged * _wave(rng, 2, 7, 0.9))
    arms = np.zeros(ANGLES)
    for _ in range(rng.poisson(kind.arms)):
        way, width = rng.choice([axis, axis + np.pi]) + rng.normal(0, 0.9), rng.uniform(0.2, 0.5) / (1 + kind.arm)
        arms += zoom * kind.size * kind.arm * rng.uniform(0.5, 1.6) * _bump(way, width)
    free += 0.25 * kind.flat * _wave(rng, 12, 40, 0.4)
    radius = zoom * kind.nucleus * np.exp(rng.normal(0, 0.11)) * (0.8 if stage == DAUGHTER else 1)
    nucleus = _nucleus(rng, kind, radius, axis)
    nucleus *= min(1, 0.86 * (bound / nucleus).min())
    inner, outer = free**14, bound**14
    outline = (
        np.maximum((inner * outer / (inner + outer)) ** (1 / 14), nucleus + 0.7) + arms
    )  # arms pass over neighbours
    brightness = np.exp(rng.normal(0, (0.3, 0.2, 0.3))) * (1, 1.25 if stage == DAUGHTER else 1, 1)
    touch = inner / (inner + outer)
    pole = rng.uniform(0, 2 * np.pi)
    return Cell(kind, seed, stage, centre, nucleus, outline, touch, axis, pole, float(nucleus.mean()), brightness)


def _nucleus(rng, kind, radius, axis):
    shape = _ellipse(radius, 1 + (kind.oval - 1) * rng.uniform(0.4, 1.9), axis + rng.normal(0, 0.25))
    shape *= np.exp(kind.dents * _wave(rng, 2, 5, 0.7) + 0.012 * _wave(rng, 5, 14, 0.4))
    if rng.random() < 2.5 * kind.dents:  # a kidney or a lobed nucleus
        shape *= 1 - rng.uniform(0.2, 0.45) * _bump(rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.5))
    return shape


def walk(rng, start, heading, count, step, wander):
    """Random walks (N, count, 2) from `start` (N, 2): `step` micrometres per point, turns of about `wander` radians."""
    turns = np.cumsum(rng.normal(0, wander, (len(start), count - 1)), 1) + np.reshape(heading, (-1, 1))
    moves = unit(turns) * np.reshape(step, (-1, 1, 1))
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(moves, 1)], 1)


def _microtubules(cell, points=15):
    """Two in five fan out from the organising centre, the others start around the nucleus; all bend as they grow."""
    rng, kind = cell.stream(2), cell.kind
    count = int(np.clip(cell.area * 0.2, 40, 170))
    fan = np.arange(count) < 0.4 * count
    angle = rng.uniform(0, 2 * np.pi, count)
    start = cell.at(angle, rng.uniform(0.0, 0.75, count))
    start[fan] = cell.organisers[0] + rng.normal(0, 0.4, (fan.sum(), 2))
    heading = np.where(fan, cell.pole + rng.normal(0, 1.5, count), angle + rng.normal(0, 0.8, count))
    length = kind.spread * np.sort(cell.outline)[ANGLES * 4 // 5] * (1.25 - 0.95 * rng.beta(1, 2.2, count))
    bend = rng.normal(0, 0.25 * kind.curl, (count, 1)).astype(np.float32)
    bend = bend * np.linspace(0, 1, points - 1, dtype=np.float32)
    turns = rng.standard_normal((count, points - 1), np.float32) * np.float32(0.27 * kind.curl + 0.05)
    turns = np.cumsum(turns + bend, 1) + heading[:, None].astype(np.float32)
    moves = unit(turns) * (length / points).astype(np.float32)[:, None, None]
    paths = np.concatenate([start[:, None].astype(np.float32), moves], 1).cumsum(1)
    outer = rng.uniform(0.4, 2.5, (count, 1)).astype(np.float32)
    return cell.confine(paths, 0.2 + 1.6 * rng.standard_exponential((count, 1), np.float32), outer)


def divide(kind, zoom, seed, centre, bound):
    """Make a mitotic cell: round, with condensed chromosomes in a clump, a plate or two separating plates."""
    rng = np.random.default_rng(seed)
    axis = rng.uniform(0, np.pi)
    size = zoom * np.clip(0.62 * kind.size, 1.15 * kind.nucleus, 10.5) * rng.uniform(0.9, 1.1)
    outline = np.minimum(size * np.exp(0.03 * _wave(rng, 2, 6)), np.maximum(bound * 0.97, 4))
    half = float(outline.min())
    phase = rng.choice(["clump", "plate", "apart"], p=[0.25, 0.5, 0.25])
    chromosomes = _chromosomes(rng, centre, half, axis, phase)
    nucleus = np.full(ANGLES, 0.3 * half)
    brightness = np.exp(rng.normal(0, 0.1, 3)) * (1.2, 1.7, 1.4)
    free = np.zeros(ANGLES)
    return Cell(kind, seed, MITOSIS, centre, nucleus, outline, free, axis, axis, 0.5 * half, brightness, chromosomes)


def _chromosomes(rng, centre, half, axis, phase, count=42):
    """Short thick lines (count, 3, 2) that form a clump, a metaphase plate or two anaphase plates."""
    along, across = unit(np.array([axis, axis + np.pi / 2]))
    if phase == "clump":
        turn, far = rng.uniform(0, 2 * np.pi, count), 0.6 * half * np.sqrt(rng.random(count))
        places = np.outer(far * np.cos(turn), along) + np.outer(far * np.sin(turn), across)
    else:
        gap = 0 if phase == "plate" else rng.uniform(0.2, 0.42) * half
        side = rng.choice([-1, 1], count)
        wide = 0.75 if phase == "plate" else 0.6
        aside = rng.uniform(-wide, wide, count) * half
        places = np.outer(side * (gap + 0.12 * aside**2 / half) + rng.normal(0, 0.35, count), along)
        places += np.outer(aside, across)
    turn = rng.uniform(0, 2 * np.pi, count)
    stroke = unit(turn) * rng.uniform(0.4, 1.1, (count, 1))
    return centre + places[:, None] + stroke[:, None] * np.array([-1, 0, 1])[:, None]


def _spindle(cell, count=30, points=12):
    """Bowed fibres from both poles to the plate, and short ones away from it: (80, points, 2)."""
    rng = cell.stream(2)
    half = float(cell.outline.min())
    across = np.array([-np.sin(cell.axis), np.cos(cell.axis)]) * half
    way = np.linspace(0, 1, points)[:, None]
    parts = []
    for pole in cell.organisers:
        offset = rng.uniform(-0.7, 0.7, (count, 1, 1)) * across
        bow = pole + (cell.centre - pole) * 0.45 + 1.2 * offset
        parts.append((1 - way) ** 2 * pole + 2 * way * (1 - way) * bow + way**2 * (cell.centre + offset))
        turn = rng.uniform(0, 2 * np.pi, (count // 3, 1, 1))
        ray = np.concatenate([np.cos(turn), np.sin(turn)], -1) * half * rng.uniform(0.15, 0.4, (count // 3, 1, 1))
        parts.append(pole + way * ray)
    return cell.confine(np.concatenate(parts), inner=None)
