"""Score a submission of the single-cell competition of 2021 against the truth.

    python -m utils.tools.score_cells submission.csv \\
        --truth input/fields/cells_truth.csv --masks input/fields/masks
    python -m utils.tools.score_cells submission.csv --truth solution.csv \\
        -o classes.csv

prints the mean average precision at a mask IoU of 0.6 or more, as the
competition does (the Open Images challenge's rules, which stand in
utils/scoring/detections.py), with a 95 % interval, and a table by class. The
truth is a table of cells with their masks: Id, cell and a column per class,
above --strength if the cell shows it; a cell that shows none is Negative. It
may itself have the form of a submission. All classes of an image count as
verified. Only images of the submission are scored.
"""

import numpy as np
import pandas as pd

from utils.cli import check_least, option_parser, run_script
from utils.data.labels import HPA2021_CLASSES
from utils.data.run_length import iou_of_runs
from utils.data.tables import read_table
from utils.errors import InputError, listing, plural
from utils.files import check_outputs, write_csv
from utils.runs.cell_submission import Detections, as_2021, read_cell_masks, read_cells, read_submission
from utils.scoring.detections import judge_detections, match_in_order
from utils.simulator.sample import TRACE


def parse_args():
    parser = option_parser(__doc__, "utils.tools.score_cells")
    arg = parser.add_argument
    arg("submission", metavar="CSV", help="ID,ImageWidth,ImageHeight,PredictionString")
    arg("--truth", required=True, metavar="CSV", help="a table of cells, or the same as a submission")
    arg("--masks", metavar="FOLDER", help="label images <Id>.png of the table of cells")
    text = f"a cell of the table shows a class if its column is above this (default: {TRACE}, below which the "
    arg("--strength", type=float, metavar="NUMBER", help=text + "simulator's annotator names no compartment)")
    arg("-o", "--out", metavar="CSV", help="also write the table: class,ap,low,high,cells,detections,right")
    arg("--draws", type=int, default=1000, help="bootstrap samples of images for the intervals (default: %(default)s)")
    arg("--seed", type=int, default=0, help="seed of the bootstrap samples (default: %(default)s)")
    return parser.parse_args()


def main():
    args = parse_args()
    check_least(args, strength=0, draws=100, seed=0)
    check_outputs([args.out], [args.submission, args.truth])
    submission = read_submission(args.submission)
    truth = read_truth(args, submission)
    table, mean = score(submission, truth, args.draws, args.seed)
    if not table["cells"].any():
        raise InputError(f"{args.truth} has no cell in the images of {args.submission}; give the truth of these images")
    print_table(table, mean, len(submission))
    if args.out:
        write_csv(args.out, table)
        print(f"-> {args.out}")


def read_truth(args, submission):
    """-> {Id: Detections} of the true cells in the images of a submission."""
    path = args.truth
    if "PredictionString" in read_table(path, ["Id"], what="a table of cells or a submission").columns:
        if args.masks or args.strength is not None:
            raise InputError(f"{path} has the form of a submission; leave --masks and --strength out")
        truth = read_submission(path)
        check_images(path, truth, submission)
        return truth
    if not args.masks:
        raise InputError(f"{path} is a table of cells; add --masks FOLDER, their label images")
    strengths = read_cells(path, most=np.inf, what="a number of 0 or more")
    shown = as_2021((strengths > (TRACE if args.strength is None else args.strength)).astype(float))
    of_image = dict(list(shown.groupby(level="Id")))
    nothing = shown.iloc[:0]
    return {
        id_: true_cells(args.masks, id_, found.shape, of_image.get(id_, nothing)) for id_, found in submission.items()
    }


def true_cells(folder, id_, shape, shown):
    """-> Detections of the cells in one image. shown: DataFrame of 0 and 1, a row per cell."""
    masks = read_cell_masks(f"{folder}/{id_}.png", shape, shown.index.get_level_values("cell"))
    mask, classes = np.nonzero(shown.to_numpy())
    return Detections(shape, masks, mask, classes, np.ones(len(mask)))


def check_images(path, truth, submission):
    """Raise InputError for an image of the submission that is not in the truth, or has another size there."""
    if unknown := [id_ for id_ in submission if id_ not in truth]:
        raise InputError(
            f"{path} lacks {plural(len(unknown), 'Id')} of the submission: {listing(unknown)}; add their truth"
        )
    other = [id_ for id_, found in submission.items() if found.shape != truth[id_].shape]
    if other:
        count = plural(len(other), "image")
        raise InputError(f"{path} has another size of {count} than the submission: {listing(other)}; scale the masks")


def score(submission, truth, draws, seed):
    """-> DataFrame with a row per class, and the mean average precision with its interval (3,)."""
    parts = []
    positives = np.zeros((len(submission), len(HPA2021_CLASSES)), int)
    for number, (id_, found) in enumerate(submission.items()):
        right = match_image(found, truth[id_])
        parts.append((np.full(len(right), number), found.classes, right, found.confidence))
        np.add.at(positives[number], truth[id_].classes, 1)
    images, classes, right, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-confidence, kind="stable")
    by_class, mean = judge_detections(images[order], classes[order], right[order], positives, draws, seed)
    table = pd.DataFrame(by_class, columns=["ap", "low", "high"])
    table.insert(0, "class", HPA2021_CLASSES)
    counts = positives.sum(axis=0), *(np.bincount(part, minlength=len(table)) for part in (classes, classes[right]))
    return table.assign(**dict(zip(["cells", "detections", "right"], counts, strict=True))), mean


def match_image(found, true):
    """-> (N,) bool: which detections of an image are right."""
    overlaps = iou_of_runs(found.masks, true.masks)
    right = np.zeros(len(found.classes), bool)
    order = np.argsort(-found.confidence, kind="stable")
    for number in np.unique(true.classes):
        own = order[found.classes[order] == number]
        right[own] = match_in_order(overlaps[np.ix_(found.mask[own], true.mask[true.classes == number])])
    return right


def print_table(table, mean, images):
    print(f"{'class':44}{'AP':>6}{'95 % interval':>15}{'cells':>8}{'detections':>12}")
    for row in table.itertuples():
        text = "not in the truth" if np.isnan(row.ap) else f"{row.ap:>6.3f}{f'{row.low:.3f}–{row.high:.3f}':>15}"
        print(f"{row[1]:44}{text:>21}{row.cells:>8,}{row.detections:>12,}")
    name = f"mean of {plural(table['ap'].count(), 'class', 'classes')}, {plural(images, 'image')}"
    print(f"{name:44}{mean[0]:>6.3f}{f'{mean[1]:.3f}–{mean[2]:.3f}':>15}")


if __name__ == "__main__":
    run_script(main)
