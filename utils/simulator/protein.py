"""The green channel: a protein in one or more compartments, brighter in some cells than in others."""

from dataclasses import dataclass

import numpy as np

from utils.simulator.compartments import COMPARTMENTS, LOST_IN_MITOSIS
from utils.simulator.scene import FIELD, MARGIN

TRACE = 0.25  # weight below which an annotator would not name a compartment


@dataclass
class Protein:
    """Where one protein is: compartments with weights and random seeds, and how it varies from cell to cell."""

    parts: list  # (class number, weight, seed)
    absent: float  # share of cells without it
    spread: float  # of the logarithm of its brightness
    unspecific: float  # staining of everything
    specks: int  # clumps of antibody on the whole field
    seed: int  # of their places

    @classmethod
    def choose(cls, rng, classes, ambiguity):
        """A protein in `classes`, a tuple of class numbers.

        `ambiguity` 0..1 makes its weights less equal, leaves more cells without it, and adds traces of other
        compartments, unspecific staining and specks. 0: every class is plain to see.
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


TRACES = (0, 2, 5, 6, 9, 14, 21, 23, 25)  # compartments that antibodies often stain a little


def draw_protein(view, protein):
    """The green channel of one layer: (height, width) float32 of about 0..1."""
    strength = _strengths(view, protein)
    inside = view.cytoplasm + 0.8 * view.nucleus
    rough = np.clip(1 + 0.3 * view.noise(np.random.default_rng((view.texture, 2)), 0.8), 0.2, None)
    green = (protein.unspecific * inside * rough).astype(np.float32)
    for number, weight, seed in protein.parts:
        lost = view.dividing & (number in LOST_IN_MITOSIS)
        green += weight * COMPARTMENTS[number](view, np.random.default_rng(seed), strength * ~lost)
        if lost.any():
            green += 0.4 * weight * view.body * view.per_cell(strength * lost)
    if view.main:
        green += _specks(view, protein)
    for (x, y, radius), shine in zip(view.debris[:, :3], view.debris[:, 3]):
        canvas = view.blank()
        view.discs(canvas, np.array([[x, y]]), [0.7 * radius])
        green += 0.5 * float(shine) * view.soft(canvas, 0.2)
    return green


def _specks(view, protein):
    """Clumps of antibody that stick to cells and glass alike."""
    rng = np.random.default_rng(protein.seed)
    places = rng.uniform(-MARGIN, FIELD + MARGIN, (protein.specks, 2))
    canvas = view.blank()
    view.discs(canvas, places, np.exp(rng.normal(-1.1, 0.35, protein.specks)), rng.uniform(0.2, 1, protein.specks))
    return view.soft(canvas, 0.1)


def _strengths(view, protein):
    """How bright each cell is, (cells,): some have none of the protein, the one nearest the middle has it."""
    streams = [cell.stream(3) for cell in view.cells]
    present = np.array([rng.random() for rng in streams]) >= min(protein.absent, 0.85)
    if view.main:
        middles = np.array([cell.centre for cell in view.cells])
        present[np.argmin(np.abs(middles - FIELD / 2).max(axis=1) + FIELD * view.dividing)] = True
    return np.clip(np.exp([rng.normal(-0.15, protein.spread) for rng in streams]), 0.15, 1.5) * present
