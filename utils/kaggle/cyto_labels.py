"""Merge the competition's 28 classes into the 13 of the Cyto Challenge.

    python -m utils.kaggle.cyto_labels input/train.csv -o input/train_cyto.csv

Each class becomes the one above it in the Human Protein Atlas' hierarchy of
compartments (utils.data.labels.HIERARCHY); an image keeps each class once.
Train with --classes cyto on the folds of this table.
"""

import numpy as np

from utils.cli import option_parser, run_script
from utils.data.labels import CYTO_CLASSES, HPA_CLASSES, HPA_TO_CYTO, decode, encode, read_labels
from utils.files import check_outputs, write_csv


def main():
    parser = option_parser(__doc__, "utils.kaggle.cyto_labels")
    parser.add_argument("labels", metavar="CSV", help="Id,Target with the numbers of the 28 classes")
    parser.add_argument("-o", "--out", required=True, metavar="CSV", help="where to write")
    args = parser.parse_args()
    check_outputs([args.out], [args.labels])
    table = read_labels(args.labels, HPA_CLASSES)
    merged = merge(encode(table["Target"], HPA_CLASSES))
    write_csv(args.out, table[["Id"]].assign(Target=decode(merged)))
    print(f"{len(table):,} rows -> {args.out}")


def merge(truth):
    """(N, 28) 0/1 of the competition's classes -> (N, 13) 0/1 of the Cyto Challenge's."""
    parts = [np.equal(HPA_TO_CYTO, name) for name in CYTO_CLASSES]
    return np.column_stack([truth[:, part].max(axis=1) for part in parts])


if __name__ == "__main__":
    run_script(main)
