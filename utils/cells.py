"""Geometry of one simulated field of cells, its maps in pixels and its reference channels.

Lengths are fractions of the field's side, points are (x, y), angles are radians; a field therefore looks the same at
every size, only finer. A cell is star-shaped about the middle of its nucleus: nucleus and outline are radii by angle,
so that "this way, so deep" (`Cell.at`) always lies inside the right part of the right cell.
"""

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

ANGLES = 512
MARGIN = 0.2  # cells and textures reach this far beyond the field, so that it has no empty border and can be moved
TURN = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
RAYS = np.stack([np.cos(TURN), np.sin(TURN)], -1)
INTERPHASE, DAUGHTER, MITOSIS = range(3)
FRACTION_BITS = 4  # OpenCV draws at 1/16 of a pixel


@dataclass
class Cell:
    """One cell: `nucleus`, `outline`, `contact` (ANGLES,); `fibres` (F, P, 2); `nucleoli` (K, 3), x, y and radius."""

    centre: np.ndarray
    nucleus: np.ndarray
    outline: np.ndarray
    contact: np.ndarray  # 0 free edge .. 1 pressed against a neighbour
    axis: float  # direction of the long axis; in mitosis that of the spindle
    pole: float  # the side of the nucleus where Golgi and organising centre lie
    stage: int
    nucleoli: np.ndarray = None
    organisers: np.ndarray = None  # (1 or 2, 2) microtubule organising centres
    fibres: np.ndarray = None
    brightness: np.ndarray = None  # (3,) of red, blue, yellow

    def at(self, angle, depth):
        """Points (..., 2) at `angle` and `depth`: -1 centre, 0 nuclear rim, 1 cell edge."""
        angle, depth = np.broadcast_arrays(angle, depth)
        ray = (angle * (ANGLES / (2 * np.pi))).astype(int) % ANGLES
        rim, edge = self.nucleus[ray], self.outline[ray]
        radius = rim + depth * np.where(depth < 0, rim, edge - rim)
        return self.centre + radius[..., None] * RAYS[ray]


@dataclass
class Field:
    """Cells and their (size, size) maps; `rim` and `edge` are distances inward from nuclear rim and cell edge."""

    size: int
    shift: np.ndarray  # the field's corner in scene coordinates
    cells: list
    bridges: list  # (P, 2) paths between daughter cells
    owner: np.ndarray = field(repr=False, default=None)  # int16, number of the cell, -1 outside
    rim: np.ndarray = field(repr=False, default=None)
    edge: np.ndarray = field(repr=False, default=None)
    depth: np.ndarray = field(repr=False, default=None)  # 0 nuclear rim and inside .. 1 cell edge
    contact: np.ndarray = field(repr=False, default=None)
    nucleoli: np.ndarray = field(repr=False, default=None)
    mesh: np.ndarray = field(repr=False, default=None)  # texture of the reticulum

    @cached_property
    def nucleus(self):
        return np.clip(self.rim * self.size + 0.5, 0, 1)

    @cached_property
    def cytoplasm(self):
        return np.clip(self.edge * self.size + 0.5, 0, 1) - self.nucleus

    def per_cell(self, values):
        """(number of cells,) values spread over the cells' pixels: (size, size) float32, 0 outside."""
        return np.append(values, 0).astype(np.float32)[self.owner]

    def noise(self, rng, waves):
        """Smooth noise of unit variance fixed to the scene, about `waves` grains across the field."""
        grid = rng.standard_normal((round(waves * (1 + 2 * MARGIN)),) * 2, np.float32)
        start = (self.shift + 0.5 / self.size + MARGIN) * waves
        step = waves / self.size
        matrix = np.array([[step, 0, start[0]], [0, step, start[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(grid, matrix, (self.size,) * 2, flags=flags, borderMode=cv2.BORDER_REFLECT) * 1.4

    def blank(self):
        return np.zeros((self.size, self.size), np.uint8)

    def _pixels(self, points):
        return np.rint(((points - self.shift) * self.size - 0.5) * (1 << FRACTION_BITS)).astype(np.int32)

    def lines(self, canvas, paths, width, value=1.0):
        """Draw open polylines (F, P, 2) of one `width` on a uint8 canvas; `value` 0..1."""
        thickness = max(1, round(width * self.size))
        shade = 255 * min(float(value), 1)
        cv2.polylines(canvas, list(self._pixels(paths)), False, shade, thickness, cv2.LINE_AA, FRACTION_BITS)

    def discs(self, canvas, centres, radii, values=1.0, ring=None):
        """Draw filled discs (N, 2), (N,) on a uint8 canvas, or circles of line width `ring`."""
        thickness = -1 if ring is None else max(1, round(ring * self.size))
        radii = np.broadcast_to(radii, len(centres)) * self.size * (1 << FRACTION_BITS)
        shades = 255 * np.minimum(np.broadcast_to(values, len(centres)), 1.0)
        for centre, radius, shade in zip(self._pixels(centres).tolist(), radii.tolist(), shades.tolist()):
            cv2.circle(canvas, centre, round(radius), shade, thickness, cv2.LINE_AA, FRACTION_BITS)


def grow_scene(rng, mitosis=False, bridge=False, touching=False):
    """Draw the cells of one scene. Returns (list of Cell, list of bridges).

    `mitosis`, `bridge` and `touching` make sure that the scene has dividing cells, daughter cells joined by a bridge,
    cells that touch; without them it has such cells now and then, as real fields do.
    """
    spacing = rng.uniform(0.17, 0.25)
    reach = rng.uniform(0.85, 1.05) if touching else rng.uniform(0.5, 1.0)
    pairs = _daughter_pairs(rng, bridge)
    centres = _scatter(rng, spacing, pairs, crowded=touching)
    stages = np.where(np.arange(len(centres)) < 2 * len(pairs), DAUGHTER, INTERPHASE)
    _choose_mitotic(rng, centres, stages, mitosis)
    bounds = _boundaries(centres, pairs)
    nuclear_radius = rng.uniform(0.24, 0.32) * spacing
    shape = dict(
        reach=reach * spacing,
        stretch=rng.uniform(1, 1.5) if touching else rng.choice([1.2, 1.6, 2.6]),
        lead=rng.uniform(0, np.pi),
        rough=rng.uniform(0.1, 0.3),
    )
    cells = []
    for centre, bound, stage in zip(centres, bounds, stages):
        radius = nuclear_radius * rng.uniform(0.85, 1.2)
        if stage == MITOSIS:
            cells.append(_divide(rng, centre, bound))
        else:
            cells.append(_grow(rng, centre, bound, stage, radius, **shape))
    bridges = [_bridge(rng, cells[2 * pair], cells[2 * pair + 1]) for pair in range(len(pairs))]
    return cells, bridges


def _daughter_pairs(rng, wanted):
    """Middles and half distances of daughter cells as complex numbers: [(middle, half), ...]."""
    count = rng.integers(1, 3) if wanted else int(rng.random() < 0.03)
    pairs = []
    for number in range(count):
        middle = complex(rng.uniform(0.25, 0.75), rng.uniform(0.2, 0.4) + 0.4 * number)
        pairs.append((middle, rng.uniform(0.095, 0.12) * np.exp(1j * rng.uniform(0, np.pi))))
    return pairs


def _scatter(rng, spacing, pairs, crowded):
    """Throw darts that keep `spacing`: (N, 2) centres, those of the daughter cells first."""
    placed = [middle + sign * half for middle, half in pairs for sign in (1, -1)]
    taken = placed + [middle for middle, _ in pairs]
    throws = 300 if crowded else rng.integers(50, 300)
    for x, y, room in rng.uniform((-MARGIN, -MARGIN, 0.85), (1 + MARGIN, 1 + MARGIN, 1.15), (throws, 3)).tolist():
        dart = complex(x, y)
        if all(abs(dart - other) > spacing * room for other in taken):
            placed.append(dart)
            taken.append(dart)
    return np.stack([np.real(placed), np.imag(placed)], -1)


def _choose_mitotic(rng, centres, stages, wanted):
    """Set one to three interphase cells well inside the field to MITOSIS, in place."""
    inside = np.flatnonzero((stages == INTERPHASE) & (np.abs(centres - 0.5) < 0.4).all(1))
    count = rng.integers(1, 4) if wanted else int(rng.random() < 0.06)
    stages[rng.permutation(inside)[:count]] = MITOSIS


def _boundaries(centres, pairs):
    """How far each cell may reach along each ray before it meets a neighbour: (N, ANGLES), a Voronoi diagram."""
    middles = np.array([(m.real, m.imag) for m, _ in pairs]).reshape(-1, 2)
    share = np.full((len(centres), len(centres) + len(pairs)), 0.497)
    for pair in range(len(pairs)):
        share[2 * pair : 2 * pair + 2, len(centres) + pair] = 0.68  # leaves the gap that the bridge spans
    away = np.concatenate([centres, middles])[None] - centres[:, None]
    along = np.maximum(away @ RAYS.T, 1e-6)
    square = (away**2).sum(-1)
    square[square == 0] = 1e6
    return ((share * square)[..., None] / along).min(1)


def _wave(rng, strongest=10, fall=1.1):
    """A random smooth closed curve: (ANGLES,), about unit variance."""
    order = np.arange(1, strongest + 1)
    height = rng.standard_normal(strongest) * order**-fall
    return height @ np.cos(order[:, None] * TURN + rng.uniform(0, 2 * np.pi, (strongest, 1)))


def _ellipse(radius, aspect, axis):
    """Radii by angle of an ellipse with the area of a circle of `radius`."""
    turned = TURN - axis
    return radius / np.sqrt(np.cos(turned) ** 2 / aspect + np.sin(turned) ** 2 * aspect)


def _grow(rng, centre, bound, stage, radius, reach, stretch, lead, rough):
    """A cell between divisions: an irregular outline that stops at its neighbours, around an oval nucleus."""
    axis = lead + rng.normal(0, 0.35 if stretch > 2 else 1.5)
    free = _ellipse(reach * rng.uniform(0.85, 1.2), stretch * rng.uniform(0.8, 1.3), axis) * np.exp(rough * _wave(rng))
    nucleus = _ellipse(radius, rng.uniform(1.05, 1.6), axis + rng.normal(0, 0.2)) * np.exp(0.05 * _wave(rng, 5))
    nucleus *= min(1, 0.85 * (bound / nucleus).min())
    inner, outer = free**16, bound**16
    outline = np.maximum((inner * outer / (inner + outer)) ** (1 / 16), 1.13 * nucleus)
    cell = Cell(centre, nucleus, outline, inner / (inner + outer), axis, rng.uniform(0, 2 * np.pi), stage)
    cell.organisers = cell.at(np.array([cell.pole]), np.array([0.18]))
    cell.nucleoli = _nucleoli(rng, cell, radius)
    cell.fibres = _fibres(rng, cell)
    cell.brightness = np.exp(rng.normal(0, 0.22, 3))
    return cell


def _nucleoli(rng, cell, radius):
    count = rng.integers(2, 6)
    places = cell.at(rng.uniform(0, 2 * np.pi, count), rng.uniform(-0.9, -0.42, count))
    return np.column_stack([places, radius * rng.uniform(0.14, 0.27, count)])


def _fibres(rng, cell, count=64, points=12):
    """Microtubules (count, points, 2): two in three start at the organising centre and bend round the nucleus."""
    way = np.linspace(0, 1, points)
    turn = rng.uniform(-np.pi, np.pi, (count, 1))
    from_centre = np.arange(count)[:, None] < count * 2 // 3
    start = np.where(from_centre, cell.pole, cell.pole + turn + rng.normal(0, 0.6, (count, 1)))
    angle = start + (cell.pole + turn - start) * way**0.6
    angle += rng.normal(0, 0.12, (count, 1)) * np.sin(way * rng.uniform(3, 9, (count, 1)))
    root, tip = rng.uniform(0.04, 0.2, (count, 1)), rng.uniform(0.55, 0.99, (count, 1))
    return cell.at(angle, root + (tip - root) * way ** rng.uniform(1.0, 1.7, (count, 1)))


def _divide(rng, centre, bound):
    """A mitotic cell: round, with a plate of chromosomes for a nucleus and a spindle for microtubules."""
    axis = rng.uniform(0, np.pi)
    outline = np.minimum(rng.uniform(0.07, 0.09) * np.exp(0.03 * _wave(rng, 5)), bound * 0.97)
    half = 0.6 * outline.min()
    length, width = 0.85 * half, 0.011
    plate = _ellipse(np.sqrt(length * width), length / width, axis + np.pi / 2) * np.exp(0.05 * _wave(rng, 15, 0.5))
    cell = Cell(centre, plate, outline, np.zeros(ANGLES), axis, axis, MITOSIS)
    along = np.array([np.cos(axis), np.sin(axis)])
    across = np.array([-along[1], along[0]])
    cell.organisers = centre + np.outer([half, -half], along)
    cell.nucleoli = np.zeros((0, 3))
    cell.fibres = np.concatenate([_half_spindle(rng, pole, centre, across * half) for pole in cell.organisers])
    cell.brightness = np.exp(rng.normal(0, 0.1, 3)) * (1.3, 1.6, 1.1)
    return cell


def _half_spindle(rng, pole, centre, across, count=22, points=12):
    """Bowed fibres from one pole to the plate, (count, points, 2)."""
    way = np.linspace(0, 1, points)[:, None]
    offset = rng.uniform(-0.75, 0.75, (count, 1, 1)) * across
    bow = pole + (centre - pole) * 0.45 + 1.15 * offset
    return (1 - way) ** 2 * pole + 2 * way * (1 - way) * bow + way**2 * (centre + offset)


def _bridge(rng, first, second, points=12):
    """The path between two daughter cells, from just inside one to just inside the other: (points, 2)."""
    towards = second.centre - first.centre
    angle = np.arctan2(towards[1], towards[0])
    ends = np.stack([first.at(angle, 0.9), second.at(angle + np.pi, 0.9)])
    way = np.linspace(0, 1, points)[:, None]
    side = np.array([-towards[1], towards[0]]) * rng.uniform(-0.12, 0.12)
    return ends[0] + (ends[1] - ends[0]) * way + np.sin(np.pi * way) * side


def lay_out(scene, rng, size, shift=(0.0, 0.0)):
    """Compute the maps of a scene at `size` pixels, its view moved by `shift`: a Field."""
    cells, bridges = scene
    grid = (size, size)
    view = Field(size, np.asarray(shift, float), cells, bridges)
    view.owner = np.full(grid, -1, np.int16)
    view.rim, view.edge = np.full(grid, -1, np.float32), np.full(grid, -1, np.float32)
    view.depth, view.contact = np.ones(grid, np.float32), np.zeros(grid, np.float32)
    for number, cell in enumerate(cells):
        _map_cell(view, number, cell)
    view.nucleoli = _map_nucleoli(view)
    view.mesh = np.exp(-((view.noise(rng, 120) / 0.55) ** 2))
    return view


def _map_cell(view, number, cell):
    reach = cell.outline.max() + 1 / view.size
    corner = np.clip((cell.centre - reach - view.shift) * view.size, 0, view.size).astype(int)
    end = np.clip((cell.centre + reach - view.shift) * view.size + 1, 0, view.size).astype(int)
    if (end <= corner).any():
        return
    x, y = (
        ((np.arange(a, b) + 0.5) / view.size + s - c).astype(np.float32)
        for a, b, s, c in zip(corner, end, view.shift, cell.centre)
    )
    x, y = np.meshgrid(x, y)
    radius, angle = cv2.cartToPolar(x, y)
    ray = (angle * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
    nucleus, outline = cell.nucleus.astype(np.float32)[ray], cell.outline.astype(np.float32)[ray]
    edge = (outline - radius) * _slant(cell.outline)[ray]
    inside = edge > -0.5 / view.size
    window = np.s_[corner[1] : end[1], corner[0] : end[0]]
    np.copyto(view.owner[window], number, where=inside)
    np.copyto(view.edge[window], edge, where=inside)
    np.copyto(view.rim[window], (nucleus - radius) * _slant(cell.nucleus)[ray], where=inside)
    np.copyto(view.depth[window], np.clip((radius - nucleus) / (outline - nucleus), 0, 1), where=inside)
    np.copyto(view.contact[window], cell.contact.astype(np.float32)[ray], where=inside)


def _slant(radii):
    """What turns a difference of radii into a distance from the curve, by angle: (ANGLES,) float32."""
    slope = (np.roll(radii, -1) - np.roll(radii, 1)) * (ANGLES / (4 * np.pi))
    return (radii / np.hypot(radii, slope)).astype(np.float32)


def _map_nucleoli(view):
    canvas = view.blank()
    for cell in view.cells:
        view.discs(canvas, cell.nucleoli[:, :2], cell.nucleoli[:, 2])
    soft = cv2.GaussianBlur(canvas, (0, 0), 0.003 * view.size)
    return soft.astype(np.float32) / 255 * view.nucleus


def draw_reticulum(view):
    """The endoplasmic reticulum: a mesh, dense at the nucleus and fading outward; (size, size) float32, 0..1."""
    return view.cytoplasm * (0.4 + 0.6 * view.mesh) * (0.08 + 0.92 * np.exp(-3.3 * view.depth))


def draw_microtubules(view, strength):
    """The fibres of every cell with `strength` (cells,): (size, size) float32, 0..1."""
    canvas = view.blank()
    for cell, value in zip(view.cells, strength):
        for share, part in zip((0.5, 0.75, 1.0), np.array_split(cell.fibres, 3)):
            view.lines(canvas, part, 0.0024, share * value)
    for path in view.bridges:
        view.lines(canvas, path[None], 0.006, 0.8)
    haze = view.cytoplasm * view.per_cell(strength) * np.exp(-2.5 * view.depth)
    return canvas.astype(np.float32) / 255 * (1.05 - 0.6 * view.depth) + 0.15 * haze


def draw_references(view, rng):
    """Microtubules, nuclei and reticulum: three (size, size) float32 of about 0..1."""
    red, blue, yellow = np.array([cell.brightness for cell in view.cells]).T
    chromatin = 0.8 + 0.12 * view.noise(rng, 60) + 0.12 * view.noise(rng, 14)
    nuclei = view.nucleus * chromatin * (1 - 0.6 * view.nucleoli) * view.per_cell(blue)
    return draw_microtubules(view, red * 0.7), nuclei, draw_reticulum(view) * view.per_cell(yellow)
