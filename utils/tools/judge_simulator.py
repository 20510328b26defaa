"""Test the simulated atlas with a network trained on real images of the 13
Cyto classes: does it recognise the simulated classes?

    python -m utils.simulator --out input/large --size 2048 --power 0.5
    python -m utils.tools.import_weights input/gapnet_pl_authors_weights.npz \\
        -o runs/published/fold0
    python predict.py runs/published --images input/large/train --tta 1 \\
        -o seen.csv
    python -m utils.tools.judge_simulator seen.csv \\
        --truth input/large/train.csv

prints the area under the ROC curve (AUC) of each Cyto class: 0.5 is random, 1
is perfect. Positives are images of the class itself (Vesicles: peroxisomes,
endosomes, lysosomes, lipid droplets; Centrosome: also the organizing center;
Nucleus: nucleoplasm); negatives are images without any class of its family in
the Human Protein Atlas' hierarchy. Images with other classes of its family
only are excluded.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.cli import check_least, option_parser, run_script
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, HPA_TO_CYTO, encode, read_labels
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_csv
from utils.runs.predictions import read_predictions

OTHER_NAMES = {  # HPA classes that are a Cyto class under another name
    "Nucleus": ("Nucleoplasm",),
    "Vesicles": ("Peroxisomes", "Endosomes", "Lysosomes", "Lipid droplets"),
    "Centrosome": ("Microtubule organizing center", "Centrosome"),
}


def main():
    parser = option_parser(__doc__, "utils.tools.judge_simulator")
    arg = parser.add_argument
    arg("predictions", metavar="CSV", help="Id and one column for each of the 13 Cyto classes")
    arg("--truth", required=True, metavar="CSV", help="Id,Target with the 28 HPA class numbers")
    arg("-o", "--out", metavar="CSV", help="also write the table: class,positives,negatives,auc,low,high")
    arg("--draws", type=int, default=1000, help="bootstrap samples for the intervals (default: %(default)s)")
    arg("--seed", type=int, default=0, help="seed of the bootstrap samples (default: %(default)s)")
    args = parser.parse_args()
    check_least(args, draws=100, seed=0)
    if args.out:
        check_writable(args.out)
    labels, scores = read_both(args.predictions, args.truth)
    table, mean = judge(labels, scores, args.draws, args.seed)
    if table["auc"].isna().all():
        raise InputError(f"{args.truth} has no class with both positives and negatives; give more images")
    print_table(table, mean, len(labels))
    if args.out:
        write_csv(args.out, table)
        print(f"-> {args.out}")


def read_both(predictions, truth):
    """Read and match by Id: -> labels (N, 28), scores (N, 13) in the order of CYTO_CLASSES, of the predicted Ids."""
    table = read_predictions(predictions, CYTO_CLASSES)
    if differing := sorted(set(table.columns) ^ set(CYTO_CLASSES)):
        fix = "predict with a network of these"
        raise InputError(f"{predictions} has other classes than the 13 of Cyto: {listing(differing)}; {fix}")
    targets = read_labels(truth, HPA_CLASSES).set_index("Id")["Target"]
    if unknown := [id_ for id_ in table.index if id_ not in targets.index]:
        what = f"{plural(len(unknown), 'Id')} of {predictions}: {listing(unknown)}"
        raise InputError(f"{truth} lacks {what}; give the labels of these images")
    return encode(targets.loc[table.index], HPA_CLASSES), table[list(CYTO_CLASSES)].to_numpy()


def split_sides(labels, name):
    """Find positives and negatives of one Cyto class: labels (N, 28) 0/1 -> two (N,) bool; some images are neither."""
    labels = np.asarray(labels, bool)
    itself = [HPA_CLASSES.index(member) for member in OTHER_NAMES.get(name, (name,))]
    family = [number for number, parent in enumerate(HPA_TO_CYTO) if parent == name]
    return labels[:, itself].any(axis=1), ~labels[:, family].any(axis=1)


def resampled_auc(counts, positive, scores):
    """AUC of R bootstrap samples: counts (R, N) of each row's draws, (N,) bool, (N,) -> (R,) float64.

    It is the fraction of (positive, negative) pairs in the right order, ties counted half (Hanley & McNeil 1982); NaN
    for a sample without positives or negatives.
    """
    level, found = np.unique(scores, return_inverse=True)[1], []
    for row in counts:
        ones, zeros = (np.bincount(level, row * side, minlength=level.max() + 1) for side in (positive, ~positive))
        pairs = ones.sum() * zeros.sum()
        found.append(ones @ (np.cumsum(zeros) - zeros / 2) / pairs if pairs else np.nan)
    return np.array(found)


def judge(labels, scores, draws, seed):
    """Compute each Cyto class's AUC with its 95 % interval: -> (DataFrame, (mean, low, high) over classes).

    Intervals are percentiles of `draws` bootstrap samples of images (Efron 1979), the same for all classes, so that the
    mean has an interval too. A class without positives or negatives has NaN and is not in the mean.
    """
    counts = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    rows, spread = [], []
    for name, column in zip(CYTO_CLASSES, scores.T, strict=True):
        positive, negative = split_sides(labels, name)
        auc, low, high = np.nan, np.nan, np.nan
        if positive.any() and negative.any():
            kept = positive | negative
            auc = roc_auc_score(positive[kept], column[kept])
            spread.append(resampled_auc(counts[:, kept], positive[kept], column[kept]))
            low, high = np.nanpercentile(spread[-1], [2.5, 97.5])
        rows.append((name, positive.sum(), negative.sum(), auc, low, high))
    table = pd.DataFrame(rows, columns=["class", "positives", "negatives", "auc", "low", "high"])
    if not spread:
        return table, (np.nan,) * 3
    means = np.ma.masked_invalid(spread).mean(axis=0).compressed()
    return table, (table["auc"].mean(), *np.percentile(means, [2.5, 97.5]))


def print_table(table, mean, images):
    print(f"{'class':24}{'positives':>10}{'negatives':>11}{'AUC':>8}{'95 % interval':>18}   {images:,} images")
    for name, positives, negatives, auc, low, high in table.itertuples(index=False):
        text = f"{auc:>8.3f}{f'{low:.3f}–{high:.3f}':>18}"
        if np.isnan(auc):
            text = f"   no {'negatives' if positives else 'positives'}, so no AUC"
        print(f"{name:24}{positives:>10,}{negatives:>11,}{text}")
    name = f"mean of {plural(table['auc'].count(), 'class', 'classes')}"
    print(f"{name:45}{mean[0]:>8.3f}{f'{mean[1]:.3f}–{mean[2]:.3f}':>18}")


if __name__ == "__main__":
    run_script(main)
