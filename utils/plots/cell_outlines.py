"""Outlines of cells over images, in the colour of what each cell shows."""

import numpy as np

# Okabe and Ito's colour-blind-safe palette but for black, which does not show on a dark image.
COLOURS = ("#E69F00", "#56B4E9", "#F0E442", "#009E73", "#D55E00", "#CC79A7", "#FFFFFF", "#0072B2")
OTHER = "#999999"


def outline(labels, height, width):
    """Find the borders of cells with other cells and with the background: label image (H, W), cells 1, 2, … -> (height, width)
    with a cell's number on the pixels of its border and 0 elsewhere. Where the image cuts a cell there is no border."""
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), labels.shape))
    cells = labels[rows][:, columns]
    around = np.pad(cells, 1, mode="edge")
    neighbours = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    return np.where(np.any([each != cells for each in neighbours], axis=0), cells, 0)


def draw(image, labels, colours):
    """Draw outlines over RGB (h, w, 3) in [0, 1]: -> a copy. labels: (H, W) of any size. colours: {cell: "#rrggbb"}; cells that
    are not named get `OTHER`."""
    found, image = outline(labels, *image.shape[:2]), image.copy()
    table = np.tile(_rgb(OTHER), (int(found.max()) + 1, 1))
    for cell, colour in colours.items():
        if cell < len(table):
            table[cell] = _rgb(colour)
    image[found > 0] = table[found[found > 0]]
    return image


def colour_by_frequency(kinds):
    """Give the most frequent of `kinds`, an iterable of names, a colour of its own: -> {name: "#rrggbb"}, most frequent first,
    the rest with `OTHER`."""
    names, counts = np.unique(list(kinds), return_counts=True)
    order = np.argsort(-counts, kind="stable")
    colours = [*COLOURS, *[OTHER] * len(names)]
    return {str(names[place]): colours[rank] for rank, place in enumerate(order)}


def _rgb(colour):
    return np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
