"""Copy labels from known images that look the same: for the board, it
measures no network.

    python -m utils.tools.neighbours runs/chen --known input/hpav18.csv \\
        --images input/train --images input/test --images input/hpav18 \\
        --submission submission.csv -o submission_neighbours.csv

Winners of the competition gave test images the labels of the nearest image of
the Human Protein Atlas of version 18. Here the nearest image of --known is the
one whose perceptual hash differs in the fewest bits. How many may differ is
fitted on the run's validation images: their labels are copied in the same way,
and the limit of the highest macro F1 is taken. The gain is cross-fitted; if it
is below two standard errors, the submission stays as it is. An image never
counts as its own neighbour, so --known may hold input/train.csv too.
"""

import numpy as np
import pandas as pd

from utils.cli import check_least, option_parser, run_script
from utils.data.image_files import check_files, find_files, scan_folders
from utils.data.images import parse_channels
from utils.data.labels import decode, encode, load_classes, read_labels
from utils.data.near_duplicates import hash_samples, nearest
from utils.data.tables import check_ids
from utils.errors import InputError, plural
from utils.files import check_outputs, write_csv
from utils.runs.oof import add_oof_options, find_predictions, pool, truth_of
from utils.runs.predictions import read_all_predictions
from utils.scoring.cross_fit import deal, describe_gain, held_out, paired_gain
from utils.scoring.metrics import f1_from_counts, last_of_equals, macro_f1
from utils.scoring.thresholds.bagging import bagged


def parse_args():
    parser = option_parser(__doc__, "utils.tools.neighbours")
    add_oof_options(parser)
    arg = parser.add_argument
    arg("--known", action="append", required=True, metavar="CSV", help="Id,Target of known images, may be repeated")
    arg("--images", action="append", required=True, help="folder of images or images.csv, may be repeated")
    arg("--hash-channels", default="gb", help="channels compared (default: %(default)s)")
    arg("--repeats", type=int, default=4, help="cross-fitting splits, five parts each (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of these splits (default: %(default)s)")
    arg("--submission", metavar="CSV", help="Id,Predicted: the submission to copy labels into")
    arg("-o", "--out", metavar="CSV", help="where to write the new submission")
    args = parser.parse_args()
    if bool(args.submission) != bool(args.out):
        raise InputError("--submission and -o go together; give both, or neither to measure only")
    check_least(args, repeats=(1, 100), seed=0)
    return args


def main():
    args = parse_args()
    files, labels_file, run_classes = find_predictions(args.predictions, args.labels)
    check_outputs([args.out], [*files, labels_file, *args.known, args.submission])
    classes = load_classes(args.classes) if args.classes else run_classes or load_classes("hpa")
    oof = pool(read_all_predictions(files, classes), classes)
    truth = truth_of(labels_file, classes, oof.index)
    known = pd.concat([read_labels(path, classes) for path in args.known], ignore_index=True)
    check_ids(" and ".join(args.known), known["Id"])
    submission = read_labels(args.submission, classes, column="Predicted") if args.submission else None
    asked = list(oof.index) + ([] if submission is None else submission["Id"].tolist())
    known, place, bits, length = find_neighbours(args, asked, known)
    copied = encode(known["Target"].iloc[place], classes)

    rows = len(oof)
    limit, gain, error = fit_limit(truth, oof.to_numpy(), copied[:rows], bits[:rows], args.repeats, args.seed)
    print(
        f"{rows:,} validation images, {len(known):,} known ones; nearest at a median of {np.median(bits[:rows]):.0f} bits"
    )
    if limit >= 0:
        print(f"copying helps most within {limit} of {length} bits, {(bits[:rows] <= limit).sum():,} validation images")
    print(f"copying changes macro F1 by {describe_gain(gain, error)} (cross-fitted)")
    if submission is not None:
        near = (bits[rows:] <= limit) & (gain > 2 * error)
        submission.loc[near, "Predicted"] = np.array(decode(copied[rows:]), object)[near]
        write_csv(args.out, submission[["Id", "Predicted"]])
        print(f"{plural(int(near.sum()), 'row')} of {len(near):,} got the labels of a known image\n-> {args.out}")


def find_neighbours(args, ids, known):
    """Find the nearest known image of each Id: -> known rows that have an image, (N,) its row among these, (N,) bits
    that differ, bits of a hash."""
    channels, found = parse_channels(args.hash_channels), scan_folders(args.images)
    known = known[known["Id"].isin(found)].reset_index(drop=True)
    if len(known) < 2:
        raise InputError(
            f"fewer than two rows of {' and '.join(args.known)} have an image; name its folder with --images"
        )
    names = list(dict.fromkeys([*ids, *known["Id"]]))
    files = find_files(args.images, names, channels, found)
    check_files(files)
    row_of = {name: row for row, name in enumerate(names)}
    hashes = hash_samples(files)
    place_of = {name: row for row, name in enumerate(known["Id"])}
    own = np.array([place_of.get(name, -1) for name in ids])
    place, bits = nearest(hashes[[row_of[name] for name in ids]], hashes[[row_of[name] for name in known["Id"]]], own)
    return known, place, bits, hashes.shape[1]


def fit_limit(truth, oof, copied, bits, repeats=4, seed=0):
    """Fit the most bits within which copying helps: -> limit on all rows, cross-fitted gain and its standard error.

    truth (N, C), oof (N, C) probabilities, copied (N, C) labels of the nearest known image, bits (N,) that differ.
    """

    def fit(rows):
        decided = oof >= bagged(truth[rows], oof[rows])
        limit = best_limit(truth[rows], decided[rows], copied[rows], bits[rows])
        return limit, decided, np.where((bits <= limit)[:, None], copied, decided)

    plain, copying = [], []
    for part in deal(truth, repeats, seed):
        plain.append(np.zeros(truth.shape, bool))
        copying.append(np.zeros(truth.shape, bool))
        for held in held_out(part):
            _, without, with_copies = fit(~held)
            plain[-1][held], copying[-1][held] = without[held], with_copies[held]
    return fit(np.ones(len(truth), bool))[0], *paired_gain(truth, copying, plain, seed)


def best_limit(truth, decided, copied, bits):
    """Find the most bits within which copied labels replace decisions for the highest macro F1, exactly: -> int, −1 if
    none is better than no copy. Ties take the fewest bits."""
    truth, decided, copied = (np.asarray(part, np.int64) for part in (truth, decided, copied))
    order = np.argsort(bits, kind="stable")
    last = last_of_equals(bits[order])
    change = (copied - decided)[order]
    tp = (truth * decided).sum(axis=0) + np.cumsum(truth[order] * change, axis=0)[last]
    predicted = decided.sum(axis=0) + np.cumsum(change, axis=0)[last]
    scores = f1_from_counts(tp, truth.sum(axis=0), predicted).mean(axis=1)
    best = scores.argmax()
    return int(bits[order][last[best]]) if scores[best] > macro_f1(truth, decided) else -1


if __name__ == "__main__":
    run_script(main)
