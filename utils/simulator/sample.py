"""Draws one image of the simulated atlas: a protein in compartments of cells, and the three other channels."""

from dataclasses import dataclass

import numpy as np

from utils.simulator.cell_truth import Cells
from utils.simulator.compartments import LOST_IN_MITOSIS, draw_compartment
from utils.simulator.field import Field
from utils.simulator.optics import photograph
from utils.simulator.plan import PROTEIN, SCENE, VIEW, random_stream
from utils.simulator.references import draw_references
from utils.simulator.scene import FIELD, MARGIN, grow_scene

BRIDGE, SPINDLE, JUNCTIONS, ON_GLASS = 16, 17, 22, {12, 13}  # classes that need special cells
DRAWN_SIZE = 160  # smaller images are drawn at this size, then reduced
TRACE = 0.25  # weight below which an annotator would not name a compartment
TRACES = (0, 2, 5, 6, 9, 14, 21, 23, 25)  # compartments that antibodies often stain weakly


def draw_sample(*what, **more):
    """Draw the image alone, as `draw_with_cells`."""
    return draw_with_cells(*what, **more)[0]


def draw_with_cells(seed, split, index, classes, size, copies=None, ambiguity=0.5, bits=8, kind=None):
    """Draw image `index` of `split`: -> (size, size, 4) red, green, blue, yellow, uint8, or uint16 for 16 `bits`; and its
    Cells.

    classes: the class numbers that it shows. copies: index of the train image whose scene is reused, shifted and with
    another exposure. kind: one of CELL_TYPES, or None for a random one. Another size shows the same scene at another
    magnification.
    """
    origin = (split, index) if copies is None else ("train", copies)
    view_rng = random_stream(seed, split, index, VIEW)
    shift = (0, 0) if copies is None else view_rng.uniform(-0.05, 0.05, 2) * FIELD
    needs = SPINDLE in classes, BRIDGE in classes, JUNCTIONS in classes, not ON_GLASS.isdisjoint(classes)
    scene = grow_scene(random_stream(seed, *origin, SCENE), kind, *needs)
    protein = Protein.choose(random_stream(seed, *origin, PROTEIN), classes, ambiguity)
    drawn = max(size, DRAWN_SIZE)
    light, cells = np.zeros((drawn, drawn, 4), np.float32), Cells(drawn)
    for layer in range(len(scene.layers)):
        view = Field(scene, layer, drawn, shift)
        if view.shown or view.main:
            red, blue, yellow = draw_references(view)
            green, shown = draw_protein(view, protein)
            for channel, image in enumerate((red, green, blue, yellow)):
                light[(*view.window, channel)] += image
            cells.add(view, shown)
    return photograph(view_rng, light, size, split, bits), cells


@dataclass
class Protein:
    """Distribution of one protein: compartments with weights and random seeds, and variation between cells."""

    parts: list  # (class number, weight, seed)
    absent: float  # fraction of cells without it
    spread: float  # standard deviation of the logarithm of its brightness
    unspecific: float  # staining of the whole cell
    specks: int  # number of antibody clumps in the field
    seed: int  # seed of the clumps' places

    @classmethod
    def choose(cls, rng, classes, ambiguity):
        """Choose a protein in `classes`, a tuple of class numbers.

        `ambiguity` 0..1 makes its weights less equal, leaves more cells without it, and adds traces of other
        compartments, unspecific staining and specks. 0: every class is clearly visible.
        """
        weights = 1 - ambiguity * 0.62 * rng.random(28)
        weights[rng.choice(classes)] = 1
        seeds = rng.integers(2**31, size=28)
        parts = [(number, float(weights[number]), int(seeds[number])) for number in classes]
        trace, level = int(rng.choice(TRACES)), rng.uniform(0.03, TRACE)
        if rng.random() < 0.6 * ambiguity and trace not in classes:
            parts.append((trace, level, int(seeds[trace])))
        absent = rng.choice([0.0, 0.15, 0.35, 0.6], p=[0.45, 0.3, 0.17, 0.08]) * 2 * ambiguity
        unspecific = rng.uniform(0, 0.01 + 0.1 * ambiguity)
        specks = int(np.exp(rng.uniform(1, 4.5))) if rng.random() < 0.5 * ambiguity else 0
        return cls(parts, absent, rng.uniform(0.15, 0.55), unspecific, specks, int(rng.integers(2**31)))


def draw_protein(view, protein):
    """Draw the green channel of one layer: -> (height, width) float32 of about 0..1, and (cells, 28) how strongly each cell
    shows each class."""
    strength = _strengths(view, protein)
    inside = view.cytoplasm + 0.8 * view.nucleus
    rough = np.clip(1 + 0.3 * view.noise(np.random.default_rng((view.texture, 2)), 0.8), 0.2, None)
    green = (protein.unspecific * inside * rough).astype(np.float32)
    shown = np.zeros((len(view.cells), 28), np.float32)
    for number, weight, seed in protein.parts:
        lost = view.dividing & (number in LOST_IN_MITOSIS)
        light, strengths = draw_compartment(number, view, np.random.default_rng(seed), strength * ~lost)
        green += weight * light
        shown[:, number] = weight * strengths
        if lost.any():
            green += 0.4 * weight * view.body * view.per_cell(strength * lost)
    if view.main:  # clumps of antibody stick to cells and glass alike
        rng, count, canvas = np.random.default_rng(protein.seed), protein.specks, view.blank()
        places = rng.uniform(-MARGIN, FIELD + MARGIN, (count, 2))
        view.discs(canvas, places, np.exp(rng.normal(-1.1, 0.35, count)), rng.uniform(0.2, 1, count))
        green += view.soft(canvas, 0.1)
    for x, y, radius, shine in view.debris[:, :4]:
        canvas = view.blank()
        view.discs(canvas, np.array([[x, y]]), [0.7 * radius])
        green += 0.5 * float(shine) * view.soft(canvas, 0.2)
    return green, shown


def _strengths(view, protein):
    """Brightness of each cell, (cells,): 0 for some cells, not for the one nearest the middle."""
    streams = [cell.stream(3) for cell in view.cells]
    present = np.array([rng.random() for rng in streams]) >= min(protein.absent, 0.85)
    if view.main:
        middles = np.array([cell.centre for cell in view.cells])
        present[np.argmin(np.abs(middles - FIELD / 2).max(axis=1) + FIELD * view.dividing)] = True
    return np.clip(np.exp([rng.normal(-0.15, protein.spread) for rng in streams]), 0.15, 1.5) * present
