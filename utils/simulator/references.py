"""The three channels that every sample has: microtubules (red), nuclei (blue), endoplasmic reticulum (yellow)."""

import numpy as np

from utils.simulator.cell import MITOSIS

CANVASES = 3  # crossing lines add up only across canvases


def draw_references(view):
    """Draw microtubules, nuclei and reticulum of one layer: -> three (height, width) float32 of about 0..1."""
    red, blue, yellow = np.array([cell.brightness for cell in view.cells]).T
    light = [draw_microtubules(view, red), draw_nuclei(view, blue), draw_reticulum(view, yellow)]
    for x, y, radius, *shine in view.debris:
        for image, value in zip(light, shine):
            if value > 0:
                canvas = view.blank()
                view.discs(canvas, np.array([[x, y]]), radius)
                image += float(value) * view.soft(canvas, 0.3)
    return light


def draw_microtubules(view, strength):
    """Draw every cell's fibres with brightness `strength` (cells,): -> (height, width) float32, about 0..1."""
    canvases = [view.blank() for _ in range(CANVASES)]
    for dividing in (True, False):
        fibres = [cell.fibres for _, cell in view.shown if (cell.stage == MITOSIS) == dividing]
        pixels = view.pixels(np.concatenate(fibres)) if fibres else []
        for number, canvas in enumerate(canvases):
            view.strokes(canvas, pixels[number::CANVASES], 0.34)
    fibres = sum(canvas.astype(np.float32) for canvas in canvases) / 255
    for path in view.bridges:
        canvas = view.blank()
        for offset in (-0.5, 0, 0.5):
            view.lines(canvas, path[None] + offset, 0.5)
        fibres += canvas.astype(np.float32) / 255
    haze = view.cytoplasm * (0.1 + 0.3 * np.exp(-3.0 * view.depth))
    inside = np.where(view.owner < 0, 0.8, view.per_cell(strength))
    return (0.62 * fibres * (1.1 - 0.6 * view.depth) + 0.45 * haze) * inside


def draw_nuclei(view, strength):
    """Draw DNA: grainy nuclei with nucleoli as dark holes, condensed chromosomes in dividing cells."""
    rng = np.random.default_rng((view.texture, 1))
    grain = view.per_cell([cell.kind.grain for cell in view.cells])
    texture = 0.6 * view.noise(rng, 2.4) + 0.6 * view.noise(rng, 0.8)
    bright_spots = np.clip(view.noise(rng, 1.5) - 1.3, 0, 1) * (grain > 0.4)
    thick = 0.72 + 0.28 * np.clip(view.rim / 2.5, 0, 1)
    chromatin = np.clip(0.75 + 0.8 * grain * texture, 0.15, None) * thick + 1.6 * bright_spots
    nuclei = view.nucleus * chromatin * (1 - 0.5 * view.nucleoli)
    return (nuclei + 1.25 * view.chromosomes) * view.per_cell(strength)


def draw_reticulum(view, strength):
    """Draw the endoplasmic reticulum: sheets and a mesh, dense at the nucleus and fading outward."""
    rng = np.random.default_rng((view.texture, 4))
    mesh = np.exp(-((view.noise(rng, 1.1) / 0.6) ** 2))
    patches = np.clip(1 + 0.22 * view.noise(rng, 6) + 0.28 * view.noise(rng, 0.7), 0.2, None)
    flat = view.per_cell([cell.kind.flat for cell in view.cells])
    fade = np.exp(-(0.2 + 1.5 * flat) * view.depth)
    around = np.exp(-((view.rim + 0.4) ** 2) / 0.5)
    tubes = view.cytoplasm * (0.45 + 0.65 * mesh) * patches * fade + 0.25 * around * view.nucleus
    over_nucleus = 0.10 * view.nucleus * (1 + 0.2 * view.noise(rng, 1.5)) * (1 - 0.4 * view.nucleoli)
    dividing = 1 - 0.7 * np.clip(view.chromosomes, 0, 1)
    return (tubes + over_nucleus) * dividing * view.per_cell(strength)
