"""How well does a network of the 13 Cyto classes, trained on real pictures, see
what the atlas drew?

    python -m utils.simulator --out input/large --size 2048 --power 0.5
    python -m utils.tools.import_weights input/gapnet_pl_authors_weights.npz \\
        -o runs/published/fold0
    python predict.py runs/published --images input/large/train --tta 1 \\
        -o seen.csv
    python -m utils.tools.judge_simulator seen.csv --truth input/large/train.csv

A table of areas under the ROC curve, one row a Cyto class: 0.5 is guessing, 1
is perfect. Positives are images that show the class itself (Vesicles:
peroxisomes, endosomes, lysosomes, lipid droplets; Centrosome: also the
organizing center; Nucleus: nucleoplasm), negatives those that show nothing of
its family in the Human Protein Atlas' hierarchy; images of relatives only are
left out, being neither.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from utils.cli import check_least, run_script
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, HPA_TO_CYTO, encode, read_labels
from utils.errors import InputError, listing, plural
from utils.files import check_writable, write_csv
from utils.runs.predictions import read_predictions

OTHER_NAMES = {  # HPA classes that are a Cyto class under another name
    "Nucleus": ("Nucleoplasm",),
    "Vesicles": ("Peroxisomes", "Endosomes", "Lysosomes", "Lipid droplets"),
    "Centrosome": ("Microtubule organizing center", "Centrosome"),
}


def sides(labels, name):
    """Positives and negatives of one Cyto class: labels (N, 28) 0/1 -> two (N,) bool; images of neither are left out."""
    shown = np.asarray(labels, bool)
    itself = [HPA_CLASSES.index(member) for member in OTHER_NAMES.get(name, (name,))]
    family = [number for number, parent in enumerate(HPA_TO_CYTO) if parent == name]
    return shown[:, itself].any(axis=1), ~shown[:, family].any(axis=1)


def resampled_auc(counts, positive, scores):
    """AUC of many resamples at once: counts (R, N) how often each row was drawn, (N,) bool, (N,) -> (R,) float64.

    The share of (positive, negative) pairs in the right order, ties counted half (Hanley & McNeil 1982); NaN where a
    resample has no positive or no negative.
    """
    level, found = np.unique(scores, return_inverse=True)[1], []
    for row in counts:
        ones, zeros = (np.bincount(level, row * side, minlength=level.max() + 1) for side in (positive, ~positive))
        pairs = ones.sum() * zeros.sum()
        found.append(ones @ (np.cumsum(zeros) - zeros / 2) / pairs if pairs else np.nan)
    return np.array(found)


def judge(labels, scores, draws, seed):
    """-> (DataFrame, a row a class; mean AUC, low, high). labels (N, 28) 0/1, scores (N, 13) in the order of CYTO_CLASSES.

    Intervals are 2.5th and 97.5th percentiles of `draws` resamples of images (Efron 1979), the same for all classes, so
    that the mean has one too. A class without positives or negatives has NaN, and the mean is over the others.
    """
    counts = np.random.default_rng(seed).multinomial(len(labels), np.full(len(labels), 1 / len(labels)), size=draws)
    rows, spread = [], []
    for name, column in zip(CYTO_CLASSES, scores.T, strict=True):
        positive, negative = sides(labels, name)
        row = {"class": name, "positives": positive.sum(), "negatives": negative.sum()}
        row |= dict.fromkeys(("auc", "low", "high"), np.nan)
        if positive.any() and negative.any():
            kept = positive | negative
            row["auc"] = roc_auc_score(positive[kept], column[kept])
            spread.append(resampled_auc(counts[:, kept], positive[kept], column[kept]))
            row["low"], row["high"] = np.nanpercentile(spread[-1], [2.5, 97.5])
        rows.append(row)
    table = pd.DataFrame(rows)
    if not spread:
        return table, (np.nan,) * 3
    means = np.ma.masked_invalid(spread).mean(axis=0).compressed()
    return table, (table["auc"].mean(), *np.percentile(means, [2.5, 97.5]))


def report(table, mean, images):
    print(f"{'class':24}{'positives':>10}{'negatives':>11}{'AUC':>8}{'95 % interval':>18}   {images:,} images")
    for row in table.itertuples():
        line = f"{row[1]:24}{row.positives:>10,}{row.negatives:>11,}"
        if np.isnan(row.auc):
            print(f"{line}   no {'negatives' if row.positives else 'positives'}, so no AUC")
        else:
            print(f"{line}{row.auc:>8.3f}{f'{row.low:.3f}–{row.high:.3f}':>18}")
    name = f"mean of {plural(table['auc'].count(), 'class', 'classes')}"
    print(f"{name:45}{mean[0]:>8.3f}{f'{mean[1]:.3f}–{mean[2]:.3f}':>18}")


def read_both(predictions, truth):
    """-> (labels (N, 28), scores (N, 13) in the order of CYTO_CLASSES) of the predicted Ids, matched by Id."""
    table = read_predictions(predictions, CYTO_CLASSES)
    if differing := sorted(set(table.columns) ^ set(CYTO_CLASSES)):
        raise InputError(
            f"{predictions} has other classes than the 13 of Cyto: {listing(differing)}; predict with such a network"
        )
    targets = read_labels(truth, HPA_CLASSES).set_index("Id")["Target"]
    if unknown := [id_ for id_ in table.index if id_ not in targets.index]:
        raise InputError(
            f"{truth} lacks {plural(len(unknown), 'Id')} of {predictions}: {listing(unknown)}; give the labels of these pictures"
        )
    return encode(targets.loc[table.index], HPA_CLASSES), table[list(CYTO_CLASSES)].to_numpy()


def _options():
    parser = argparse.ArgumentParser(prog="python -m utils.tools.judge_simulator", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    arg = parser.add_argument
    arg("predictions", metavar="CSV", help="Id and one column for each of the 13 Cyto classes")
    arg("--truth", required=True, metavar="CSV", help="Id,Target with the 28 HPA class numbers")
    arg("-o", "--out", metavar="CSV", help="write the table too: class,positives,negatives,auc,low,high")
    arg("--draws", type=int, default=1000, help="resamples for the intervals (default: %(default)s)")
    arg("--seed", type=int, default=0, help="of the resamples (default: %(default)s)")
    return parser.parse_args()


def main():
    options = _options()
    check_least(options, draws=100, seed=0)
    if options.out:
        check_writable(options.out)
    labels, scores = read_both(options.predictions, options.truth)
    table, mean = judge(labels, scores, options.draws, options.seed)
    if table["auc"].isna().all():
        raise InputError(f"{options.truth} has no class with both positives and negatives; give more pictures")
    if options.out:
        write_csv(options.out, table)
    report(table, mean, len(labels))
    if options.out:
        print(f"-> {options.out}")


if __name__ == "__main__":
    run_script(main)
