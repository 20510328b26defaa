"""Geometry of the cells of one field. Points are (x, y) in micrometres, angles radians."""

from dataclasses import dataclass

import numpy as np

from utils.opencv import cv2
from utils.simulator.cell import DAUGHTER, INTERPHASE, MITOSIS, TURN, divide, grow, unit
from utils.simulator.cell_types import CELL_TYPES

FIELD = 165.0  # height and width of the field
MARGIN = 33.0  # cells grow this far beyond the field, so that borders cut cells and the field can be shifted
BEND_GRAIN = 3.0
RAYS = unit(TURN)
NEIGHBOURS = 10  # number of nearest cells that bound a cell


@dataclass
class Scene:
    """A field of cells: a layer of cells that do not overlap, then a layer for each cell over or under them."""

    kind: tuple  # of CELL_TYPES
    layers: list
    bridges: list  # (P, 2) paths between daughter cells
    texture: int  # seed of textures that all proteins share: the mesh of the reticulum, rough nucleoli
    debris: np.ndarray  # (K, 6): x, y, radius, brightness in red, blue, yellow
    bend: np.ndarray  # (B, B, 2) float32, sampled every BEND_GRAIN from -MARGIN: pixel + bend = unbent place
    unbend: np.ndarray  # its inverse: unbent place + unbend = pixel


def grow_scene(rng, kind=None, mitosis=False, bridge=False, touching=False, adherent=False):
    """Grow the cells of one Scene. kind: one of CELL_TYPES, or None for a random one.

    mitosis, bridge, touching, adherent: the scene must have dividing cells, daughter cells joined by a bridge, cells in
    contact, cells that spread on the glass. Without these it has them sometimes.
    """
    fits = [(each.touching or not touching) and (each.adherent or not adherent) for each in CELL_TYPES]
    frequency = np.array([each.frequency for each in CELL_TYPES]) * fits
    drawn = CELL_TYPES[rng.choice(len(CELL_TYPES), p=frequency / frequency.sum())]
    kind = kind or drawn
    zoom = np.exp(np.clip(rng.normal(0.03, 0.17), -0.25, 0.5))  # size varies with passage and density
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
    layers = [main, *([cell] for cell in over)]
    return Scene(kind, layers, bridges, int(rng.integers(2**31)), _litter(rng), *_bends(rng))


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
    """-> (2, 2), which shortens distances along `lead` for long parallel cells."""
    along, across = unit(lead), unit(lead + np.pi / 2)
    longer = np.sqrt(kind.stretch**kind.aligned)
    return np.outer(along, along) / longer + np.outer(across, across) * longer


def _scatter(rng, kind, zoom, metric, pairs, crowded):
    """Place cells by dart throwing with a minimum distance, or next to others if the type grows in islands.

    -> (N, 2) centres, daughter cells first.
    """
    wanted = np.clip(kind.cells / zoom**2 * np.exp(np.clip(rng.normal(0, 0.2), -0.3, 0.3)), 6, 30)
    margin = min(MARGIN, 9 + 1.3 * kind.size * zoom * np.sqrt(kind.stretch))  # small cells further out are invisible
    wanted *= (1 + 2 * margin / FIELD) ** 2
    islands = max(kind.islands, 0.9 * crowded)
    apart = min((1.75 - 0.25 * islands) * kind.size * zoom, 0.8 * (FIELD + 2 * margin) / np.sqrt(wanted))
    (xx, xy), (_, yy) = metric
    placed = [middle + sign * half for middle, half in pairs for sign in (1, -1)]
    taken = np.array(placed + [middle for middle, _ in pairs] + [0j] * int(wanted + 1))
    used = len(placed) + len(pairs)
    for _ in range(int(6 * wanted)):
        bud, room, x, y = rng.random(4)
        if bud < islands and len(placed) > 1 + 3 * (1 - islands):
            dart = placed[int(x * len(placed))] + apart * (1 + 0.22 * room) * np.exp(2j * np.pi * y)
        else:
            dart = complex(x, y) * (FIELD + 2 * margin) - complex(margin, margin)
        inside = -margin < dart.real < FIELD + margin and -margin < dart.imag < FIELD + margin
        away = taken[:used] - dart
        far = np.hypot(xx * away.real + xy * away.imag, xy * away.real + yy * away.imag)
        if inside and (far > apart * (0.85 + 0.2 * room)).all():
            placed.append(dart)
            taken[used] = dart
            used += 1
        if len(placed) >= wanted:
            break
    return np.stack([np.real(placed), np.imag(placed)], -1)


def _scatter_under(rng, kind, zoom, centres):
    """-> centres (M, 2) of cells over or under the others: near one of them, not on its nucleus."""
    count = rng.binomial(len(centres), kind.overlap)
    turn = rng.uniform(0, 2 * np.pi, count)
    step = unit(turn) * (kind.size * zoom * rng.uniform(0.7, 1.1, (count, 1)))
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
    cells = []
    for seed, centre, bound, stage in zip(seeds.tolist(), centres, bounds, stages):
        given = kind, zoom, seed, centre, bound
        cells.append(divide(*given) if stage == MITOSIS else grow(*given, stage, lead))
    return cells


def _boundaries(centres, pairs, metric):
    """-> (N, ANGLES), each cell's distance to its neighbours along each ray, as in a Voronoi diagram."""
    middles = np.array([(m.real, m.imag) for m, _ in pairs]).reshape(-1, 2)
    others = np.concatenate([centres, middles])
    part = np.full((len(centres), len(others)), 0.497)
    for pair in range(len(pairs)):
        part[2 * pair : 2 * pair + 2, len(centres) + pair] = 0.74  # keeps a gap for the bridge
    away = (others[None] - centres[:, None]) @ metric
    square = (away**2).sum(-1)
    square[square == 0] = 1e6
    near = np.argsort(square, axis=1)[:, :NEIGHBOURS]
    away = np.take_along_axis(away, near[..., None], 1)
    reach = np.take_along_axis(part * square, near, 1)
    return (reach[..., None] / np.maximum(away @ (RAYS @ metric).T, 1e-6)).min(1)


def _bridge(rng, first, second, points=14):
    """-> path from inside one daughter cell to inside the other, (points, 2)."""
    towards = second.centre - first.centre
    angle = np.arctan2(towards[1], towards[0])
    ends = np.stack([first.at(angle, 0.85), second.at(angle + np.pi, 0.85)])
    way = np.linspace(0, 1, points)[:, None]
    side = np.array([-towards[1], towards[0]]) * rng.uniform(-0.12, 0.12)
    return ends[0] + (ends[1] - ends[0]) * way + np.sin(np.pi * way) * side


def _litter(rng):
    """Debris of dead cells, and dust: (K, 6)."""
    count = rng.poisson(rng.choice([0.5, 2, 8]))
    places = rng.uniform(-MARGIN, FIELD + MARGIN, (count, 2))
    shine = rng.uniform(0, 1.4, (count, 3)) * (rng.random((count, 3)) < (0.6, 0.35, 0.7))
    return np.column_stack([places, np.exp(rng.normal(-0.1, 0.55, count)), shine])


def _bends(rng):
    """Smooth displacements of a few micrometres that bend a scene, and their inverse."""
    side = round((FIELD + 2 * MARGIN) / BEND_GRAIN) + 1
    bend = np.zeros((side, side, 2), np.float32)
    for grain, size in ((30, 2.4), (9, 0.35)):
        knots = int((FIELD + 2 * MARGIN) / grain) + 2
        coarse = (rng.standard_normal((knots, knots, 2)) * size).astype(np.float32)
        bend += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    x, y = np.meshgrid(np.arange(side, dtype=np.float32), np.arange(side, dtype=np.float32))
    unbend = -bend
    for _ in range(3):
        dx, dy = np.moveaxis(unbend / np.float32(BEND_GRAIN), -1, 0)
        unbend = -cv2.remap(bend, x + dx, y + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return bend, unbend
