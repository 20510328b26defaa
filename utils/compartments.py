"""What a protein looks like in each of the 28 compartments of the Human Protein Atlas.

Every function draws one compartment: ``draw(view, rng, strength) -> (size, size) float32`` of about 0..1, where `view`
is a `Field` and `strength` (number of cells,) says how bright each cell is, 0 for a cell without the protein.
Shapes come from the cell's own geometry (rim, edge, organising centre, fibres), so that they fit the other channels.
"""

import cv2
import numpy as np

from utils.cells import MITOSIS, TURN, draw_microtubules, draw_reticulum


def draw_protein(view, rng, classes):
    """The green channel of a protein in `classes` (class numbers): (size, size) float32 of about 0..1."""
    dividing = np.array([cell.stage == MITOSIS for cell in view.cells])
    unspecific = rng.uniform(0.01, 0.05) * (view.cytoplasm + view.nucleus) * (1 - 0.5 * view.depth)
    green = unspecific.astype(np.float32)
    for number in classes:
        strength = _strengths(rng, len(view.cells))
        strength[dividing] *= number not in LOST_IN_MITOSIS
        green += rng.uniform(0.7, 1.0) * COMPARTMENTS[number](view, rng, strength)
    return green * np.clip(1 + 0.22 * view.noise(rng, 140), 0.3, 1.7)


def _strengths(rng, count):
    """Single-cell variation: strengths that differ from cell to cell, some of them 0."""
    absent = rng.choice([0.0, 0.1, 0.25]) > rng.random(count)
    return np.clip(np.exp(rng.normal(-0.2, 0.25, count)), 0.2, 1.2) * ~absent


def _scale(canvas):
    return canvas.astype(np.float32) / 255


def _soft(view, canvas, width):
    return cv2.GaussianBlur(_scale(canvas), (0, 0), width * view.size)


def _shown(view, strength):
    """The cells that have the protein, with their strengths."""
    return [(cell, value) for cell, value in zip(view.cells, strength) if value > 0]


def _spots(view, rng, strength, count, angle, depth, radius):
    """Round spots in every cell: `count` and `radius` are ranges, `angle(cell, n)` and `depth(n)` say where."""
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        n = rng.integers(*count)
        places = cell.at(angle(cell, n), depth(n))
        view.discs(canvas, places, rng.uniform(*radius, n), value * rng.uniform(0.6, 1.2, n))
    return _scale(canvas)


def _anywhere(rng):
    return lambda cell, n: rng.uniform(0, 2 * np.pi, n)


def _near_pole(rng, spread):
    return lambda cell, n: cell.pole + rng.normal(0, spread, n)


# nucleus


def nucleoplasm(view, rng, strength):
    grain = 0.85 + 0.12 * view.noise(rng, 70)
    return 0.6 * view.nucleus * (1 - 0.85 * view.nucleoli) * grain * view.per_cell(strength)


def nuclear_membrane(view, rng, strength):
    rim = np.exp(-((view.rim / 0.0045) ** 2))
    return (0.9 * rim + 0.1 * view.nucleus) * view.per_cell(strength)


def nucleoli(view, rng, strength):
    return (0.9 * view.nucleoli + 0.08 * view.nucleus) * view.per_cell(strength)


def fibrillar_centers(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        for x, y, radius in cell.nucleoli:
            n = rng.integers(1, 4)
            places = (x, y) + rng.normal(0, 0.4 * radius, (n, 2))
            view.discs(canvas, places, rng.uniform(0.0025, 0.004, n), value)
    return 1.5 * _scale(canvas) + 0.06 * view.nucleoli * view.per_cell(strength)


def nuclear_speckles(view, rng, strength):
    patches = np.clip(3 * (view.noise(rng, 78) - 0.65), 0, 1) * np.clip(view.rim / 0.008, 0, 1)
    return (0.95 * patches * (1 - view.nucleoli) + 0.12 * view.nucleus) * view.per_cell(strength)


def nuclear_bodies(view, rng, strength):
    spots = _spots(view, rng, strength, (2, 11), _anywhere(rng), lambda n: rng.uniform(-0.95, -0.2, n), (0.004, 0.007))
    return spots + 0.05 * view.nucleus * view.per_cell(strength)


# cytoplasm: membranes and vesicles


def endoplasmic_reticulum(view, rng, strength):
    rim = np.exp(-((view.rim / 0.004) ** 2))
    return (0.8 * draw_reticulum(view) + 0.15 * rim) * view.per_cell(strength)


def golgi(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        width = rng.uniform(0.45, 0.9)
        folds = rng.integers(5, 9)
        angle = cell.pole + rng.uniform(-width, width, (folds, 1)) + rng.normal(0, 0.17, (folds, 7))
        depth = rng.uniform(0.06, 0.34, (folds, 1)) + rng.normal(0, 0.09, (folds, 7))
        view.lines(canvas, cell.at(angle, np.clip(depth, 0.03, 0.5)), 0.0035, value)
    return _scale(canvas)


def peroxisomes(view, rng, strength):
    return _spots(view, rng, strength, (50, 90), _anywhere(rng), lambda n: rng.uniform(0.03, 0.9, n), (0.0022, 0.0032))


def endosomes(view, rng, strength):
    spots = _spots(view, rng, strength, (14, 26), _anywhere(rng), lambda n: rng.uniform(0.2, 0.95, n), (0.003, 0.0075))
    return spots + 0.06 * view.cytoplasm * view.per_cell(strength)


def lysosomes(view, rng, strength):
    return _spots(view, rng, strength, (20, 36), _near_pole(rng, 0.8), lambda n: rng.beta(1.3, 4, n), (0.005, 0.009))


def lipid_droplets(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        n = rng.integers(8, 22)
        angle = rng.uniform(0, 2 * np.pi) + rng.normal(0, 1.0, n)
        places, radii = cell.at(angle, rng.uniform(0.1, 0.75, n)), rng.uniform(0.006, 0.013, n)
        view.discs(canvas, places, radii, value, ring=0.003)
        full = n // 3
        view.discs(canvas, places[:full], 0.6 * radii[:full], value)
    return _scale(canvas)


def plasma_membrane(view, rng, strength):
    line = np.exp(-((view.edge / 0.006) ** 2)) * np.clip(0.85 + 0.25 * view.noise(rng, 25), 0.3, 1.3)
    return (0.9 * line + 0.12 * view.cytoplasm + 0.06 * view.nucleus) * view.per_cell(strength)


def cell_junctions(view, rng, strength):
    line = np.exp(-((view.edge / 0.005) ** 2)) * np.clip((view.contact - 0.5) * 4, 0, 1)
    return (line * np.clip(1 + 0.3 * view.noise(rng, 90), 0.4, 1.3) + 0.04 * view.cytoplasm) * view.per_cell(strength)


def mitochondria(view, rng, strength, threads=46, points=7):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        step = rng.normal(0, 0.05, (2, threads, points)) + rng.normal(0, 0.05, (2, threads, 1))
        angle = rng.uniform(0, 2 * np.pi, (threads, 1)) + 1.2 * np.cumsum(step[0], 1)
        depth = rng.beta(1.2, 2.6, (threads, 1)) + 0.7 * np.cumsum(step[1], 1)
        view.lines(canvas, cell.at(angle, np.clip(depth, 0.05, 0.9)), 0.0045, value)
    return 0.85 * _scale(canvas)


def cytosol(view, rng, strength):
    grain = 0.85 + 0.1 * view.noise(rng, 90)
    return 0.5 * view.cytoplasm * (1 - 0.55 * view.depth) * grain * view.per_cell(strength)


# cytoplasm: bodies


def aggresome(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        n = 5
        radius = rng.uniform(0.012, 0.02)
        middle = cell.at(cell.pole, rng.uniform(0.15, 0.35))
        view.discs(canvas, middle + rng.normal(0, 0.45 * radius, (n, 2)), radius * rng.uniform(0.5, 1, n), value)
    return _soft(view, canvas, 0.002) + 0.05 * view.cytoplasm * view.per_cell(strength)


def cytoplasmic_bodies(view, rng, strength):
    spots = _spots(view, rng, strength, (2, 7), _anywhere(rng), lambda n: rng.uniform(0.1, 0.75, n), (0.0065, 0.0095))
    return spots + 0.07 * view.cytoplasm * view.per_cell(strength)


def rods_and_rings(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        rods, rings = rng.integers(1, 4), rng.integers(1, 3)
        middle = cell.at(rng.uniform(0, 2 * np.pi, rods), rng.uniform(0, 0.6, rods))
        turn = rng.uniform(0, np.pi, rods)
        half = rng.uniform(0.015, 0.028, (rods, 1)) * np.stack([np.cos(turn), np.sin(turn)], -1)
        view.lines(canvas, np.stack([middle - half, middle + half], 1), 0.006, value)
        places = cell.at(rng.uniform(0, 2 * np.pi, rings), rng.uniform(0, 0.6, rings))
        view.discs(canvas, places, rng.uniform(0.012, 0.019, rings), value, ring=0.005)
    return _scale(canvas)


# cytoskeleton


def intermediate_filaments(view, rng, strength, threads=46, points=14):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        step = rng.normal(0, 0.11, (2, threads, points)) + rng.normal(0, 0.16, (2, threads, 1))
        angle = rng.uniform(0, 2 * np.pi, (threads, 1)) + np.cumsum(step[0], 1)
        depth = rng.beta(1, 4, (threads, 1)) + 0.35 * np.cumsum(step[1], 1)
        paths = cell.at(angle, np.clip(np.abs(depth), 0.01, 0.8))
        view.lines(canvas, paths[::2], 0.003, 0.6 * value)
        view.lines(canvas, paths[1::2], 0.003, value)
    haze = view.cytoplasm * np.exp(-6 * view.depth) * view.per_cell(strength)
    return _scale(canvas) * (1 - 0.7 * view.depth) + 0.25 * haze


def actin_filaments(view, rng, strength, bundles=26, points=16):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        reach = cell.outline.max()
        direction = cell.axis + rng.normal(0, 0.1, (bundles, 1))
        along = np.linspace(-1, 1, points) * reach
        aside = rng.uniform(-1, 1, (bundles, 1)) * reach + rng.normal(0, 0.06, (bundles, 1)) * along
        radius, angle = np.hypot(along, aside), direction + np.arctan2(aside, along)
        paths = cell.centre + radius[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        inside = radius < 0.97 * np.interp(angle, TURN, cell.outline, period=2 * np.pi)
        pieces = np.stack([paths[:, :-1], paths[:, 1:]], 2)[inside[:, :-1] & inside[:, 1:]]
        for share, part in zip((0.55, 1.0), (pieces[::2], pieces[1::2])):
            view.lines(canvas, part, 0.004, share * value)
    cortex = np.exp(-((view.edge / 0.006) ** 2)) * view.per_cell(strength)
    return 0.8 * _scale(canvas) + 0.35 * cortex


def focal_adhesions(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        n = rng.integers(14, 28)
        angle = cell.axis + rng.choice([0, np.pi], n) + rng.normal(0, 0.8, n)
        outer = 1 - 0.04 - 0.45 * rng.beta(1, 3, n)
        tip = cell.at(angle, outer)
        inward = (cell.centre - tip) / np.linalg.norm(cell.centre - tip, axis=1, keepdims=True)
        tail = tip + inward * rng.uniform(0.009, 0.022, (n, 1))
        view.lines(canvas, np.stack([tip, tail], 1), 0.005, value)
    return _scale(canvas) + 0.06 * view.cytoplasm * view.per_cell(strength)


def microtubules(view, rng, strength):
    return draw_microtubules(view, strength)


def microtubule_ends(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        view.lines(canvas, cell.fibres[:, -2:] * [[[0.4], [0]]] + cell.fibres[:, -1:] * [[[0.6], [1]]], 0.004, value)
        view.discs(canvas, cell.fibres[:, -1], 0.003, value)
    return _scale(canvas)


def organizing_center(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        for place in cell.organisers:
            n = 9
            turn = rng.uniform(0, 2 * np.pi, n)
            rays = rng.uniform(0.012, 0.026, (n, 1)) * np.stack([np.cos(turn), np.sin(turn)], -1)
            view.lines(canvas, np.stack([np.broadcast_to(place, (n, 2)), place + rays], 1), 0.003, 0.5 * value)
            view.discs(canvas, place[None], 0.009, value)
    return _soft(view, canvas, 0.002) + 0.1 * draw_microtubules(view, strength)


def centrosome(view, rng, strength):
    canvas = view.blank()
    for cell, value in _shown(view, strength):
        twin = cell.organisers[:1] + rng.normal(0, 0.006, (rng.integers(0, 2), 2))
        view.discs(canvas, np.concatenate([cell.organisers, twin]), 0.006, value)
    return 1.8 * _scale(canvas)


def cytokinetic_bridge(view, rng, strength):
    canvas = view.blank()
    for path in view.bridges:
        view.lines(canvas, path[None], 0.008, 0.75)
        view.discs(canvas, path[[len(path) // 2]], 0.0085, 1.0)
    return _soft(view, canvas, 0.0015) + 0.05 * view.cytoplasm * view.per_cell(strength)


def mitotic_spindle(view, rng, strength):
    canvas = view.blank()
    for cell in view.cells:
        if cell.stage == MITOSIS:
            view.lines(canvas, cell.fibres, 0.003, 0.9)
            view.discs(canvas, cell.organisers, 0.006, 1.0)
    return _scale(canvas) + 0.05 * view.cytoplasm * view.per_cell(strength)


COMPARTMENTS = dict(enumerate((
    nucleoplasm, nuclear_membrane, nucleoli, fibrillar_centers, nuclear_speckles, nuclear_bodies,
    endoplasmic_reticulum, golgi, peroxisomes, endosomes, lysosomes, intermediate_filaments,
    actin_filaments, focal_adhesions, microtubules, microtubule_ends, cytokinetic_bridge,
    mitotic_spindle, organizing_center, centrosome, lipid_droplets, plasma_membrane,
    cell_junctions, mitochondria, aggresome, cytosol, cytoplasmic_bodies, rods_and_rings,
)))  # fmt: skip
LOST_IN_MITOSIS = {0, 1, 2, 3, 4, 5, 7}
