"""Draw contact sheets of the simulated atlas.

    python -m utils.simulator.sheets -o notebooks/figures

All 28 compartments in compartments.jpg, all 27 cell types in cell_types.jpg.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from utils.cli import option_parser, run_script
from utils.data.labels import HPA_CLASSES
from utils.files import check_writable
from utils.opencv import cv2
from utils.plots.image_sheets import overlay, stretch
from utils.plots.style import save
from utils.simulator.cell_types import CELL_TYPES
from utils.simulator.sample import draw_sample

SIZE, CROP = 512, 256  # a quarter of a field, at the competition's magnification
SEED = 11


def draw_compartments(path):
    """Draw every compartment: microtubules, protein and nuclei overlaid, and the protein alone."""
    figure, axes = plt.subplots(7, 8, figsize=(16, 15.2))
    for number, name in enumerate(tqdm(HPA_CLASSES, desc="compartments", disable=None)):
        image = _brightest_part(draw_sample(SEED, "external", number, (number,), SIZE, ambiguity=0))
        left, right = axes[number // 4, 2 * (number % 4) : 2 * (number % 4) + 2]
        left.imshow(overlay(image), interpolation="nearest")
        right.imshow(stretch(image[..., 1]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        left.set_title(f"{number} {name}", loc="left", fontsize=11, pad=3)
    _save(figure, axes, path)


def draw_cell_types(path):
    """Draw a whole field of every cell type: microtubules red, reticulum yellow, nuclei blue."""
    figure, axes = plt.subplots(4, 7, figsize=(16, 9.9))
    for number, kind in enumerate(tqdm(CELL_TYPES, desc="cell types", disable=None)):
        image = draw_sample(SEED, "external", 100 + number, (25,), SIZE, ambiguity=0, kind=kind)
        red, _, blue, yellow = np.moveaxis(stretch(image), -1, 0)
        colours = np.stack([red + 0.5 * yellow, 0.45 * yellow + 0.15 * red, blue], -1)
        axis = axes[number // 7, number % 7]
        axis.imshow(np.clip(cv2.resize(colours, None, fx=0.625, fy=0.625, interpolation=cv2.INTER_AREA), 0, 1))
        axis.set_title(kind.name, loc="left", fontsize=11, pad=3)
    _save(figure, axes, path)


def _brightest_part(image):
    """Crop the part of an image with the brightest green spots: -> (CROP, CROP, 4)."""
    squares = cv2.GaussianBlur(image[..., 1].astype(np.float32), (0, 0), 2) ** 2
    places = range(0, SIZE - CROP + 1, 32)
    parts = [np.s_[y : y + CROP, x : x + CROP] for y in places for x in places]
    return image[max(parts, key=lambda part: squares[part].sum())]


def _save(figure, axes, path):
    for axis in axes.ravel():
        axis.axis("off")
    figure.tight_layout(pad=0.3, w_pad=0.2, h_pad=0.4)
    save(figure, path, dpi=96)
    print(f"wrote {path}")


def main():
    parser = option_parser(__doc__, "utils.simulator.sheets")
    text = "folder to write (default: %(default)s)"
    parser.add_argument("-o", "--out", type=Path, default=Path("notebooks/figures"), help=text)
    folder = parser.parse_args().out
    sheets = {folder / "compartments.jpg": draw_compartments, folder / "cell_types.jpg": draw_cell_types}
    for path in sheets:
        check_writable(path)
    for path, draw in sheets.items():
        draw(path)


if __name__ == "__main__":
    run_script(main)
