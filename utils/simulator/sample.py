"""One four-channel picture of the simulated atlas."""

import numpy as np

from utils.simulator.field import Field
from utils.simulator.optics import photograph
from utils.simulator.plan import PROTEIN, SCENE, VIEW, random_stream
from utils.simulator.protein import Protein, draw_protein
from utils.simulator.references import draw_references
from utils.simulator.scene import FIELD, grow_scene

BRIDGE, SPINDLE, JUNCTIONS, ON_GLASS = 16, 17, 22, {12, 13}  # classes that need a scene of their own
DRAWN_SIZE = 160  # smaller pictures are drawn at least this large, then reduced


def draw_sample(seed, split, index, classes, size, copies=None, ambiguity=0.5, bits=8, kind=None):
    """Draw image `index` of `split`.

    `classes` are the class numbers that it shows, `size` its side in pixels, `copies` the index of the train image
    whose scene is shown again, moved and exposed otherwise, `kind` a CellType or None. The same image at another size
    is the same scene at another magnification.
    Returns (size, size, 4) uint8 0..255, or uint16 0..65535 for 16 `bits`: red, green, blue, yellow.
    """
    origin = (split, index) if copies is None else ("train", copies)
    view_rng = random_stream(seed, split, index, VIEW)
    shift = (0, 0) if copies is None else view_rng.uniform(-0.05, 0.05, 2) * FIELD
    scene_rng = random_stream(seed, *origin, SCENE)
    needs = SPINDLE in classes, BRIDGE in classes, JUNCTIONS in classes, not ON_GLASS.isdisjoint(classes)
    scene = grow_scene(scene_rng, kind, *needs)
    drawn = max(size, DRAWN_SIZE)
    light = np.zeros((drawn, drawn, 4), np.float32)
    protein = Protein.choose(random_stream(seed, *origin, PROTEIN), classes, ambiguity)
    for layer in range(len(scene.layers)):
        view = Field(scene, layer, drawn, shift)
        if view.shown or view.main:
            red, blue, yellow = draw_references(view)
            for channel, image in enumerate((red, draw_protein(view, protein), blue, yellow)):
                light[(*view.window, channel)] += image
    return photograph(view_rng, light, size, split, bits)
