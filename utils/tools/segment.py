"""Find the nuclei and cells of images, without a network.

    python -m utils.tools.segment --images input/test -o masks
    python -m utils.tools.segment --images images.csv --pixel-size 0.16 \\
        --figure cells.png

writes masks/<Id>.png, label images of 16 bits: 0 is background, any other
number a cell; and masks/cells.csv with the cells' boxes and areas in pixels,
and whether the image's border cuts them. Nuclei are found in blue, cells in
red or yellow or both. Images that have a mask already, also one of another
program, are only measured; so an interrupted run goes on.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import describe_problems, scan_folders
from utils.data.images import image_size, load_sample
from utils.data.masks import cell_table, read_mask, write_mask
from utils.data.pixel_size import check_pixel_size, read_pixel_sizes
from utils.data.readable import find_undecodable
from utils.data.segmentation import STAINS, segment, working_shape
from utils.errors import InputError, plural
from utils.files import check_outputs, write_csv
from utils.parallel import closing, cores, in_processes
from utils.plots.image_sheets import segmented

IN_FIGURE = 8  # images


def parse_args():
    parser = option_parser(__doc__, "utils.tools.segment")
    arg = parser.add_argument
    arg("--images", action="append", help="folder of images or images.csv, may be repeated (default: input/test)")
    arg("-o", "--out", type=Path, default="masks", metavar="FOLDER", help="where to write (default: %(default)s)")
    text = (
        "micrometres of a pixel (default: the column pixel_size of images.csv, else an image shows 164, as the Atlas's)"
    )
    arg("--pixel-size", type=float, metavar="UM", help=text)
    arg("--bits", type=int, default=0, help="significant bits of 16-bit pixels, 8 to 16 (default: as the files say)")
    arg("--overwrite", action="store_true", help="segment images that have a mask, too")
    arg("--skip-bad", action="store_true", help="leave out images that lack a channel, or whose files cannot be used")
    arg("--workers", type=int, default=cores(), help="processes (default: %(default)s)")
    arg("--figure", metavar="PNG", help=f"draw the outlines on the first {IN_FIGURE} images")
    args = parser.parse_args()
    args.images = args.images or ["input/test"]
    check_least(args, workers=1, bits=(0, 16))
    check_pixel_size("--pixel-size", args.pixel_size)
    return args


def main():
    args = parse_args()
    check_outputs([args.out / "cells.csv", args.figure])
    files = find_usable(args)
    ids, sizes = list(files), pixel_sizes(args, list(files))
    function = partial(segment_file, args.out, args.overwrite, args.bits)
    jobs = [(id_, files[id_], size) for id_, size in zip(ids, sizes, strict=True)]
    for id_, paths, size in jobs:
        try:
            working_shape(image_size(paths["blue"]), size)
        except InputError as error:
            raise InputError(f"{id_}: {error}") from None
    tables = []
    bar = tqdm(total=len(ids), desc="segmenting", unit="img", disable=None)
    with bar, closing(in_processes(function, jobs, args.workers, "segmenting process")) as done:
        for table in done:
            tables.append(table)
            bar.update()
    cells = pd.concat([table.assign(Id=id_) for id_, table in zip(ids, tables, strict=True)])
    write_csv(args.out / "cells.csv", cells[["Id", *tables[0].columns]])
    empty = sum(not len(table) for table in tables)
    none = f", {empty:,} of them without a cell" if empty else ""
    print(f"{plural(len(cells), 'cell')} in {plural(len(ids), 'image')}{none} -> {args.out}")
    if args.figure:
        draw(args, [(id_, files[id_]) for id_ in ids[:IN_FIGURE]])


def find_usable(args):
    """Find and check the images: -> {Id: {channel: path}} of the channels that cells are found in, without those that
    --skip-bad leaves out."""
    found = scan_folders(args.images)
    if not found:
        fix = "name the folder with --images, or list files of other names with python -m utils.tools.find_images"
        raise InputError(f"no <Id>_<colour>.png files in {', '.join(args.images)}; {fix}")
    files = {id_: {name: found[id_][name] for name in STAINS if name in found[id_]} for id_ in sorted(found)}
    problems = {}
    for id_, paths in files.items():
        if "blue" not in paths or len(paths) < 2:
            lacking = "blue" if "blue" not in paths else "red and yellow"
            problems[id_] = [f"{id_} has no {lacking} channel"]
    new = [id_ for id_ in files if id_ not in problems and (args.overwrite or not mask_of(args.out, id_).is_file())]
    problems |= find_undecodable({id_: tuple(files[id_].values()) for id_ in new}, new, args.bits)
    if problems and not args.skip_bad:
        raise InputError(f"{describe_problems(problems)}; or leave out such images with --skip-bad")
    if problems:
        print(f"{plural(len(problems), 'image')} left out: {describe_problems(problems)}")
    if len(problems) == len(files):
        raise InputError(f"no image is left: {describe_problems(problems)}")
    return {id_: paths for id_, paths in files.items() if id_ not in problems}


def pixel_sizes(args, ids):
    """The pixel size of each image in µm, or None for the Atlas's."""
    if args.pixel_size:
        return [args.pixel_size] * len(ids)
    return [None if np.isnan(size) else float(size) for size in read_pixel_sizes(args.images, ids)]


def mask_of(folder, id_):
    return folder / f"{id_}.png"


def segment_file(folder, overwrite, bits, job):
    """Segment one image, unless it has a mask, and measure its cells: -> `cell_table`."""
    id_, paths, pixel_size = job
    mask = mask_of(folder, id_)
    if mask.is_file() and not overwrite:
        return cell_table(read_mask(mask, image_size(paths["blue"])))
    image = load_sample(tuple(paths.values()), bits=bits)
    cells, _ = segment(image, tuple(paths), pixel_size)
    write_mask(mask, cells)
    return cell_table(cells)


def draw(args, files):
    images, masks, titles = [], [], []
    for id_, paths in files:
        image = load_sample(tuple(paths.values()), bits=args.bits)
        images.append({name: image[..., place] for place, name in enumerate(paths)})
        masks.append(read_mask(mask_of(args.out, id_), image.shape[:2]))
        titles.append(f"{id_[:18]}: {plural(len(np.unique(masks[-1])) - 1, 'cell')}")
    segmented(images, masks, titles, args.figure)
    print(f"{plural(len(files), 'image')} -> {args.figure}")


if __name__ == "__main__":
    run_script(main)
