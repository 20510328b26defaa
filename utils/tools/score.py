"""Score submissions against known labels, and look at some of the images.

    python -m utils.tools.score submission.csv other.csv --truth solution.csv
    python -m utils.tools.score submission.csv --truth solution.csv \\
        --images input/demo/test --sheet contact_sheet.jpg
"""

import numpy as np

from utils.cli import option_parser, run_script
from utils.data.image_files import find_files
from utils.data.images import load_sample, parse_channels
from utils.data.labels import encode, load_classes, read_labels
from utils.errors import InputError
from utils.files import check_writable
from utils.plots.image_sheets import contact_sheet
from utils.runs.predictions import check_same_ids
from utils.scoring.metrics import macro_f1


def parse_args():
    parser = option_parser(__doc__, "utils.tools.score")
    arg = parser.add_argument
    arg("submissions", nargs="+", metavar="CSV", help="Id,Predicted files")
    arg("--truth", required=True, metavar="CSV", help="Id,Target of the same Ids")
    arg("--classes", default="hpa", help="hpa, cyto, hpa2021 or a CSV class,name (default: %(default)s)")
    arg(
        "--images", action="append", default=[], help="folder of the images or images.csv, may be repeated; for --sheet"
    )
    arg("--sheet", metavar="FILE", help="draw images with the true classes and those of the first submission")
    arg("--seed", type=int, default=0, help="seed of the drawn images (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    if args.sheet:
        check_writable(args.sheet)
        if not args.images:
            raise InputError("--sheet needs the images: name them with --images")
    classes = load_classes(args.classes)
    truth = read_labels(args.truth, classes).set_index("Id")["Target"]
    labels = encode(truth, classes)
    rows = []
    for path in args.submissions:
        table = read_labels(path, classes, column="Predicted").set_index("Id")["Predicted"]
        check_same_ids(path, table.index, args.truth, truth.index)
        rows.append((path, encode(table.loc[truth.index], classes)))
    print(f"{'macro F1':>8}  {'classes a row':>13}  {len(truth):,} images, {len(classes)} classes")
    for name, decisions in [*rows, ("constant: every class in every row", np.ones_like(labels))]:
        print(f"{macro_f1(labels, decisions):>8.4f}  {decisions.sum(axis=1).mean():>13.2f}  {name}")
    if args.sheet:
        draw_sheet(args, truth.index, labels, rows[0][1], classes)
        print(f"{'':23}  {args.sheet}")


def draw_sheet(args, ids, labels, decisions, classes, count=12):
    """Draw `count` images, more likely of rare classes, so that the sheet shows several classes."""
    rng = np.random.default_rng(args.seed)
    rarity = labels @ (1 / np.maximum(labels.sum(axis=0), 1))
    picked = np.argsort(-rarity * rng.random(len(ids)), kind="stable")[:count]
    files = find_files(args.images, [ids[i] for i in picked], parse_channels("rgby"))
    images = [load_sample(paths) for paths in files]
    contact_sheet(images, labels[picked], decisions[picked], classes, args.sheet)


if __name__ == "__main__":
    run_script(main)
