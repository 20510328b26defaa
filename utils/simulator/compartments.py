"""The look of a protein in each of the 28 compartments of the Human Protein Atlas. Lengths are micrometres.

Every function draws one compartment: ``draw(view, rng, stain) -> (height, width) float32`` of about 0..1, where `view`
is a `Field` and `stain` the protein in its cells. `rng` gives the properties that all cells of an image share (number,
size and place of dots); the cell's own stream gives the others. Shapes follow the cell's geometry (rim, edge,
organising centre, fibres), so that they fit the other channels.
"""

import numpy as np

from utils.simulator.cell import MITOSIS, TURN, walk
from utils.simulator.references import draw_microtubules, draw_reticulum

FULL_TURN = 2 * np.pi
LOST_IN_MITOSIS = {0, 1, 2, 3, 4, 5, 7}  # they disassemble with the nucleus or the Golgi
LEAST_SEEN = 0.3  # square micrometres as bright as the cell's protein: less of a compartment than most single dots


def draw_compartment(number, view, rng, strength):
    """Draw a protein in compartment `number`: -> (height, width), and (number of cells,) how strongly each cell shows it.

    strength: (number of cells,) brightness, 0 without the protein. A cell shows a compartment as strongly, or not at all
    if it lacks the compartment or none of it is in view.
    """
    stain = Stain(view, rng, strength)
    light = COMPARTMENTS[number](view, rng, stain)
    return light, stain.shown(light)


class Stain:
    """A protein in the cells of one layer. light: (height, width), strength of each pixel's cell."""

    def __init__(self, view, rng, strength):
        self.view, self.rng, self.strength = view, rng, strength
        self.light, self.around = view.per_cell(strength), 0  # around: what `faint` has drawn
        self.least = LEAST_SEEN  # light of the compartment with which a cell shows it
        self.bearers = (
            None  # (number of cells,) 1 for the cells that have a structure as bright in all; None: see `shown`
        )

    def shown(self, light):
        """-> (number of cells,), the strength of cells with at least `least` of the compartment in view, else 0. light: all
        that was drawn."""
        if self.bearers is not None:
            return self.bearers
        return self.strength * (self.view.sums(light - self.around) > self.least * self.strength)

    def cells(self):
        """List the cells in view that have the protein: (Cell, strength, random generator) each."""
        key = int(self.rng.integers(16, 2**31))  # the first keys are the cell's own
        return [(cell, self.strength[n], cell.stream(key)) for n, cell in self.view.shown if self.strength[n] > 0]

    def faint(self, low, high, where="cytoplasm"):
        """Draw a little of the protein in the map `where`."""
        light = self.rng.uniform(low, high) * getattr(self.view, where) * self.light
        self.around = self.around + light
        return light

    def spots(self, number, radius, place, size_spread=0.2, per_area=False):
        """Draw about `number` round spots per cell (or per 200 square micrometres of cytoplasm) of about `radius`.

        ``place(cell, rng, n)`` returns their centres. Light of overlapping spots does not add up.
        """
        canvas = self.view.blank()
        for cell, value, own in self.cells():
            n = own.poisson(number * (cell.area / 200 if per_area else 1))
            radii = radius * np.exp(own.normal(0, size_spread, n))
            shine = value * np.clip(np.exp(own.normal(-0.15, 0.35, n)), 0.25, 1.3)
            order = np.argsort(shine, kind="stable")
            self.view.discs(canvas, place(cell, own, n)[order], radii[order], shine[order] / 1.3)
        return 1.3 * self.view.soft(canvas, 0)


def _between(rng, low, high):
    """Draw a log-uniform random number."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _ridge(distance, centre, width):
    return np.exp(-(((distance - centre) / width) ** 2))


def _towards(centre, points):
    """Directions from `points` (N, 2) to the centre: (N,)."""
    return np.arctan2(*(centre - points).T[::-1])


def nucleoplasm(view, rng, stain):
    contrast = rng.uniform(0.08, 0.35)
    grain = np.clip(0.8 + contrast * (view.noise(rng, _between(rng, 0.5, 1.4)) + 0.5 * view.noise(rng, 3)), 0.1, None)
    holes = 1 - rng.uniform(0.4, 0.95) * view.nucleoli
    return 0.8 * view.nucleus * holes * grain * stain.light + stain.faint(0, 0.08)


def nuclear_membrane(view, rng, stain):
    rim = _ridge(view.rim, 0.25, rng.uniform(0.28, 0.45)) * np.clip(1 + 0.25 * view.noise(rng, 0.9), 0.3, 1.5)
    folds = view.blank()
    for cell, value, own in stain.cells():
        n = own.poisson(0.7)
        start = cell.at(own.uniform(0, FULL_TURN, n), np.full(n, -0.05))
        inward = _towards(cell.centre, start) + own.normal(0, 0.4, n)
        view.lines(folds, walk(own, start, inward, 9, cell.radius * own.uniform(0.06, 0.14, n), 0.2), 0.4, value)
    inside = rng.uniform(0.05, 0.22) * view.nucleus
    return (0.95 * rim + inside) * stain.light + 0.6 * view.soft(folds, 0) * view.nucleus


def nucleoli(view, rng, stain):
    texture = np.clip(0.85 + 0.25 * view.noise(rng, 0.7), 0.2, None)
    return (0.95 * view.nucleoli * texture + rng.uniform(0.03, 0.3) * view.nucleus) * stain.light


def fibrillar_centers(view, rng, stain):
    canvas = view.blank()
    number, radius = _between(rng, 1.5, 5), _between(rng, 0.25, 0.5)
    for cell, value, own in stain.cells():
        for x, y, size in cell.nucleoli:
            n = 1 + own.poisson(number - 1)
            places = (x, y) + np.clip(own.normal(0, 0.42, (n, 2)), -0.8, 0.8) * size
            view.discs(canvas, places, radius * np.exp(own.normal(0, 0.2, n)), value)
    return 1.3 * view.soft(canvas, 0.12) + stain.faint(0.02, 0.25, "nucleoli") + stain.faint(0, 0.1, "nucleus")


def nuclear_speckles(view, rng, stain):
    patches = view.noise(rng, _between(rng, 0.95, 1.25)) + 0.35 * view.noise(rng, 0.5)
    patches = np.clip(1.8 * (patches - 0.85), 0, 1) * np.clip(view.rim / 0.8, 0, 1) * (1 - view.nucleoli)
    return (0.95 * patches + rng.uniform(0.05, 0.25) * view.nucleus * (1 - 0.7 * view.nucleoli)) * stain.light


def nuclear_bodies(view, rng, stain):
    def inside(cell, own, n):
        return cell.at(own.uniform(0, FULL_TURN, n), -1 + np.sqrt(own.uniform(0, 0.8, n)))

    spots = stain.spots(_between(rng, 2.5, 10), _between(rng, 0.3, 0.75), inside)
    return spots + stain.faint(0.02, 0.18, "nucleus")


def endoplasmic_reticulum(view, rng, stain):
    rim = _ridge(view.rim, -0.2, 0.45) * rng.uniform(0.1, 0.4)
    return draw_reticulum(view, stain.strength) + rim * stain.light


def golgi(view, rng, stain):
    """A crumpled ribbon on the pole's side of the nucleus, with vesicles around it; fragmented in some images."""
    canvas, vesicles = view.blank(), view.blank()
    spread, broken, width = _between(rng, 2.0, 5.0), rng.random() < 0.3, rng.uniform(0.4, 0.7)
    for cell, value, own in stain.cells():
        n = int(own.integers(16, 30) * min(1, cell.radius / 7))
        angle = cell.pole + own.normal(0, spread * (2 if broken else 1), n) / cell.radius
        start = cell.by_rim(angle, np.abs(own.normal(1.4, 1.1, n)) + 0.3)
        tangent = angle + np.pi / 2 + own.normal(0, 0.9, n)
        paths = walk(own, start, tangent, 4 if broken else 7, own.uniform(0.25, 0.5, n), 0.5)
        for part in np.array_split(cell.confine(paths, 0.3), 3):
            view.lines(canvas, part, width, value * own.uniform(0.5, 1))
        m = own.poisson(8)
        places = cell.by_rim(cell.pole + own.normal(0, 2 * spread, m) / cell.radius, own.exponential(3, m))
        view.discs(vesicles, places, own.uniform(0.2, 0.35, m), 0.7 * value)
    return view.soft(canvas, 0.22) + view.soft(vesicles, 0.1) + stain.faint(0.0, 0.12)


def peroxisomes(view, rng, stain):
    """Many small dots of one size, evenly spread."""

    def anywhere(cell, own, n):
        return cell.at(own.uniform(0, FULL_TURN, n), own.uniform(0.03, 0.92, n))

    spots = stain.spots(_between(rng, 35, 80), rng.uniform(0.2, 0.3), anywhere, 0.12, per_area=True)
    return spots + stain.faint(0.02, 0.1)


def endosomes(view, rng, stain):
    """Fewer dots of many sizes, denser to one side."""
    place = _at_the_pole(_between(rng, 0.7, 3), 1.6)
    spots = stain.spots(_between(rng, 12, 40), _between(rng, 0.25, 0.4), place, 0.45, per_area=True)
    return spots + stain.faint(0.03, 0.15)


def lysosomes(view, rng, stain):
    """Larger dots that crowd near the nucleus."""
    place = _at_the_pole(_between(rng, 0.5, 1.5), rng.uniform(3, 6))
    return stain.spots(_between(rng, 15, 32), _between(rng, 0.4, 0.65), place, 0.3) + stain.faint(0.03, 0.12)


def _at_the_pole(spread, decay):
    """Places within about `spread` radians of the pole, fewer outward the larger the `decay`."""
    return lambda cell, own, n: cell.confine(cell.at(cell.pole + own.normal(0, spread, n), own.beta(1.2, decay, n)))


def intermediate_filaments(view, rng, stain):
    """Tangled thick threads, densest around the nucleus."""
    canvases = [view.blank() for _ in range(3)]
    density, crowd, wander = _between(rng, 0.10, 0.22), rng.uniform(2.0, 5.0), rng.uniform(0.16, 0.34)
    for cell, value, own in stain.cells():
        n = int(np.clip(density * cell.area, 24, 130))
        angle = own.uniform(0, FULL_TURN, n)
        start = cell.at(angle, own.beta(1.0, crowd, n))
        heading = angle + own.choice([-1, 1], n) * np.abs(own.normal(1.2, 0.6, n))
        paths = cell.confine(walk(own, start, heading, 20, own.uniform(0.4, 1.2, n), wander), 0.2, 1.0)
        for part, canvas in enumerate(canvases):
            view.lines(canvas, paths[part::3], 0.4, value * (0.6 + 0.2 * part))
    haze = np.exp(-4 * view.depth) * view.cytoplasm * stain.light
    return 0.6 * sum(view.soft(canvas, 0) for canvas in canvases) * (1.1 - 0.7 * view.depth) + 0.3 * haze


def actin_filaments(view, rng, stain):
    """Long parallel bundles right across the cell, a bright cortex, some haze."""
    canvases = [view.blank(), view.blank()]
    spacing, tilt = _between(rng, 0.7, 1.8), rng.normal(0, 0.2)
    for cell, value, own in stain.cells():
        for direction, part in ((cell.axis + tilt, 1.0), (cell.axis + own.uniform(0.5, 2.5), 0.35)):
            for canvas, paths in zip(canvases, np.array_split(_bundles(cell, own, direction, spacing / part), 2)):
                view.lines(canvas, paths, own.uniform(0.3, 0.55), part * value * own.uniform(0.4, 1))
    cortex = _ridge(view.edge, 0.3, 0.6) * np.clip(1 + 0.4 * view.noise(rng, 3), 0, None)
    haze = rng.uniform(0.1, 0.35) * view.body * np.clip(1 + 0.3 * view.noise(rng, 1.0), 0.2, None)
    haze = haze * (1 - 0.5 * view.nucleus)
    lines = sum(view.soft(canvas, 0) for canvas in canvases)
    return 0.75 * lines + (rng.uniform(0.25, 0.6) * cortex + haze) * stain.light


def _bundles(cell, rng, direction, spacing, points=14):
    """Slightly bent chords of the cell that run in one direction: (pieces, 2, 2)."""
    reach = cell.outline.max()
    n = max(4, int(2 * reach / spacing))
    along = np.linspace(-1, 1, points) * reach * rng.uniform(0.35, 1.1, (n, 1)) + rng.normal(0, 0.3, (n, 1)) * reach
    aside = rng.uniform(-1, 1, (n, 1)) * reach + rng.normal(0, 0.06, (n, 1)) * along
    turn = direction + rng.normal(0, 0.06, (n, 1))
    x, y = along * np.cos(turn) - aside * np.sin(turn), along * np.sin(turn) + aside * np.cos(turn)
    paths = cell.centre + np.stack([x, y], -1)
    away = paths - cell.centre
    edge = np.interp(np.arctan2(away[..., 1], away[..., 0]), TURN, cell.outline, period=FULL_TURN)
    inside = np.hypot(away[..., 0], away[..., 1]) < 0.97 * edge
    return np.stack([paths[:, :-1], paths[:, 1:]], 2)[inside[:, :-1] & inside[:, 1:]]


def focal_adhesions(view, rng, stain):
    """Short streaks near the edge that point inward, and some under the cell."""
    canvas = view.blank()
    number, length = _between(rng, 18, 50), _between(rng, 1.2, 2.8)
    for cell, value, own in stain.cells():
        n = own.poisson(number)
        angle = cell.axis + own.choice([0, np.pi], n) + own.normal(0, 0.9, n)
        tip = cell.at(angle, 1 - 0.03 - 0.6 * own.beta(0.8, 3, n))
        inward = _towards(cell.centre, tip) + own.normal(0, 0.25, n)
        paths = walk(own, tip, inward, 4, length / 3 * np.exp(own.normal(0, 0.35, n)), 0.08)
        view.lines(canvas, cell.confine(paths, inner=None), 0.5, value)
    return 1.1 * view.soft(canvas, 0.1) + stain.faint(0.06, 0.3)


def microtubules(view, rng, stain):
    return draw_microtubules(view, stain.strength) + stain.faint(0, 0.1)


def microtubule_ends(view, rng, stain):
    """Comets at the tips of fibres, or along fibres that still grow."""
    canvas, length = view.blank(), rng.uniform(0.6, 1.3)
    for cell, value, own in stain.cells():
        count, points = cell.fibres.shape[:2]
        stop = np.where(own.random(count) < 0.6, points - 1, own.integers(4, points, count))
        tip, before = (cell.fibres[np.arange(count), stop - back] for back in (0, 1))
        way = (before - tip) / np.maximum(np.linalg.norm(before - tip, axis=1, keepdims=True), 1e-6)
        view.lines(canvas, np.stack([tip + way * length, tip], 1), 0.4, 0.8 * value)
        view.discs(canvas, tip, 0.28, value)
    return 1.2 * view.soft(canvas, 0) + stain.faint(0.03, 0.15)


def cytokinetic_bridge(view, rng, stain):
    """A thin bridge between two daughter cells, brightest on both sides of its middle."""
    canvas, thin = view.blank(), view.blank()
    wide = rng.uniform(0.5, 0.9)
    stain.bearers = np.zeros(len(view.cells))
    for pair, path in enumerate(view.bridges):
        middle = len(path) // 2
        stain.bearers[2 * pair : 2 * pair + 2] = view.contains(path[middle])  # the first cells are the daughters
        view.lines(thin, path[None], 0.7)
        view.lines(canvas, np.stack([path[middle - 3 : middle], path[middle + 1 : middle + 4]]), wide)
    elsewhere = stain.faint(0.03, 0.2) + stain.faint(0, 0.15, "nucleus")
    return 1.5 * view.soft(canvas, 0.15) + 0.6 * view.soft(thin, 0.1) + elsewhere


def mitotic_spindle(view, rng, stain):
    """The fibres between the poles of a dividing cell; elsewhere the protein is faint."""
    canvas, poles = view.blank(), rng.uniform(0, 0.9)
    stain.bearers = np.zeros(len(view.cells))
    for n, cell in view.shown:
        if cell.stage == MITOSIS:
            stain.bearers[n] = view.contains(cell.centre)
            view.lines(canvas, cell.fibres, 0.38)
            view.discs(canvas, cell.organisers, poles)
    return 1.5 * view.soft(canvas, 0.15) + (stain.faint(0.03, 0.2) + stain.faint(0, 0.2, "nucleus"))


def organizing_center(view, rng, stain):
    """A bright patch at the organising centre, from which fibres fan out."""
    canvas, radius, n = view.blank(), _between(rng, 0.8, 1.6), 12
    for cell, value, own in stain.cells():
        for place in cell.organisers:
            angle, step = own.uniform(0, FULL_TURN, n), own.uniform(0.3, 0.9, n)
            view.lines(canvas, walk(own, np.repeat(place[None], n, 0), angle, 5, step, 0.15), 0.35, 0.45 * value)
            view.discs(canvas, place + own.normal(0, 0.35 * radius, (4, 2)), radius * own.uniform(0.3, 0.7, 4), value)
    return 1.3 * view.soft(canvas, 0.2) + rng.uniform(0.02, 0.25) * draw_microtubules(view, stain.strength)


def centrosome(view, rng, stain):
    """One dot, or the two of a pair."""
    canvas, radius, two = view.blank(), _between(rng, 0.35, 0.6), rng.uniform(0.1, 0.7)
    for cell, value, own in stain.cells():
        second = cell.organisers[:1] + own.normal(0, 0.9, (int(own.random() < two), 2))
        view.discs(canvas, np.concatenate([cell.organisers, second]), radius, value)
    return 1.5 * view.soft(canvas, 0.12) + (stain.faint(0.04, 0.25) + stain.faint(0, 0.15, "nucleus"))


def lipid_droplets(view, rng, stain):
    """Bright drops, or rings where only their surface is stained, in bunches."""
    canvas, rings = view.blank(), rng.random() < 0.6
    number, radius = _between(rng, 8, 30), _between(rng, 0.5, 1.0)
    for cell, value, own in stain.cells():
        n = own.poisson(number)
        bunch = own.uniform(0, FULL_TURN, 3)
        angle = own.choice(bunch, n) + own.normal(0, 0.4, n)
        places = cell.confine(cell.at(angle, own.uniform(0.08, 0.75, n)), 0.6, 1.0)
        view.discs(canvas, places, radius * np.exp(own.normal(0, 0.35, n)), value, ring=0.35 if rings else None)
    return view.soft(canvas, 0.08) + stain.faint(0.05, 0.2)


def plasma_membrane(view, rng, stain):
    """The cell's edge, brighter where two cells touch, with ruffles and hairs, and a mottled surface."""
    width = rng.uniform(0.35, 0.6)
    mottled = np.clip(1 + 0.3 * view.noise(rng, 5) + 0.25 * view.noise(rng, 0.8), 0.2, None)
    line = _ridge(view.edge, 0.2, width) * mottled * (0.8 + 0.4 * view.contact)
    ruffles = np.exp(-view.edge.clip(0) / 2.5) * np.clip(view.noise(rng, 4), 0, 1.5) * (1 - view.contact) * view.body
    hairs = view.blank()
    length, number = rng.uniform(0.8, 3), _between(rng, 3, 25)
    for cell, value, own in stain.cells():
        free = np.flatnonzero(cell.contact < 0.4)
        angle = own.choice(TURN[free], own.poisson(number)) if len(free) else np.zeros(0)
        start = cell.at(angle, np.full(len(angle), 0.98))
        out = angle + own.normal(0, 0.35, len(angle))
        view.lines(hairs, walk(own, start, out, 5, length / 4 * own.uniform(0.4, 1.4, len(angle)), 0.2), 0.3, value)
    surface = rng.uniform(0.06, 0.3) * view.body * mottled * (1 - 0.25 * view.nucleus)
    return (0.9 * line + 0.35 * ruffles + surface) * stain.light + 0.7 * view.soft(hairs, 0)


def cell_junctions(view, rng, stain):
    """The edge where it presses against a neighbour, in beads."""
    touching = np.clip((view.contact - 0.45) * 5, 0, 1)
    beads = np.clip(0.9 + rng.uniform(0.15, 0.6) * view.noise(rng, 0.9) + 0.25 * view.noise(rng, 4), 0, None)
    line = _ridge(view.edge, 0.1, rng.uniform(0.35, 0.6)) * touching * beads
    stain.least = 1.5  # about two micrometres of contact
    return line * stain.light + stain.faint(0.02, 0.12, "body")


def mitochondria(view, rng, stain):
    """Threads around the nucleus, some short, some joined in nets."""
    canvases = [view.blank(), view.blank()]
    density, length, crowd = _between(rng, 0.22, 0.42), _between(rng, 5, 14), rng.uniform(1.4, 3.0)
    for cell, value, own in stain.cells():
        n = int(np.clip(density * cell.area, 20, 260))
        angle = own.uniform(0, FULL_TURN, n)
        start = cell.at(angle, own.beta(1.0, crowd, n))
        heading = angle + own.choice([0, np.pi / 2, np.pi, -np.pi / 2], n) + own.normal(0, 0.6, n)
        paths = walk(own, start, heading, max(4, int(length)), own.uniform(0.25, 0.75, n), 0.45)
        paths = cell.confine(paths, 0.3, 0.8)
        for half, canvas in enumerate(canvases):
            view.lines(canvas, paths[half::2], 0.42, value * (0.6 + 0.4 * half))
    return 0.85 * sum(view.soft(canvas, 0) for canvas in canvases) + stain.faint(0.02, 0.1)


def aggresome(view, rng, stain):
    """One large blob by the nucleus."""
    canvas, usual, n = view.blank(), _between(rng, 1.1, 2.0), 7
    for cell, value, own in stain.cells():
        radius = usual * min(1, cell.radius / 8) * np.exp(own.normal(0, 0.25))
        middle = cell.by_rim(cell.pole, radius + own.uniform(0, 1.2))
        places = middle + own.normal(0, 0.5 * radius, (n, 2))
        view.discs(canvas, places, radius * own.uniform(0.45, 0.85, n), value)
    return 1.4 * view.soft(canvas, 0.3) + stain.faint(0.02, 0.12)


def cytosol(view, rng, stain):
    """The whole cell except the nucleus, with shadows of organelles."""
    grain = np.clip(0.9 + 0.12 * view.noise(rng, 0.8) + 0.1 * view.noise(rng, 8), 0.2, None)
    depth = rng.uniform(0.2, 0.6)
    shadows = np.clip(1.3 * view.noise(rng, 2.0) - 0.5, 0, 1) + np.clip(1.2 * view.noise(rng, 0.9) - 0.7, 0, 1)
    filled = view.cytoplasm * grain * (1 - depth * np.minimum(shadows, 1))
    nuclear = rng.uniform(0.08, 0.35) * view.nucleus * (1 - 0.5 * view.nucleoli)
    return 0.75 * (filled + nuclear) * stain.light


def cytoplasmic_bodies(view, rng, stain):
    """A few round bodies."""

    def anywhere(cell, own, n):
        return cell.confine(cell.at(own.uniform(0, FULL_TURN, n), own.uniform(0.05, 0.8, n)), 0.6, 1.0)

    return stain.spots(_between(rng, 3, 10), _between(rng, 0.45, 0.9), anywhere, 0.25) + stain.faint(0.05, 0.25)


def rods_and_rings(view, rng, stain):
    canvas = view.blank()
    for cell, value, own in stain.cells():
        rods, rings = own.integers(1, 5), own.integers(0, 3)
        start = cell.at(own.uniform(0, FULL_TURN, rods), own.uniform(0, 0.5, rods))
        paths = walk(own, start, own.uniform(0, FULL_TURN, rods), 8, own.uniform(0.4, 1.1, rods), 0.06)
        view.lines(canvas, cell.confine(paths, inner=None), 0.6, value)
        places = cell.confine(cell.at(own.uniform(0, FULL_TURN, rings), own.uniform(0.1, 0.6, rings)), 2.0, 2.5)
        view.discs(canvas, places, own.uniform(1.3, 2.2, rings), value, ring=0.55)
    return 1.3 * view.soft(canvas, 0.1) + stain.faint(0.02, 0.15, "body")


COMPARTMENTS = (  # in the order of the 28 class numbers
    *(nucleoplasm, nuclear_membrane, nucleoli, fibrillar_centers, nuclear_speckles, nuclear_bodies),
    *(endoplasmic_reticulum, golgi, peroxisomes, endosomes, lysosomes, intermediate_filaments, actin_filaments),
    *(focal_adhesions, microtubules, microtubule_ends, cytokinetic_bridge, mitotic_spindle, organizing_center),
    *(centrosome, lipid_droplets, plasma_membrane, cell_junctions, mitochondria, aggresome, cytosol),
    *(cytoplasmic_bodies, rods_and_rings),
)
