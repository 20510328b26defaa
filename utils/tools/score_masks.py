"""Compare label images of cells with true ones.

    python -m utils.tools.score_masks masks --truth input/demo/masks
    python -m utils.tools.score_masks masks --truth input/demo/masks \\
        --pixel-size 0.32 -o scores.csv

A cell is found if its overlap with a true one, intersection over union, is at
least --least; cells are paired one to one. Recall is the fraction of true
cells that are found, precision that of found cells that are true, each with a
95 % interval from 1,000 bootstrap samples of the images. -o writes a row per
cell.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cli import option_parser, run_script
from utils.data.images import image_size
from utils.data.masks import cell_table, read_mask
from utils.data.pixel_size import HPA_FIELD, check_pixel_size
from utils.errors import InputError, listing, plural
from utils.files import check_outputs, write_csv
from utils.scoring.mask_iou import iou, match

SIZES = {
    "below 150 µm²": (0, 150),
    "150 to 400 µm²": (150, 400),
    "400 to 800 µm²": (400, 800),
    "800 µm² and more": (800, np.inf),
}
DENSITIES = {
    "1 to 10 cells": (1, 11),
    "11 to 20 cells": (11, 21),
    "21 to 30 cells": (21, 31),
    "more than 30": (31, np.inf),
}
SAMPLES = 1000  # bootstrap


def main():
    parser = option_parser(__doc__, "utils.tools.score_masks")
    arg = parser.add_argument
    arg("masks", type=Path, metavar="FOLDER", help="label images, <Id>.png")
    arg(
        "--truth",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the true ones; more than there are masks is allowed",
    )
    arg("--least", type=float, default=0.6, metavar="IOU", help="overlap of a found cell (default: %(default)s)")
    arg(
        "--pixel-size",
        type=float,
        metavar="UM",
        help="micrometres of a pixel (default: an image shows 164, as the Atlas's)",
    )
    arg("-o", "--out", metavar="CSV", help="where to write a row per cell")
    args = parser.parse_args()
    if not 0 < args.least <= 1:
        raise InputError(f"--least {args.least:g} is not an overlap; give a number above 0, at most 1")
    check_pixel_size("--pixel-size", args.pixel_size)
    check_outputs([args.out])
    pairs = find_pairs(args.masks, args.truth)
    cells = []
    for id_, mask, truth in tqdm(pairs, desc="comparing", unit="img", disable=None):
        shape = image_size(truth)
        pixel = args.pixel_size or HPA_FIELD / np.sqrt(shape[0] * shape[1])
        cells.append(compare(read_mask(truth, shape), read_mask(mask, shape), args.least, pixel).assign(Id=id_))
    cells = pd.concat(cells, ignore_index=True)
    cells = cells[["Id", *cells.columns.drop("Id")]]
    print_scores(cells, [id_ for id_, _, _ in pairs], args.least)
    if args.out:
        write_csv(args.out, cells)
        print(f"-> {args.out}")


def find_pairs(masks, truth):
    """-> [(Id, mask, true mask)] of all label images in the folder `masks`."""
    for folder in (masks, truth):
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder of label images; name one with <Id>.png files")
    files = sorted(path for path in masks.glob("*.png") if not path.name.startswith("."))
    if not files:
        raise InputError(f"{masks} has no <Id>.png files; write them with python -m utils.tools.segment -o {masks}")
    if lacking := [path.name for path in files if not (truth / path.name).is_file()]:
        what = f"{plural(len(lacking), 'mask')} of {len(files):,} without a true one in {truth}: {listing(lacking)}"
        raise InputError(f"{what}; remove them, or name another --truth")
    return [(path.stem, path, truth / path.name) for path in files]


def compare(truth, found, least, pixel):
    """Pair the cells of two label images (H, W): -> DataFrame with a row per cell: true, 1 for one of `truth` and 0 for one of
    `found`; cell, its number; area in µm²; edge; cells, how many true ones the image has; matched, 1 or 0; iou of the pair."""
    overlap = iou(truth, found)
    pairs = match(overlap, least)
    sides = []
    for true, labels, places in zip((1, 0), (truth, found), pairs, strict=True):
        table = cell_table(labels)[["cell", "area", "edge"]]
        table = table.assign(area=table["area"] * pixel**2, true=true, cells=len(overlap), matched=0, iou=np.nan)
        table.loc[places, ["matched", "iou"]] = np.column_stack([np.ones(len(places), int), overlap[pairs]])
        sides.append(table)
    return pd.concat(sides, ignore_index=True)


def print_scores(cells, ids, least):
    print(
        f"{plural(int(cells['true'].sum()), 'true cell')} in {plural(len(ids), 'image')}, found at IoU {least:g} or more\n"
    )
    print(f"{'':24}{'true':>7}{'found':>7}{'recall':>9}{'precision':>11}{'F1':>7}{'median IoU':>12}")
    groups = {"all": cells["true"] >= 0, "inside": cells["edge"] == 0, "cut by the border": cells["edge"] == 1}
    groups |= {name: cells["area"].between(*limits, inclusive="left") for name, limits in SIZES.items()}
    groups |= {name: cells["cells"].between(*limits, inclusive="left") for name, limits in DENSITIES.items()}
    for name, chosen in groups.items():
        part = cells[chosen]
        if not len(part):
            continue
        recall, precision = (part.loc[part["true"] == true, "matched"].mean() for true in (1, 0))
        f1 = 2 * recall * precision / max(recall + precision, 1e-9)
        middle = part.loc[part["true"] == 1, "iou"].median()
        counts = f"{int((part['true'] == 1).sum()):>7,}{int((part['true'] == 0).sum()):>7,}"
        print(f"{name:24}{counts}{recall:>9.3f}{precision:>11.3f}{f1:>7.3f}{middle:>12.3f}".replace("nan", "  –"))
    low, high = np.nanpercentile(bootstrap(cells, ids), [2.5, 97.5], axis=0)
    intervals = [
        f"{name} {low[place]:.3f} to {high[place]:.3f}" for place, name in enumerate(("recall", "precision", "F1"))
    ]
    print(f"\n95 % intervals: {', '.join(intervals)}")


def bootstrap(cells, ids, seed=0):
    """Recall, precision and F1 of SAMPLES random samples of the images: -> (SAMPLES, 3), NaN without cells."""
    counts = (
        cells.groupby(["Id", "true"])["matched"].agg(["sum", "size"]).unstack(fill_value=0).reindex(ids, fill_value=0)
    )
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(ids), np.full(len(ids), 1 / len(ids)), SAMPLES)
    matched, true, found = (drawn @ counts[key].to_numpy() for key in (("sum", 1), ("size", 1), ("size", 0)))
    with np.errstate(invalid="ignore"):  # a sample of images without cells is no number
        return np.stack([matched / true, matched / found, 2 * matched / (true + found)], axis=1)


if __name__ == "__main__":
    run_script(main)
