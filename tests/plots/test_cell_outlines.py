"""Outlines of cells."""

import numpy as np

from utils.plots.cell_outlines import COLOURS, OTHER, colour_by_frequency, draw, outline

CELLS = np.zeros((6, 8), int)
CELLS[1:5, 1:4], CELLS[1:5, 4:8] = 1, 2


def test_borders_of_cells_keep_their_numbers():
    found = outline(CELLS, 6, 8)
    assert found.tolist() == [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 2, 2, 2, 2],
        [0, 1, 0, 1, 2, 0, 0, 0],
        [0, 1, 0, 1, 2, 0, 0, 0],  # the image cuts cell 2 at the right
        [0, 1, 1, 1, 2, 2, 2, 2],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert set(outline(CELLS, 3, 4).ravel()) <= {0, 1, 2} and outline(CELLS, 12, 16).shape == (12, 16)
    assert not outline(np.zeros((4, 4), int), 4, 4).any()


def test_each_cell_is_drawn_in_its_colour_and_the_image_stays():
    image = np.zeros((6, 8, 3))
    drawn = draw(image, CELLS, {1: "#ff0000", 9: "#00ff00"})
    assert drawn[1, 1].tolist() == [1, 0, 0] and drawn[2, 2].tolist() == [0, 0, 0]
    assert drawn[1, 5].tolist() == [0x99 / 255] * 3 and not image.any()


def test_frequent_kinds_have_colours_of_their_own():
    kinds = [f"k{number}" for number in range(10) for _ in range(20 - number)]
    colours = colour_by_frequency(kinds)
    assert list(colours) == [f"k{number}" for number in range(10)]
    assert list(colours.values()) == [*COLOURS, OTHER, OTHER] and len({*COLOURS, OTHER}) == 9
