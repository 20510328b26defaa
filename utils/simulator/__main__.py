"""Make a simulated Human Protein Atlas with known labels, in Kaggle's layout.

    python -m utils.simulator --out input/demo --train 1000 --test 300
    python -m utils.simulator --out input/cyto --form cyto --size 512

writes train/<Id>_{red,green,blue,yellow}.png, test/…, train.csv,
sample_submission.csv, truth.csv with the classes that each image really shows,
and solution.csv, the test set's labels, which training must never read; with
--external also external/… and external.csv. --form cyto writes the 13 classes
of the Cyto Challenge as TIFFs of mixed sizes and depths; --cells adds the
truth of single cells, masks/<Id>.png and cells_truth.csv. Labels have the
frequencies and co-occurrence of the 31,072 real ones. The settings, split and
number determine each image, so any part of an atlas can be made separately.
"""

import os
import time
from pathlib import Path

from utils.cli import check_least, option_parser, run_script
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, encode, read_labels
from utils.data.tables import check_ids, read_table
from utils.errors import plural
from utils.parallel import cores
from utils.simulator.cell_truth import CELL_TABLE
from utils.simulator.plan import SPLITS, Settings
from utils.simulator.write import write_atlas


def parse_args():
    parser = option_parser(__doc__, "utils.simulator")

    def arg(name, default, text):
        parser.add_argument(name, type=type(default), default=default, help=f"{text} (default: %(default)s)")

    arg("--out", Path("input/demo"), "folder of the atlas")
    arg("--train", 1000, "train images")
    arg("--test", 300, "test images")
    arg("--external", 0, "images of another laboratory: brighter, and JPEG")
    arg("--size", 128, "height and width of the images in pixels, 32 to 2048")
    arg("--seed", 0, "seed of the atlas")
    arg("--power", 1.0, "label set frequencies are count**power: 1 as in reality, 0 uniform")
    arg("--duplicates", 0.02, "fraction of images that are near-duplicates of a train image")
    arg("--label-noise", 0.0, "fraction of train and external images with a wrong label")
    arg("--ambiguity", 0.5, "0: clear images .. 1: faint, mixed, often missing proteins")
    arg("--form", "kaggle", "kaggle: 28 classes, 8-bit PNG; cyto: 13 classes, TIFF of mixed sizes and depths")
    arg("--corrupt", 0.0, "fraction of images with a damaged file")
    arg("--workers", cores(), "processes, without effect on the files (0.2 GB each at 512², 2 GB at 2048²)")
    parser.add_argument("--cells", action="store_true", help="add masks/ and cells_truth.csv, also to an atlas without")
    parser.add_argument("--ids", type=Path, help="CSV with the Ids of the images to draw (default: all)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, workers=1)
    options = vars(args)
    out, workers, path, cells = (options.pop(name) for name in ("out", "workers", "ids", "cells"))
    settings, ids = Settings(**options), None
    if path is not None:
        ids = read_table(path, ["Id"], what="a list of ids")["Id"]
        check_ids(path, ids)
    start = time.perf_counter()
    if drawn := write_atlas(out, settings, workers, ids, cells):
        _print_summary(out, settings, drawn, time.perf_counter() - start)
    else:
        print(f"{out} is complete already, nothing to do" if ids is None else f"{out} has these images already")


def _print_summary(out, settings, drawn, seconds):
    files = [entry for split in SPLITS if (out / split).is_dir() for entry in os.scandir(out / split)]
    megabytes = sum(entry.stat().st_size for entry in files) / 1e6
    print(f"{out}: {plural(len(files) // 4, 'image')} in {plural(len(files), 'file')}, {megabytes:,.1f} MB")
    if (out / CELL_TABLE).exists():
        with open(out / CELL_TABLE) as table:
            print(f"{out / CELL_TABLE}: {plural(sum(1 for _ in table) - 1, 'cell')}")
    print(f"drawn now: {drawn:,} in {seconds:.1f} s, {drawn / seconds:.1f} img/s")
    names = CYTO_CLASSES if settings.form == "cyto" else HPA_CLASSES
    counts = encode(read_labels(out / "train.csv", names)["Target"], names).sum(axis=0)
    rarest = counts.argsort(kind="stable")[:5]
    print("rarest in train: " + ", ".join(f"{number} {names[number]} ({counts[number]})" for number in rarest))


if __name__ == "__main__":
    run_script(main)
