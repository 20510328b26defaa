"""Merge the 28 classes of a label table into those of another list.

    python -m utils.kaggle.merge_labels input/train.csv --to cyto \\
        -o input/train_cyto.csv
    python -m utils.kaggle.merge_labels input/train.csv --to hpa2021 \\
        -o input/train_2021.csv

cyto: the 13 of the Cyto Challenge, those above the 28 in the Human Protein
Atlas' hierarchy of compartments. hpa2021: the 19 of the single-cell
competition; an image without any class is Negative. utils/data/labels.py has
both tables. An image keeps each class once. Train with --classes cyto or
hpa2021 on the folds of the new table.
"""

from utils.cli import option_parser, run_script
from utils.data.labels import HPA_CLASSES, MERGED, decode, encode, merge, read_labels
from utils.files import check_outputs, write_csv


def main():
    parser = option_parser(__doc__, "utils.kaggle.merge_labels")
    arg = parser.add_argument
    arg("labels", metavar="CSV", help="Id,Target with the numbers of the 28 classes")
    arg("--to", required=True, choices=list(MERGED), help="the list of classes to merge into")
    arg("-o", "--out", required=True, metavar="CSV", help="where to write")
    args = parser.parse_args()
    check_outputs([args.out], [args.labels])
    table = read_labels(args.labels, HPA_CLASSES)
    merged = merge(encode(table["Target"], HPA_CLASSES), args.to)
    write_csv(args.out, table[["Id"]].assign(Target=decode(merged)))
    print(f"{len(table):,} rows -> {args.out}")


if __name__ == "__main__":
    run_script(main)
