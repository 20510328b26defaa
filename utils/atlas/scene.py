"""Where the cells of one field lie and what shape they have, before any pixel exists.

Points are (x, y) in micrometres, angles radians. A cell is star-shaped about the middle of its nucleus: nucleus and
outline are radii by angle, so that "this way, so deep" (`Cell.at`) always lies in the right part of the right cell.
What a cell contains follows from its own seed, so that a cell is the same whichever part of the field is drawn.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from utils.atlas.cell_types import CELL_TYPES, CellType

FIELD = 165.0  # side of the field
MARGIN = 33.0  # cells grow this far beyond the field, so that borders cut cells and the field can be moved
ANGLES = 512
BEND_GRAIN = 3.0
TURN = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
RAYS = np.stack([np.cos(TURN), np.sin(TURN)], -1)
COSINES, SINES = np.cos(np.outer(np.arange(41), TURN)), np.sin(np.outer(np.arange(41), TURN))
INTERPHASE, DAUGHTER, MITOSIS = range(3)
NEIGHBOURS = 10  # the nearest cells bound a cell


@dataclass
class Cell:
    """One cell: `nucleus`, `outline`, `contact` are (ANGLES,)."""

    kind: CellType
    seed: int
    stage: int
    centre: np.ndarray
    nucleus: np.ndarray
    outline: np.ndarray
    contact: np.ndarray  # 0 free edge .. 1 pressed against a neighbour
    axis: float  # direction of the long axis; in mitosis that of the spindle
    pole: float  # the side of the nucleus where Golgi and organising centre lie
    radius: float  # mean radius of the nucleus
    brightness: np.ndarray  # (3,) of red, blue, yellow
    chromosomes: np.ndarray = None  # (lines, points, 2), only in mitosis

    def stream(self, key):
        """The cell's own random generator for the purpose `key`, a number."""
        return np.random.default_rng((self.seed, key))

    def at(self, angle, depth):
        """Points (..., 2) at `angle` and `depth`: -1 centre, 0 nuclear rim, 1 cell edge."""
        angle, depth = np.broadcast_arrays(angle, depth)
        ray = (angle * (ANGLES / (2 * np.pi))).astype(int) % ANGLES
        rim, edge = self.nucleus[ray], self.outline[ray]
        radius = rim + depth * np.where(depth < 0, rim, edge - rim)
        return self.centre + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    def by_rim(self, angle, distance):
        """Points (..., 2) at `angle`, `distance` micrometres outside the nuclear rim but inside the cell."""
        angle, distance = np.broadcast_arrays(angle, distance)
        ray = (angle * (ANGLES / (2 * np.pi))).astype(int) % ANGLES
        radius = np.minimum(self.nucleus[ray] + distance, np.maximum(self.outline[ray] - 0.6, 0.5 * self.outline[ray]))
        return self.centre + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)

    def confine(self, points, inner=0.3, outer=0.4):
        """Move `points` (..., 2) into the cytoplasm, `inner` off the nucleus and `outer` off the cell's edge.

        ``inner=None`` lets them lie over the nucleus.
        """
        away = np.asarray(points - self.centre.astype(np.float32), np.float32)
        radius = np.maximum(np.hypot(away[..., 0], away[..., 1]), np.float32(1e-6))
        ray = (np.arctan2(away[..., 1], away[..., 0]) * np.float32(ANGLES / (2 * np.pi))).astype(int) % ANGLES
        edge, rim = (radii.astype(np.float32)[ray] for radii in (self.outline, self.nucleus))
        wanted = np.minimum(radius, np.maximum(edge - outer, np.float32(0.8) * edge))
        if inner is not None:
            wanted = np.maximum(wanted, np.minimum(rim + inner, np.float32(0.97) * edge))
        return self.centre.astype(np.float32) + away * (wanted / radius)[..., None]

    @cached_property
    def area(self):
        """Of the cytoplasm, square micrometres."""
        return float(np.pi * (np.mean(self.outline**2) - np.mean(self.nucleus**2)))

    @cached_property
    def organisers(self):
        """(1 or 2, 2) microtubule organising centres."""
        if self.stage == MITOSIS:
            along = np.array([np.cos(self.axis), np.sin(self.axis)])
            return self.centre + np.outer((0.6, -0.6), along) * self.outline.min()
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


@dataclass
class Scene:
    """A field of cells: a layer of cells that do not overlap, and a layer for each cell over or under them."""

    kind: CellType
    layers: list
    bridges: list  # (P, 2) paths between daughter cells
    texture: int  # seed of what all proteins meet alike: the mesh of the reticulum, rough nucleoli
    debris: np.ndarray  # (K, 6): x, y, radius, brightness in red, blue, yellow
    bend: np.ndarray  # (B, B, 2) float32, sampled every BEND_GRAIN from -MARGIN on: pixel + bend = unbent place
    unbend: np.ndarray  # the same for the way back: unbent place + unbend = pixel


def grow_scene(rng, kind=None, mitosis=False, bridge=False, touching=False, adherent=False):
    """Let the cells of one scene grow: a Scene.

    `kind` is a CellType, drawn at random when None. `mitosis`, `bridge`, `touching` and `adherent` make sure that the
    scene has dividing cells, daughter cells joined by a bridge, cells in contact, cells that spread on the glass;
    without them it has such cells now and then.
    """
    fits = [(each.touching or not touching) and (each.adherent or not adherent) for each in CELL_TYPES]
    shares = np.array([each.share for each in CELL_TYPES]) * fits
    drawn = CELL_TYPES[rng.choice(len(CELL_TYPES), p=shares / shares.sum())]
    kind = kind or drawn
    zoom = np.exp(np.clip(rng.normal(0, 0.1), -0.2, 0.2))
    pairs = _daughter_pairs(rng, kind, zoom, bridge)
    lead = rng.uniform(0, np.pi)
    metric = _metric(kind, lead)
    centres = _scatter(rng, kind, zoom, metric, pairs, touching)
    stages = np.where(np.arange(len(centres)) < 2 * len(pairs), DAUGHTER, INTERPHASE)
    _choose_mitotic(rng, centres, stages, mitosis)
    main = _grow_layer(rng, kind, zoom, metric, centres, pairs, stages, lead)
    under = _scatter_under(rng, kind, zoom, centres)
    over = _grow_layer(rng, kind, zoom, metric, under, [], np.full(len(under), INTERPHASE), lead) if len(under) else []
    bridges = [_bridge(rng, main[2 * pair], main[2 * pair + 1]) for pair in range(len(pairs))]
    return Scene(
        kind, [main, *([cell] for cell in over)], bridges, int(rng.integers(2**31)), _litter(rng), *_bends(rng)
    )


def _daughter_pairs(rng, kind, zoom, wanted):
    """Middles and half distances of daughter cells as complex numbers: [(middle, half), ...]."""
    count = rng.integers(1, 3) if wanted else int(rng.random() < 0.06)
    pairs = []
    for number in range(count):
        middle = complex(*rng.uniform((0.25, 0.2 + 0.4 * number), (0.75, 0.4 + 0.4 * number))) * FIELD
        half = zoom * (kind.nucleus * rng.uniform(1.5, 1.9) + 2) * np.exp(1j * rng.uniform(0, np.pi))
        pairs.append((middle, half))
    return pairs


def _metric(kind, lead):
    """(2, 2): distances along the direction `lead` count less where long cells lie side by side."""
    along, across = np.array([np.cos(lead), np.sin(lead)]), np.array([-np.sin(lead), np.cos(lead)])
    longer = np.sqrt(kind.stretch**kind.aligned)
    return np.outer(along, along) / longer + np.outer(across, across) * longer


def _scatter(rng, kind, zoom, metric, pairs, crowded):
    """Throw darts that keep a distance, or let new cells bud off others where the type grows in islands.

    Returns (N, 2) centres, those of the daughter cells first.
    """
    wanted = np.clip(kind.cells / zoom**2 * np.exp(np.clip(rng.normal(0, 0.2), -0.3, 0.3)), 6, 30)
    wanted *= (1 + 2 * MARGIN / FIELD) ** 2
    islands = max(kind.islands, 0.9 * crowded)
    apart = min((1.75 - 0.25 * islands) * kind.size * zoom, 0.8 * (FIELD + 2 * MARGIN) / np.sqrt(wanted))
    (xx, xy), (_, yy) = metric
    placed = [middle + sign * half for middle, half in pairs for sign in (1, -1)]
    taken = np.array(placed + [middle for middle, _ in pairs] + [0j] * 400)
    used = len(placed) + len(pairs)
    for _ in range(int(6 * wanted)):
        bud, room, x, y = rng.random(4)
        if bud < islands and len(placed) > 1 + 3 * (1 - islands):
            dart = placed[int(x * len(placed))] + apart * (1 + 0.22 * room) * np.exp(2j * np.pi * y)
        else:
            dart = complex(x, y) * (FIELD + 2 * MARGIN) - complex(MARGIN, MARGIN)
        inside = -MARGIN < dart.real < FIELD + MARGIN and -MARGIN < dart.imag < FIELD + MARGIN
        away = taken[:used] - dart
        far = np.hypot(xx * away.real + xy * away.imag, xy * away.real + yy * away.imag)
        if inside and used < len(taken) and (far > apart * (0.85 + 0.2 * room)).all():
            placed.append(dart)
            taken[used] = dart
            used += 1
        if len(placed) >= wanted:
            break
    placed = placed or [FIELD * (0.5 + 0.5j)]
    return np.stack([np.real(placed), np.imag(placed)], -1)


def _scatter_under(rng, kind, zoom, centres):
    """Centres (M, 2) of the cells that lie over or under the others: near one of them, not on its nucleus."""
    count = rng.binomial(len(centres), kind.overlap)
    turn = rng.uniform(0, 2 * np.pi, count)
    step = np.stack([np.cos(turn), np.sin(turn)], -1) * (kind.size * zoom * rng.uniform(0.7, 1.1, (count, 1)))
    darts = centres[rng.permutation(len(centres))[:count]] + step
    kept = []
    for dart in darts:
        if all(np.hypot(*(dart - other)) > 1.7 * kind.size * zoom for other in kept):
            kept.append(dart)
    return np.array(kept).reshape(-1, 2)


def _choose_mitotic(rng, centres, stages, wanted):
    """Set interphase cells well inside the field to MITOSIS, in place."""
    inside = np.flatnonzero((stages == INTERPHASE) & (np.abs(centres - FIELD / 2) < 0.4 * FIELD).all(1))
    count = rng.integers(1, 4) if wanted else rng.binomial(len(inside), 0.012)
    stages[rng.permutation(inside)[:count]] = MITOSIS
    if wanted and not len(inside):
        stages[np.argmin(np.abs(centres - FIELD / 2).max(1))] = MITOSIS


def _grow_layer(rng, kind, zoom, metric, centres, pairs, stages, lead):
    bounds = _boundaries(centres, pairs, metric)
    seeds = rng.integers(2**62, size=len(centres))
    return [
        _divide(kind, zoom, int(seed), centre, bound)
        if stage == MITOSIS
        else _grow(kind, zoom, int(seed), centre, bound, stage, lead)
        for seed, centre, bound, stage in zip(seeds, centres, bounds, stages)
    ]


def _boundaries(centres, pairs, metric):
    """How far each cell may reach along each ray before it meets a neighbour: (N, ANGLES), a Voronoi diagram."""
    middles = np.array([(m.real, m.imag) for m, _ in pairs]).reshape(-1, 2)
    others = np.concatenate([centres, middles])
    share = np.full((len(centres), len(others)), 0.497)
    for pair in range(len(pairs)):
        share[2 * pair : 2 * pair + 2, len(centres) + pair] = 0.74  # leaves the gap that the bridge spans
    away = (others[None] - centres[:, None]) @ metric
    square = (away**2).sum(-1)
    square[square == 0] = 1e6
    near = np.argsort(square, axis=1)[:, :NEIGHBOURS]
    away = np.take_along_axis(away, near[..., None], 1)
    reach = np.take_along_axis(share * square, near, 1)
    return (reach[..., None] / np.maximum(away @ (RAYS @ metric).T, 1e-6)).min(1)


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


def _grow(kind, zoom, seed, centre, bound, stage, lead):
    """A cell between divisions: an uneven outline that stops at its neighbours, around an oval nucleus."""
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
    outline = np.maximum((inner * outer / (inner + outer)) ** (1 / 14), nucleus + 0.7) + arms  # they pass over others
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
    """Paths (N, count, 2) from `start` (N, 2): `step` micrometres a point, turning by about `wander` radians each."""
    turns = np.cumsum(rng.normal(0, wander, (len(start), count - 1)), 1) + np.reshape(heading, (-1, 1))
    moves = np.stack([np.cos(turns), np.sin(turns)], -1) * np.reshape(step, (-1, 1, 1))
    return np.concatenate([start[:, None], start[:, None] + np.cumsum(moves, 1)], 1)


def _microtubules(cell, points=15):
    """Half of them fan out from the organising centre, the others start around the nucleus; all bend as they grow.

    Where one meets the nucleus or the cell's edge it goes on along it.
    """
    rng, kind = cell.stream(2), cell.kind
    count = int(np.clip(cell.area * 0.2, 40, 170))
    fan = np.arange(count) < 0.4 * count
    angle = rng.uniform(0, 2 * np.pi, count)
    start = cell.at(angle, rng.uniform(0.0, 0.75, count))
    start[fan] = cell.organisers[0] + rng.normal(0, 0.4, (fan.sum(), 2))
    heading = np.where(fan, cell.pole + rng.normal(0, 1.5, count), angle + rng.normal(0, 0.8, count))
    length = kind.spread * np.quantile(cell.outline, 0.8) * (1.25 - 0.95 * rng.beta(1, 2.2, count))
    bend = rng.normal(0, 0.25 * kind.curl, (count, 1)).astype(np.float32) * np.linspace(
        0, 1, points - 1, dtype=np.float32
    )
    turns = rng.standard_normal((count, points - 1), np.float32) * np.float32(0.27 * kind.curl + 0.05)
    turns = np.cumsum(turns + bend, 1) + heading[:, None].astype(np.float32)
    moves = np.stack([np.cos(turns), np.sin(turns)], -1) * (length / points).astype(np.float32)[:, None, None]
    paths = np.concatenate([start[:, None].astype(np.float32), moves], 1).cumsum(1)
    outer = rng.uniform(0.4, 2.5, (count, 1)).astype(np.float32)
    return cell.confine(paths, 0.2 + 1.6 * rng.standard_exponential((count, 1), np.float32), outer)


def _divide(kind, zoom, seed, centre, bound):
    """A mitotic cell: round, its chromosomes condensed: a clump, a plate or two plates that move apart."""
    rng = np.random.default_rng(seed)
    axis = rng.uniform(0, np.pi)
    size = zoom * np.clip(0.62 * kind.size, 1.15 * kind.nucleus, 10.5) * rng.uniform(0.9, 1.1)
    outline = np.minimum(size * np.exp(0.03 * _wave(rng, 2, 6)), np.maximum(bound * 0.97, 4))
    half = float(outline.min())
    phase = rng.choice(["clump", "plate", "apart"], p=[0.25, 0.5, 0.25])
    chromosomes = _chromosomes(rng, centre, half, axis, phase)
    nucleus = np.full(ANGLES, 0.3 * half)
    brightness = np.exp(rng.normal(0, 0.1, 3)) * (1.2, 1.7, 1.4)
    cell = Cell(kind, seed, MITOSIS, centre, nucleus, outline, np.zeros(ANGLES), axis, axis, 0.5 * half, brightness)
    cell.chromosomes = chromosomes
    return cell


def _chromosomes(rng, centre, half, axis, phase, count=42):
    """Short thick lines (count, 3, 2) that together are a clump, a metaphase plate or two anaphase plates."""
    along, across = (np.array([np.cos(a), np.sin(a)]) for a in (axis, axis + np.pi / 2))
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
    stroke = np.stack([np.cos(turn), np.sin(turn)], -1) * rng.uniform(0.4, 1.1, (count, 1))
    return centre + places[:, None] + stroke[:, None] * np.array([-1, 0, 1])[:, None]


def _spindle(cell, count=30, points=12):
    """Bowed fibres from both poles to the plate, and short ones that reach away from it: (2 x count, points, 2)."""
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


def _bridge(rng, first, second, points=14):
    """The path between two daughter cells, from just inside one to just inside the other: (points, 2)."""
    towards = second.centre - first.centre
    angle = np.arctan2(towards[1], towards[0])
    ends = np.stack([first.at(angle, 0.85), second.at(angle + np.pi, 0.85)])
    way = np.linspace(0, 1, points)[:, None]
    side = np.array([-towards[1], towards[0]]) * rng.uniform(-0.12, 0.12)
    return ends[0] + (ends[1] - ends[0]) * way + np.sin(np.pi * way) * side


def _litter(rng):
    """Crumbs of dead cells and dust: (K, 6)."""
    count = rng.poisson(rng.choice([0.5, 2, 8]))
    places = rng.uniform(-MARGIN, FIELD + MARGIN, (count, 2))
    shine = rng.uniform(0, 1.4, (count, 3)) * (rng.random((count, 3)) < (0.6, 0.35, 0.7))
    return np.column_stack([places, np.exp(rng.normal(-0.1, 0.55, count)), shine])


def _bends(rng):
    """Displacements of a few micrometres that bend all straight lines of a scene, and their inverse."""
    side = round((FIELD + 2 * MARGIN) / BEND_GRAIN) + 1
    bend = np.zeros((side, side, 2), np.float32)
    for grain, size in ((30, 2.4), (9, 0.35)):
        knots = int((FIELD + 2 * MARGIN) / grain) + 2
        coarse = (rng.standard_normal((knots, knots, 2)) * size).astype(np.float32)
        bend += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    unbend = -bend
    for _ in range(3):
        where = unbend / np.float32(BEND_GRAIN)
        unbend = -cv2.remap(
            bend, x + where[..., 0], y + where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    return bend, unbend
