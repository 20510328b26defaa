"""Each compartment of the simulated atlas lies where it should in the cell, and nowhere else."""

import numpy as np
import pytest

from utils.opencv import cv2
from utils.simulator.cell import MITOSIS, TURN
from utils.simulator.cell_types import CELL_TYPES
from utils.simulator.compartments import draw_compartment
from utils.simulator.field import Field
from utils.simulator.references import draw_microtubules, draw_nuclei, draw_references, draw_reticulum
from utils.simulator.sample import Protein, draw_protein
from utils.simulator.scene import FIELD, grow_scene

KINDS = {kind.name: kind for kind in CELL_TYPES}
SIZE = 512


def grow(seed, kind=None, **needs):
    return grow_scene(np.random.default_rng(seed), KINDS.get(kind), **needs)


def field(seed=0, kind="U-2 OS", **needs):
    return Field(grow(seed, kind, **needs), 0, SIZE)


def light(view, number, seed=0, strength=None):
    strength = np.ones(len(view.cells)) if strength is None else strength
    return draw_compartment(number, view, np.random.default_rng(seed), strength)[0]


def bright(image):
    """The light above a third of its peak."""
    return image * (image > image.max() / 3)


def fraction_in(image, region):
    """How much of the bright light lies in the region."""
    return float((bright(image) * region).sum() / bright(image).sum())


@pytest.fixture(scope="module")
def usual():
    return field()


@pytest.fixture(scope="module")
def crowded():
    return field(kind="A-431")


@pytest.mark.parametrize("number", (0, 2, 3, 4, 5))
def test_nuclear_compartments_are_in_nuclei(number, usual):
    assert fraction_in(light(usual, number), usual.rim > -0.4) > 0.95


@pytest.mark.parametrize("number", (7, 8, 9, 10, 11, 20, 22, 23, 25, 26))
def test_cytoplasmic_compartments_are_in_cells_and_outside_nuclei(number, crowded):
    assert fraction_in(light(crowded, number), (crowded.rim < 0.8) & (crowded.edge > -0.8)) > 0.95


def test_nucleoplasm_spares_the_nucleoli_that_the_nucleoli_class_fills():
    view = field(seed=2)
    hole, rest = view.nucleoli > 0.9, (view.nucleus > 0.9) & (view.nucleoli < 0.1)
    plasm, filled = light(view, 0), light(view, 2)
    assert plasm[hole].mean() < 0.7 * plasm[rest].mean()
    assert filled[hole].mean() > 2 * filled[rest].mean()
    blue = draw_nuclei(view, np.ones(len(view.cells)))
    assert blue[hole].mean() < 0.75 * blue[rest].mean()  # dark holes in the DNA
    assert fraction_in(light(view, 3), view.nucleoli > 0.2) > 0.9  # fibrillar centres are inside nucleoli


def test_membranes_are_lines():
    view = field(kind="A-431", seed=1)
    assert fraction_in(light(view, 1), np.abs(view.rim) < 1.2) > 0.85
    assert fraction_in(light(view, 21), np.abs(view.edge) < 2.5) > 0.8
    junctions = light(view, 22)
    assert fraction_in(junctions, (np.abs(view.edge) < 2) & (view.contact > 0.4)) > 0.9


def count_spots(image):
    peaks = (image == cv2.dilate(image, np.ones((5, 5)))) & (image > image.max() / 3)
    return cv2.connectedComponents(peaks.astype(np.uint8))[0] - 1


def test_numbers_of_spots_a_cell():
    """Centrosomes one or two, nuclear bodies a few, speckles dozens, peroxisomes most."""
    found = {5: [], 4: [], 8: [], 19: [], 9: [], 10: []}
    for seed in range(6):
        view = field(seed)
        whole = [cell for _, cell in view.shown if ((cell.centre > 0) & (cell.centre < FIELD)).all()]
        for number, counts in found.items():
            counts.append(count_spots(light(view, number, seed)) / len(whole))
    bodies, speckles, peroxisomes, centrosomes, endosomes, lysosomes = map(np.median, found.values())
    assert 0.5 <= centrosomes <= 3 and 1.5 <= bodies <= 12 and 20 <= speckles <= 60
    assert peroxisomes > 1.4 * endosomes > 1.4 * lysosomes > 0 and peroxisomes > speckles


def test_golgi_and_organising_centre_lie_at_the_pole_of_the_nucleus():
    view = field(seed=3)
    y, x = np.mgrid[:SIZE, :SIZE] * (FIELD / SIZE)
    for number in (7, 18, 24):
        image = bright(light(view, number, 1))
        towards = []
        for n, cell in view.shown:
            ahead = (x - cell.centre[0]) * np.cos(cell.pole) + (y - cell.centre[1]) * np.sin(cell.pole)
            if (own := image * (view.owner == n)).any():
                towards.append((own * ahead).sum())
        assert np.mean(np.array(towards) > 0) > 0.8


def test_filaments_follow_their_reference_and_fill_differently():
    view = field(seed=1)
    ones = np.ones(len(view.cells))
    red, yellow = draw_microtubules(view, ones), draw_reticulum(view, ones)

    def like(a, b):
        return np.corrcoef(cv2.GaussianBlur(a, (0, 0), 1).ravel(), cv2.GaussianBlur(b, (0, 0), 1).ravel())[0, 1]

    assert like(light(view, 14), red) > 0.95
    assert like(light(view, 6), yellow) > 0.9
    assert like(light(view, 6), red) < like(light(view, 6), yellow)
    inside = view.owner >= 0
    near, far = inside & (view.depth < 0.2) & (view.rim < 0), inside & (view.depth > 0.8)
    assert yellow[near].mean() > 1.5 * yellow[far].mean()  # fades outward


def test_actin_bundles_run_in_one_direction():
    view = field(kind="BJ", seed=4)
    image = light(view, 12, 5)
    gx, gy = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    cell = max(view.shown, key=lambda pair: pair[1].area)[0]
    inside = (view.owner == cell) & (view.edge > 3)
    gx, gy = gx[inside], gy[inside]
    coherence = np.hypot((gx**2 - gy**2).sum(), 2 * (gx * gy).sum()) / (gx**2 + gy**2).sum()
    assert coherence > 0.3  # 0: no direction, 1: exactly parallel


def test_spindles_only_in_dividing_cells_and_bridges_only_between_daughters():
    view = field(seed=5, kind="A-431", mitosis=True)  # a type without arms, which would lie over dividing cells
    dividing = np.isin(view.owner, [n for n, cell in view.shown if cell.stage == MITOSIS])
    assert dividing.any() and fraction_in(light(view, 17), dividing) > 0.98
    assert view.chromosomes[~dividing].max() < 0.2 < view.chromosomes[dividing].max()
    view = field(seed=5, bridge=True)
    assert view.bridges
    near = view.blank()
    for path in view.bridges:
        view.lines(near, path[None], 4)
    assert fraction_in(light(view, 16), near > 0) > 0.95


def test_a_cell_without_the_protein_is_dark():
    view = field(seed=6, kind="A-431")
    chosen = view.shown[len(view.shown) // 2][0]
    strength = np.ones(len(view.cells))
    strength[chosen] = 0
    deep = (view.owner == chosen) & (view.edge > 3)
    others = (view.owner >= 0) & (view.owner != chosen) & (view.edge > 3)
    for number in set(range(28)) - {16, 17}:
        image = light(view, number, 3, strength)
        assert image[deep].mean() < 0.06 * image[others].mean() + 1e-4, number


def test_bright_green_is_in_the_cells_for_every_class_and_type():
    """All channels of a cell agree: no protein, fibre or reticulum beyond the cells."""
    for number in range(28):
        kind = KINDS["A-431"] if number == 22 else CELL_TYPES[number % len(CELL_TYPES)]
        view = Field(grow_scene(np.random.default_rng(number), kind, number == 17, number == 16), 0, 256)
        near = (view.edge > -1.5) | (cv2.dilate(view.body, np.ones((15, 15))) > 0.5 if number in (16, 21) else False)
        assert fraction_in(light(view, number), near) > 0.93, (number, kind.name)
        beyond = cv2.distanceTransform((view.body < 0.5).astype(np.uint8), cv2.DIST_L2, 5) * view.pixel > 3
        for image in draw_references(view):
            crumbs = cv2.dilate((image > 0.05).astype(np.uint8), np.ones((3, 3))) * beyond
            assert (crumbs > 0).mean() < 0.004 + 0.002 * len(view.debris)  # only debris lies beyond the cells


def test_ambiguity_adds_traces_and_makes_weights_unequal():
    plain = [Protein.choose(np.random.default_rng(seed), (0, 25), 0.0) for seed in range(40)]
    mixed = [Protein.choose(np.random.default_rng(seed), (0, 25), 1.0) for seed in range(40)]
    assert all([weight for _, weight, _ in protein.parts] == [1, 1] for protein in plain)
    assert any(len(protein.parts) == 3 for protein in mixed)
    assert all(max(weight for _, weight, _ in protein.parts) == 1 for protein in mixed)
    assert np.mean([protein.absent for protein in mixed]) > np.mean([protein.absent for protein in plain])


def test_single_cells_vary():
    view = field(seed=7, kind="HEK 293")
    protein = Protein([(25, 1.0, 1)], absent=0.5, spread=0.4, unspecific=0.01, specks=0, seed=0)
    green, _ = draw_protein(view, protein)
    bodies = [(view.owner == n) & (view.depth > 0.1) for n, _ in view.shown]
    levels = np.array([np.median(green[body]) for body in bodies if body.any()])
    assert 0.2 < np.mean(levels < 0.1 * levels.max()) < 0.8
    present = levels[levels > 0.1 * levels.max()]
    assert present.std() / present.mean() > 0.1


def test_cell_types_differ_and_fields_hold_a_fitting_number_of_cells():
    assert len(CELL_TYPES) >= 27 and len({kind.name for kind in CELL_TYPES}) == len(CELL_TYPES)
    for kind in CELL_TYPES:
        counts = []
        for seed in range(3):
            scene = grow_scene(np.random.default_rng(seed), kind)
            cells = [cell for layer in scene.layers for cell in layer]
            counts.append(sum(((cell.centre > 0) & (cell.centre < FIELD)).all() for cell in cells))
            assert all((cell.outline > cell.nucleus).all() and (cell.nucleus > 0).all() for cell in cells)
        assert 5 <= np.median(counts) <= 40, (kind.name, counts)

    def length_over_width(name):
        cells = [cell for seed in range(4) for cell in grow(seed, name).layers[0]]
        ratios = []
        for cell in cells:
            outline = cell.outline[:, None] * np.stack([np.cos(TURN), np.sin(TURN)], -1)
            width, length = np.sqrt(np.linalg.eigvalsh(np.cov(outline.T)))
            ratios.append(length / width)
        return np.median(ratios)

    assert length_over_width("BJ") > 1.5 * length_over_width("K-562")


def test_cells_overlap_are_cut_by_the_border_and_divide_now_and_then():
    scenes = [grow(seed) for seed in range(60)]
    assert sum(len(scene.layers) > 1 for scene in scenes) > 10
    assert any(scene.bridges for scene in scenes) and any(len(scene.debris) for scene in scenes)
    cells = [cell for scene in scenes for cell in scene.layers[0]]
    assert any(cell.stage == MITOSIS for cell in cells)
    reaches = [cell.centre + side * cell.outline.max() for cell in cells for side in (-1, 1)]
    assert np.mean([((reach < 0) | (reach > FIELD)).any() for reach in reaches]) > 0.1


def test_every_compartment_can_be_seen_and_none_is_drawn_as_another():
    view = field(kind="A-431", seed=8, bridge=True, mitosis=True)
    images = [cv2.GaussianBlur(light(view, number, 1), (0, 0), 1)[::2, ::2] for number in range(28)]
    images = np.reshape(images, (28, -1))
    assert images.max(axis=1).min() > 0.2
    assert (np.corrcoef(images) - np.eye(28)).max() < 0.97


def test_the_compartment_is_in_the_middle_of_the_image_however_many_cells_are_empty():
    for seed in range(6):
        view = field(seed, kind="U-2 OS")
        protein = Protein([(25, 1.0, 1)], absent=0.85, spread=0.4, unspecific=0.0, specks=0, seed=0)
        assert draw_protein(view, protein)[0].max() > 0.1


def test_noise_is_the_same_texture_at_every_size():
    scene = grow(0)
    coarse, fine = (Field(scene, 0, size).noise(np.random.default_rng(1), 0.8) for size in (192, 768))
    shrunk = cv2.resize(fine, (192, 192), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(coarse.ravel(), shrunk.ravel())[0, 1] > 0.9
    assert 0.6 < coarse.std() / shrunk.std() < 1.6


def test_windows_of_single_cells_show_what_the_whole_field_would():
    scene = next(scene for scene in map(grow, range(50)) if len(scene.layers) > 1)
    part = Field(scene, 1, SIZE)
    scene.layers = [scene.layers[1]]
    whole = Field(scene, 0, SIZE)
    whole.main, whole.bridges, whole.debris = False, [], whole.debris[:0]
    protein = Protein([(23, 1.0, 1), (0, 0.5, 2)], absent=0.0, spread=0.4, unspecific=0.1, specks=0, seed=0)
    images = ([*draw_references(view), draw_protein(view, protein)[0]] for view in (part, whole))
    for small, large in zip(*images):
        difference = np.abs(small - large[part.window])
        assert np.quantile(difference, 0.995) < 0.01  # OpenCV 4 rounds where it samples a texture to 1/32 of a knot
        assert difference.max() < 0.1
        assert large.sum() == pytest.approx(small.sum(), rel=1e-3)
